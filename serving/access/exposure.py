"""Whether the service listens where other machines reach it, which without keys it must not.

Two looks, because BentoML tells its workers no address. The supervisor knows what `--host`, `BENTOML_HOST` or the
configuration said, and refuses to start; a worker looks at the sockets it inherited, whoever started it, and answers
503.
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from serving.settings import Settings

DESCRIPTORS = Path("/dev/fd")


def obstacle(settings: Settings, hosts: Sequence[str]) -> str | None:
    """Why the service must not answer while it listens on `hosts`; None where it may."""
    if settings.keys_file is not None or settings.allow_anonymous:
        return None
    exposed = [host for host in hosts if not is_loopback(host)]
    if hosts and not exposed:
        return None
    where = f"listens on {', '.join(exposed)}" if exposed else "cannot tell where it listens"
    return (
        f"the service {where} and has no keys; name a key file in VERISYNTH_KEYS_FILE (`verisynth keys create` "
        "makes one), listen on 127.0.0.1, or let anybody in with VERISYNTH_ALLOW_ANONYMOUS=true"
    )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; a name that is no address is not."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def requested_hosts(default: str) -> list[str]:
    """The address that `bentoml serve` was told to listen on, or its `default`; none in any other process."""
    context = click.get_current_context(silent=True)
    if context is None or "host" not in context.params:
        return []
    return [str(context.params["host"] or default)]


def listening_hosts() -> list[str]:
    """The addresses that this process has sockets listening on; a UNIX socket is none."""
    hosts = {address for descriptor in _descriptors() if (address := _listening_host(descriptor))}
    return sorted(hosts)


def _descriptors() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(path.name) for path in DESCRIPTORS.iterdir())


def _listening_host(descriptor: int) -> str | None:
    try:
        # A copy: closing it leaves the original open.
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            return str(copy.getsockname()[0])
    except OSError:
        # No socket, or closed since the listing.
        return None
