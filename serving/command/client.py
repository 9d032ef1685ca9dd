"""What asks a running service: `verisynth generate`, `paint`, `check`, `scan`, `models`, `collection`."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from contracts.manifest import VERDICTS
from serving.client import scan as scans
from serving.client.client import Checked, Client
from serving.client.connection import EXAMPLE_URL, ServiceError
from serving.client.download import EXTENSIONS, Saved
from serving.client.scan import UNCHECKED
from serving.command.ending import FOUND, exit_code, shown

URL_VARIABLE, KEY_VARIABLE = "VERISYNTH_CLIENT_URL", "VERISYNTH_CLIENT_KEY"
OUTCOMES = (*(verdict for verdict in VERDICTS if verdict != "real"), UNCHECKED)
ANY = "any"
MEBIBYTE = 1024**2


def asks_the_service(command: Callable[..., None]) -> Callable[..., None]:
    """Options for the service; the command gets the `client` that follows from them."""

    @functools.wraps(command)
    def connected(url: str, key: str | None, timeout_seconds: float, retries: int, **others: Any) -> None:
        unknown = {name for name in os.environ if name.startswith("VERISYNTH_CLIENT_")} - {URL_VARIABLE, KEY_VARIABLE}
        if unknown:
            raise click.UsageError(
                f"unknown variable {', '.join(sorted(unknown))}; there are {URL_VARIABLE} and {KEY_VARIABLE}"
            )
        with Client(url, key, timeout_seconds, retries) as client:
            command(client=client, **others)

    options = (
        click.option("--url", envvar=URL_VARIABLE, show_envvar=True, default=EXAMPLE_URL, show_default=True),
        click.option(
            "--key", envvar=KEY_VARIABLE, show_envvar=True, help="Better in the variable: commands are seen by others."
        ),
        click.option("--timeout-seconds", type=click.FloatRange(0, min_open=True), default=60, show_default=True),
        click.option("--retries", type=click.IntRange(0), default=4, show_default=True),
        click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output."),
    )
    decorated: Callable[..., None] = connected
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def checks_images(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what checks images."""
    options = (
        click.option("--model", help="Left out: for each image the model whose kind of image it is."),
        click.option("--concurrency", type=click.IntRange(1), default=4, show_default=True, help="Images at once."),
        click.option(
            "--fail-on",
            type=click.Choice([*OUTCOMES, ANY]),
            multiple=True,
            help=f"Exit with {FOUND} if an image is that; may be given several times.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1), required=True)
@click.option("--model", help="May be left out where one is served.")
@click.option("--seed", type=click.IntRange(0), help="Left out: a random one, which is told.")
@click.option("--label", help="Only images of this label.")
@click.option("--balance", type=click.Choice(["equal", "training"]), help="How often each label is drawn.")
@click.option("--truncation", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="Index of the first image.")
@click.option("--format", "file_format", type=click.Choice(list(EXTENSIONS)), help="Left out: by the name, else npz.")
@asks_the_service
def generate(client: Client, destination: Path, as_json: bool, **options: Any) -> None:
    """Save synthetic images to DESTINATION.

    A file (.npz, .zip, .dicom.zip or .png) takes at most 1024 images. Anything else is a folder, which takes any
    number: npz parts, or PNG or DICOM files with --format zip or dicom. The same command goes on with a folder that was
    begun.
    """
    with _bar("generating", options["count"]) as bar:
        saved = client.save(destination, progress=bar.update, **options)
    _tell_saved(saved, destination, as_json)


@click.command()
@click.argument("mask", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--model", help="May be left out where one is served.")
@click.option("--seed", type=click.IntRange(0), help="Left out: a random one, which is told.")
@click.option("--truncation", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="Index of the first image.")
@click.option("--format", "file_format", type=click.Choice(list(EXTENSIONS)), help="Left out: by the name.")
@asks_the_service
def paint(client: Client, destination: Path, as_json: bool, **options: Any) -> None:
    """Paint photographs on MASK, a PNG or TIFF of your own, and save them to DESTINATION.

    MASK has the size of the model's images and two values, 0 and 255. DESTINATION is a file (.npz, .zip, .dicom.zip or
    .png) of at most 1024 images.
    """
    with _bar("painting", options["count"]) as bar:
        saved = client.save(destination, progress=bar.update, **options)
    _tell_saved(saved, destination, as_json)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@checks_images
@asks_the_service
def check(
    client: Client,
    files: tuple[Path, ...],
    model: str | None,
    concurrency: int,
    fail_on: tuple[str, ...],
    as_json: bool,
) -> None:
    """Are these images real?

    PNG, JPEG, TIFF, WebP and DICOM files. Their names are not sent. Only `real` was found to be real: of
    `out_of_scope`, the probability means nothing.
    """
    outcomes, codes = [], []
    if not as_json:
        click.echo(f"{'verdict':<12}  {'synthetic':>9}  {'typicality':>10}  {'model':<12}  file")
    for checked in client.check_many(files, model=model, concurrency=concurrency):
        outcomes.append(UNCHECKED if checked.verdict is None else checked.verdict.verdict)
        codes += [exit_code(checked.error)] if checked.error is not None else []
        if as_json:
            click.echo(json.dumps(_document(checked)))
        else:
            _tell(checked)
    _end(outcomes, fail_on, otherwise=min(codes, default=0))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--report",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV, or JSON lines where it ends with .jsonl. An earlier scan's is gone on with.",
)
@checks_images
@asks_the_service
def scan(
    client: Client,
    folder: Path,
    report: Path,
    model: str | None,
    concurrency: int,
    fail_on: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check all images below FOLDER into a report.

    Images that the report has are not checked again unless they changed. A file that cannot be checked is a row with an
    error, and no reason to stop.
    """
    with scans.Report.opened(report) as opened:
        found = scans.prepare(folder, opened, model)
        rows = list(found.done.values())
        with _bar("checking", len(found.left)) as bar:
            for row in scans.run(found, client, model, concurrency):
                rows.append(row)
                bar.update(1)
    counts = scans.counted(rows)
    if as_json:
        summary = {"report": str(report), "checked_now": len(found.left), "checked_before": len(found.done)}
        click.echo(json.dumps(summary | {"outcomes": counts}))
    else:
        for outcome, count in counts.items():
            click.echo(f"{outcome:<12}  {count:>9}")
        click.echo(f"{'images':<12}  {len(rows):>9}  {len(found.done)} of them checked before: {shown(report)}")
    _end([row.outcome for row in rows], fail_on, otherwise=0)


@click.command()
@click.argument("name", required=False)
@asks_the_service
def models(client: Client, name: str | None, as_json: bool) -> None:
    """The models that are served; of the model NAME, its card."""
    if name is not None:
        click.echo(json.dumps(asdict(client.model(name))) if as_json else client.card(name))
        return
    found = client.all_models()
    if as_json:
        click.echo(json.dumps({"models": [asdict(model) for model in found.served], "refused": found.refused}))
        return
    click.echo(f"{'model':<16}  {'version':<12}  {'image':<9}  labels")
    for model in found.served:
        image = model.manifest["image"]
        pixels = f"{image['size']}x{image['size']}x{image['channels']}"
        click.echo(f"{model.name:<16}  {model.version:<12}  {pixels:<9}  {', '.join(model.labels) or '-'}")
    for unserved, reason in found.refused.items():
        click.echo(f"{unserved} is not served: {shown(reason)}", err=True)


@click.group("collection")
def collections() -> None:
    """Sets of generated images that a service hands out."""


@collections.command("list")
@asks_the_service
def list_collections(client: Client, as_json: bool) -> None:
    """The collections that there are."""
    found = client.collections()
    if as_json:
        click.echo(json.dumps({"collections": [one.document for one in found]}))
        return
    click.echo(f"{'collection':<16}  {'version':<12}  {'images':>8}  {'MiB':>8}  licence")
    for one in found:
        numbers = f"{one.images:>8}  {one.bytes / MEBIBYTE:>8.1f}"
        click.echo(f"{shown(one.name):<16}  {shown(one.version):<12}  {numbers}  {shown(one.licence)}")


@collections.command("fetch")
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--version", help="May be left out where there is one.")
@asks_the_service
def fetch_collection(client: Client, name: str, folder: Path, version: str | None, as_json: bool) -> None:
    """Fetch the collection NAME into FOLDER and verify its checksums; the same command goes on where it was stopped."""
    sizes = [one.bytes for one in client.collections() if one.name == name and version in (None, one.version)]
    with _bar("fetching", sum(sizes)) as bar:
        fetched = client.fetch_collection(name, folder, version, bar.update)
    if as_json:
        click.echo(json.dumps({"folder": str(folder)} | fetched.document))
    else:
        click.echo(f"{fetched.images} images of {fetched.name} {fetched.version}, verified: {shown(folder)}")


def _tell_saved(saved: Saved, destination: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"destination": str(destination)} | asdict(saved)))
    else:
        click.echo(f"{saved.count} images of {saved.model} {saved.version}, seed {saved.seed}: {shown(destination)}")


def _bar(label: str, length: int) -> Any:
    """A progress bar on standard error, for people only."""
    return click.progressbar(length=length, label=label, show_pos=True, file=sys.stderr, hidden=not sys.stderr.isatty())


def _tell(checked: Checked[Path]) -> None:
    verdict, name = checked.verdict, shown(checked.source)
    if verdict is None:
        click.echo(f"{UNCHECKED:<12}  {'-':>9}  {'-':>10}  {'-':<12}  {name}")
        code = f"{checked.error.code}: " if isinstance(checked.error, ServiceError) else ""
        click.echo(f"{name}: {code}{shown(str(checked.error))}", err=True)
        return
    numbers = f"{verdict.synthetic_probability:>9.4f}  {verdict.typicality:>10.4f}"
    click.echo(f"{verdict.verdict:<12}  {numbers}  {verdict.model:<12}  {name}")


def _document(checked: Checked[Path]) -> dict[str, Any]:
    """The service's answer for a file, or its error."""
    if checked.verdict is not None:
        return {"file": str(checked.source)} | checked.verdict.document
    if isinstance(checked.error, ServiceError):
        error = checked.error
        told = {"code": error.code, "message": error.message, "request_id": error.request_id}
    else:
        told = {"code": scans.UNREADABLE, "message": str(checked.error), "request_id": ""}
    return {"file": str(checked.source), "error": told}


def _end(outcomes: Iterable[str], fail_on: tuple[str, ...], otherwise: int) -> None:
    unwanted = set(OUTCOMES) if ANY in fail_on else set(fail_on)
    sys.exit(FOUND if unwanted & set(outcomes) else otherwise)
