"""What looks after the files of a service, on the machine that has them: `verisynth keys`, `signing-key`, `audit`."""

from datetime import UTC, datetime
from pathlib import Path

import click

from contracts.errors import VerisynthError
from serving.access import audit as audit_log
from serving.access.keys import KEYS_FILE, SCOPES, create_key, list_keys, parse_time, revoke_key, time_text
from serving.command.ending import FOUND

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
@click.option("--file", type=FILE, envvar=KEYS_FILE, show_envvar=True, required=True)
@click.pass_context
def keys(context: click.Context, file: Path) -> None:
    """API keys: which there are, one more, one less."""
    context.obj = file


@keys.command("create")
@click.option("--scopes", required=True, help=f"Some of {','.join(SCOPES)}, with commas between.")
@click.option("--id", "name", help="What the key is called in logs; left out: drawn at random.")
@click.option(
    "--expires",
    help="A time such as 2027-12-31T23:59:59Z; of a day alone, 00:00 UTC that day; left out: never.",
)
@click.option("--requests-per-minute", type=int, help="Instead of VERISYNTH_REQUESTS_PER_MINUTE.")
@click.pass_obj
def create(file: Path, scopes: str, name: str | None, expires: str | None, requests_per_minute: int | None) -> None:
    """Add a key and print it, once."""
    ends = None if expires is None else parse_time("--expires", expires)
    click.echo(create_key(file, tuple(dict.fromkeys(scopes.split(","))), name, ends, requests_per_minute))
    click.echo("This is the only time the key is shown: give it to its client, keep no copy.", err=True)


@keys.command("list")
@click.pass_obj
def list_(file: Path) -> None:
    """All keys, without their secrets."""
    now = datetime.now(UTC)
    for key in list_keys(file):
        limit = "default" if key.requests_per_minute is None else str(key.requests_per_minute)
        ends = time_text(key.expires) + (" (expired)" if key.expired(now) else "")
        click.echo(
            f"{key.id}  {','.join(key.scopes)}  created {time_text(key.created)}  expires {ends}  per minute {limit}"
        )


@keys.command("revoke")
@click.argument("name", metavar="ID")
@click.pass_obj
def revoke(file: Path, name: str) -> None:
    """Take a key out; the running service follows within a second or two."""
    revoke_key(file, name)


@click.command("signing-key")
@click.argument("file", type=FILE)
def signing_key(file: Path) -> None:
    """Make a key that signs what a service generates, in FILE, and print its public half."""
    try:
        from serving.provenance.claims import key_id, make_signing_key, public_pem
    except ModuleNotFoundError as error:
        raise VerisynthError(f'{error.name} is missing: pip install ".[serve]"') from error
    key = make_signing_key(file)
    click.echo(f"{public_pem(key)}key id: {key_id(key)}")


@click.group()
def audit() -> None:
    """The audit log of a service: is it whole?"""


@audit.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--last", help="The hash of a line that must be there.")
@click.option("--previous", default=audit_log.NO_HASH, help="The hash that the first line must name.")
@click.pass_context
def verify(context: click.Context, files: tuple[Path, ...], last: str | None, previous: str) -> None:
    """Name the first line of FILES, in the order they were written, that is wrong, and what they say is missing."""
    try:
        chain = audit_log.verify(files, last, previous)
    except audit_log.BrokenChainError as broken:
        click.echo(str(broken), err=True)
        context.exit(FOUND)
    click.echo(f"{chain.lines} lines, all whole and in their order; the last has the hash {chain.last}")
    if chain.gaps:
        click.echo(f"{chain.gaps} of them tell of a gap: {chain.missed} answers could not be recorded")
    if chain.torn_bytes:
        click.echo(f"{chain.torn_bytes} bytes of lines that were never whole were cut off: a process was ended at once")


@audit.command("last")
@click.argument("file", type=FILE)
def last_(file: Path) -> None:
    """The hash of the last line, to be kept elsewhere."""
    click.echo(audit_log.last_hash(file))
