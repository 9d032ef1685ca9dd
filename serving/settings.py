"""The service's settings: environment variables `VERISYNTH_*`, read once at start.

Each field below is the variable of the same name in capitals: `timeout_seconds` is
`VERISYNTH_TIMEOUT_SECONDS`. They are told in `docs/settings.md`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from contracts.errors import VerisynthError
from contracts.imaging import DecodeLimits

PREFIX = "VERISYNTH_"
# What Kubernetes sets in every container beside a Service named verisynth, as NAME=value.
SERVICE_LINK = re.compile(
    r"VERISYNTH_(SERVICE_(HOST|PORT(_\w+)?)=.*|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)"
)
# Those of the command `verisynth`, which may be used where the service runs.
CLIENT_PREFIX = "VERISYNTH_CLIENT_"


@dataclass(frozen=True)
class Settings:
    """What an operator decides. Numbers are at least 1, or 0 where that is the default or turns something off;
    `docs/settings.md` says of each what 0 or None means."""

    models_folder: Path = Path("models")
    collections_folder: Path = Path("collections")
    reload_seconds: int = field(default=2, metadata={"lowest": 0})
    workers: int = 0
    threads: int = 0
    maximum_requests: int = 32
    maximum_upload_bytes: int = 32 * 1024**2
    maximum_batch_bytes: int = 256 * 1024**2
    maximum_side: int = DecodeLimits.maximum_side
    maximum_pixels: int = DecodeLimits.maximum_pixels
    maximum_buffered_bytes: int = 0
    timeout_seconds: int = 60
    body_timeout_seconds: int = 30
    require_gpu: bool = False
    drift_window: int = 500
    keys_file: Path | None = None
    allow_anonymous: bool = False
    requests_per_minute: int = 0
    audit_file: Path | None = None
    audit_required: bool = True
    signing_key_file: Path | None = None
    trusted_keys_folder: Path | None = None
    c2pa_certificates_file: Path | None = None
    c2pa_key_file: Path | None = None
    fingerprints_url: str = ""
    fingerprints_maximum: int = 1_000_000
    fingerprints_required: bool = False

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> "Settings":
        """The settings that `environment` names, defaults for the others.

        Service links of Kubernetes and the settings of the client are passed over.

        Raises:
            VerisynthError: an unknown `VERISYNTH_*` name, or a value that cannot be taken; both name the variable.
        """
        known = {PREFIX + setting.name.upper(): setting for setting in fields(Settings)}
        given = {
            name: text
            for name, text in environment.items()
            if name.startswith(PREFIX)
            and not name.startswith(CLIENT_PREFIX)
            and not SERVICE_LINK.fullmatch(f"{name}={text}")
        }
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise VerisynthError(f"unknown setting {', '.join(unknown)}; the settings are {', '.join(known)}")
        values = {known[name].name: _parse(name, text, known[name]) for name, text in given.items()}
        settings = Settings(**values).resolved(available_cores())  # type: ignore[arg-type]
        settings.check()
        return settings

    def resolved(self, cores: int) -> "Settings":
        """With zeros filled in: a worker for every four cores, the cores shared among them, room for eight uploads."""
        workers = self.workers or max(1, cores // 4)
        return replace(
            self,
            workers=workers,
            threads=self.threads or max(1, cores // workers),
            maximum_buffered_bytes=self.maximum_buffered_bytes or 8 * self.maximum_upload_bytes,
        )

    def check(self) -> None:
        """Raises VerisynthError for settings that contradict each other."""
        if self.keys_file is not None and self.allow_anonymous:
            raise VerisynthError(
                "VERISYNTH_KEYS_FILE asks for keys and VERISYNTH_ALLOW_ANONYMOUS=true for none; set one of them"
            )
        if self.maximum_buffered_bytes < self.maximum_upload_bytes:
            raise VerisynthError(
                f"VERISYNTH_MAXIMUM_BUFFERED_BYTES is {self.maximum_buffered_bytes}, less than the "
                f"{self.maximum_upload_bytes} of VERISYNTH_MAXIMUM_UPLOAD_BYTES, so that no such upload could be taken"
            )

    @property
    def longest_body_seconds(self) -> int:
        """How long the largest body may take to arrive: as slowly as the largest upload."""
        return self.body_timeout_seconds * (1 + self.maximum_batch_bytes // self.maximum_upload_bytes)

    @property
    def decode_limits(self) -> DecodeLimits:
        return DecodeLimits(maximum_side=self.maximum_side, maximum_pixels=self.maximum_pixels)


def available_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse(name: str, text: str, setting: "Field[Any]") -> Path | int | bool | str:
    default = setting.default
    if default is None or isinstance(default, Path):
        if not text:
            kind = "folder" if name.endswith("_FOLDER") else "file"
            raise VerisynthError(f"{name} is empty; name a {kind}{', or do not set it' if default is None else ''}")
        return Path(text)
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise VerisynthError(f"{name} is {text!r}; use true or false")
        return text == "true"
    if isinstance(default, str):
        return text
    lowest = setting.metadata.get("lowest", min(1, int(str(default))))
    if not (text.isascii() and text.isdigit() and int(text) >= lowest):
        raise VerisynthError(f"{name} is {text!r}; use a whole number of at least {lowest}")
    return int(text)
