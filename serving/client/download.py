"""Samples on disk: one file as the service wrote it, or a folder that is filled part by part.

    samples.npz  samples.zip  samples.dicom.zip  grid.png     one answer, at most 1024 images
    samples/
        samples.json                                          what is in it: model, version, seed and all else
        000000-000255.npz                                     `npz`: parts, the arrays of the service
        000000.png  000000-mask.png  000000.dcm               `zip` and `dicom`: the files themselves
        manifest-000000-000255.json                           and the manifests that the service sent with them

Files take their names only when they are whole. A folder that was begun is gone on with, by the same request; one that
holds anything else is left alone.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from filelock import FileLock, Timeout

from contracts.errors import VerisynthError
from contracts.limits import MAXIMUM_COUNT
from serving.client.answers import check_same_model
from serving.client.connection import Connection, ServiceError
from serving.client.sequence import SampleSequence, painting, parts
from serving.client.whole_file import whole_file

EXTENSIONS = {"dicom": ".dicom.zip", "npz": ".npz", "zip": ".zip", "png": ".png"}
FOLDER_FORMATS = ("npz", "zip", "dicom")
CONTENTS = "samples.json"
LOCK = ".lock"
MANIFEST = "manifest.json"
MEMBER = re.compile(r"\d{6,10}(-mask)?\.(png|dcm)")
IMAGES_PER_PART = 256
"""Fewer than a request may ask for: a lost connection costs less, and slow services answer in time."""


@dataclass(frozen=True)
class Order:
    """What is to be saved."""

    wanted: SampleSequence
    seed_given: bool
    """Whether somebody asks for this seed: else that of the folder will do."""
    start: int
    count: int
    file_format: str | None
    """One of `EXTENSIONS`; None: what the destination's name says."""
    mask: bytes | None = None
    """The image file of a mask to paint on; None: the model draws all of the image."""


@dataclass(frozen=True)
class Saved:
    """What was saved, and the content of `samples.json`: enough to ask for the same images again."""

    model: str
    version: str
    seed: int
    label: str | None
    balance: str | None
    truncation: float
    start: int
    count: int
    file_format: str


def save(connection: Connection, order: Order, destination: Path, progress: Callable[[int], None]) -> Saved:
    """Save samples to a file or into a folder; `progress` is told how many more images are there.

    Raises:
        VerisynthError: for a destination that cannot take them, or that was begun with another request.
        ServiceError: where the service refuses or does not answer; what is saved stays.
    """
    file_format, is_folder = _form(destination, order.file_format)
    if not is_folder:
        saved = _save_file(connection, order, destination, file_format)
        progress(order.count)
        return saved
    if order.mask is not None:
        raise VerisynthError(f"painted images go to a file; end {destination} with {' or '.join(EXTENSIONS.values())}")
    made = not destination.exists()
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(destination / LOCK, timeout=0):
            try:
                return _save_folder(connection, order, destination, file_format, progress)
            finally:
                # Refused from the start: nothing was saved, and nothing is left. Only who holds the lock may say so.
                if made and [path.name for path in destination.iterdir()] == [LOCK]:
                    shutil.rmtree(destination)
    except Timeout as error:
        raise VerisynthError(f"another process is saving into {destination}; wait for it, or name a folder") from error


def _form(destination: Path, file_format: str | None) -> tuple[str, bool]:
    """The format, and whether the destination is a folder."""
    if file_format is not None and file_format not in EXTENSIONS:
        raise VerisynthError(f"the format is {file_format!r}; it must be one of {', '.join(EXTENSIONS)}")
    named = [form for form, extension in EXTENSIONS.items() if destination.name.endswith(extension)]
    if named and not destination.is_dir():
        form = file_format or named[0]
        # A ZIP of DICOM files may do without the first half of its extension.
        if destination.suffix != f".{EXTENSIONS[form].split('.')[-1]}":
            raise VerisynthError(f"the format is {form}, and {destination} ends otherwise; end it {EXTENSIONS[form]}")
        return form, False
    form = file_format or FOLDER_FORMATS[0]
    if form not in FOLDER_FORMATS:
        raise VerisynthError(f"{form} is one picture of all images; name a file that ends with {EXTENSIONS[form]}")
    return form, True


def _save_file(connection: Connection, order: Order, path: Path, file_format: str) -> Saved:
    _, most = next(parts(order.start, order.count, MAXIMUM_COUNT))
    if order.count > most:
        raise VerisynthError(
            f"the count is {order.count}, and a file takes at most {MAXIMUM_COUNT} images; name a folder, not {path}"
        )
    if not path.parent.is_dir():
        raise VerisynthError(f"there is no folder {path.parent}; make it, or name another")
    with whole_file(path) as file:
        return _fetch(connection, order.wanted, order.start, order.count, file_format, file, order.mask)


def _save_folder(
    connection: Connection, order: Order, folder: Path, file_format: str, progress: Callable[[int], None]
) -> Saved:
    wanted, begun = order.wanted, _read_contents(folder)
    if begun is not None:
        wanted = replace(wanted, model=wanted.model or begun.model)
        wanted = wanted if order.seed_given else replace(wanted, seed=begun.seed)
        _check_same(folder, begun, asdict(wanted) | {"start": order.start, "count": order.count}, file_format)
    for start, count in parts(order.start, order.count, IMAGES_PER_PART):
        name = f"{start:06d}-{start + count - 1:06d}"
        # The last file of a part that is written: where it is, the part is.
        path = folder / (f"{name}.npz" if file_format == "npz" else f"manifest-{name}.json")
        if not path.exists():
            with whole_file(path) as file:
                part = _fetch(connection, wanted, start, count, file_format, file)
                if begun is None:
                    begun = replace(part, start=order.start, count=order.count)
                    _write_contents(folder, begun)
                check_same_model((begun.model, begun.version), (part.model, part.version))
                if file_format != "npz":
                    manifest = _unpack(file, folder, {f"{index:06d}" for index in range(start, start + count)})
                    file.seek(0)
                    file.truncate()
                    file.write(manifest)
        progress(count)
    assert begun is not None, "there is at least one part"
    return begun


def _fetch(
    connection: Connection,
    wanted: SampleSequence,
    start: int,
    count: int,
    file_format: str,
    file: BinaryIO,
    mask: bytes | None = None,
) -> Saved:
    """One answer into the file, and what it is."""
    fields = wanted.request(start, count, file_format)
    if mask is None:
        answer = connection.ask("POST", "/v1/generate", {"json": fields}, sink=file)
    else:
        answer = connection.ask("POST", "/v1/paint", painting(mask, fields), sink=file)
    model, version = (_header(answer, name) for name in ("X-Verisynth-Model", "X-Verisynth-Version"))
    return Saved(
        **asdict(wanted) | {"model": model},
        version=version,
        start=start,
        count=count,
        file_format=file_format,
    )


def _header(answer: httpx.Response, name: str) -> str:
    if name not in answer.headers:
        message = f"{answer.request.url} sent no samples ({name} is missing); is it the address of the service?"
        raise ServiceError("unexpected_answer", message, answer.headers.get("X-Request-ID", ""), answer.status_code)
    return str(answer.headers[name])


def _unpack(archive: BinaryIO, folder: Path, indices: set[str]) -> bytes:
    """Write the members of an archive, which must bear all of the indices; the manifest is given back.

    Raises:
        ServiceError: `unexpected_answer` for an archive that is broken or holds anything else.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            files = {name: members.read(name) for name in members.namelist()}
        manifest = files.pop(MANIFEST)
        strange = [name for name in files if not MEMBER.fullmatch(name)]
        found = {re.split("[-.]", name)[0] for name in files}
        if strange or found != indices:
            raise ValueError(f"{(strange or sorted(found ^ indices))[:3]} is missing or was not asked for")
    except Exception as error:  # zipfile and zlib raise many kinds on malformed bytes
        raise ServiceError("unexpected_answer", f"the service's archive cannot be read: {error}", "", 200) from error
    for name, data in files.items():
        with whole_file(folder / name) as file:
            file.write(data)
    return manifest


def _read_contents(folder: Path) -> Saved | None:
    """What the folder holds; None where it is empty."""
    path = folder / CONTENTS
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise VerisynthError(f"{folder} holds files and no {CONTENTS}; name a folder that is new or empty")
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        document.pop("synthetic")
        return Saved(**document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VerisynthError(f"{path} cannot be read ({error}); name another folder") from error


def _write_contents(folder: Path, saved: Saved) -> None:
    with whole_file(folder / CONTENTS) as file:
        file.write(json.dumps({"synthetic": True} | asdict(saved), indent=2).encode() + b"\n")


def _check_same(folder: Path, begun: Saved, asked: dict[str, Any], file_format: str) -> None:
    for name, value in (asked | {"file_format": file_format}).items():
        before = getattr(begun, name)
        if before != value:
            raise VerisynthError(
                f"{folder} was begun with {name} {before!r}, and {value!r} is asked for; "
                "ask for the same to go on with it, or name another folder"
            )
