"""The service's settings: environment variables `VERISYNTH_*`, read once at start.

Each field below is the variable of the same name in capitals: `timeout_seconds` is
`VERISYNTH_TIMEOUT_SECONDS`. They are told in `docs/settings.md`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from contracts.errors import VerisynthError
from contracts.imaging import DecodeLimits

PREFIX = "VERISYNTH_"
# What Kubernetes sets in every container beside a Service named verisynth, as NAME=value.
SERVICE_LINK = re.compile(
    r"VERISYNTH_(SERVICE_(HOST|PORT(_\w+)?)=.*|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)"
)


@dataclass(frozen=True)
class Settings:
    """What an operator decides. Numbers are at least 1; a default of 0 means "from the number of cores"."""

    models_folder: Path = Path("models")
    workers: int = 0
    threads: int = 0
    maximum_requests: int = 32
    maximum_upload_bytes: int = 32 * 1024**2
    maximum_side: int = DecodeLimits.maximum_side
    maximum_pixels: int = DecodeLimits.maximum_pixels
    timeout_seconds: int = 60
    require_gpu: bool = False
    drift_window: int = 500

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> "Settings":
        """The settings that `environment` names, defaults for the others; service links of Kubernetes are passed over.

        Raises:
            VerisynthError: an unknown `VERISYNTH_*` name, or a value that cannot be taken; both name the variable.
        """
        known = {PREFIX + field.name.upper(): field for field in fields(Settings)}
        given = {
            name: text
            for name, text in environment.items()
            if name.startswith(PREFIX) and not SERVICE_LINK.fullmatch(f"{name}={text}")
        }
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise VerisynthError(f"unknown setting {', '.join(unknown)}; the settings are {', '.join(known)}")
        values = {known[name].name: _parse(name, text, known[name].default) for name, text in given.items()}
        return Settings(**values).resolved(available_cores())  # type: ignore[arg-type]

    def resolved(self, cores: int) -> "Settings":
        """With `workers` and `threads` filled in: a worker for every four cores, the cores shared among them."""
        workers = self.workers or max(1, cores // 4)
        threads = self.threads or max(1, cores // workers)
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return Settings(**chosen | {"workers": workers, "threads": threads})

    @property
    def decode_limits(self) -> DecodeLimits:
        return DecodeLimits(maximum_side=self.maximum_side, maximum_pixels=self.maximum_pixels)


def available_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse(name: str, text: str, default: object) -> Path | int | bool:
    if isinstance(default, Path):
        if not text:
            raise VerisynthError(f"{name} is empty; name a folder")
        return Path(text)
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise VerisynthError(f"{name} is {text!r}; use true or false")
        return text == "true"
    lowest = min(1, int(str(default)))
    if not (text.isascii() and text.isdigit() and int(text) >= lowest):
        raise VerisynthError(f"{name} is {text!r}; use a whole number of at least {lowest}")
    return int(text)
