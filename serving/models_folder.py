"""The models folder as a worker follows it: what changed in it, loaded beside what is served.

A folder is taken up when two looks in a row found the same in it, so that one that is being written, or that is being
put in the place of another by two renames, is left until it is whole. What was refused is not tried again until its
files change, or somebody asks for it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import ReleaseError
from contracts.manifest import FILE_NAME
from serving.catalogue import Catalogue
from serving.runtime import Model, verified

SIGNAL = ".reload"
"""A file in the models folder; where its time changes, everything is verified anew."""

LOST_AND_FOUND = "lost+found"
"""What ext file systems put into the root of a volume, for root alone to read."""

Identity = tuple[tuple[str, int, int, int], ...]
"""Of every file in a release folder its name, inode, time of change in nanoseconds and size in bytes."""


@dataclass(frozen=True)
class Change:
    """What a look at the models folder led to."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    loaded: dict[str, str] = field(default_factory=dict)
    """The versions that are served from now on, by name."""
    unchanged: list[str] = field(default_factory=list)
    """Verified, and of the version that is served."""
    removed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Why what changed is not served, by name; what served before serves on."""

    def __bool__(self) -> bool:
        """Whether anything changed or was refused."""
        return bool(self.loaded or self.removed or self.refused)


class ModelsFolder:
    """What is in the folder, and what of it was taken up. Not for several threads at once."""

    def __init__(self, path: Path, require_gpu: bool = False) -> None:
        self.path = path
        self._require_gpu = require_gpu
        self._seen: dict[str, Identity] = {}
        self._taken: dict[str, Identity] = {}
        self._signal = self._signal_time()

    def look(self, catalogue: Catalogue, everything: bool = False) -> tuple[Catalogue, Change]:
        """What is to be served instead of `catalogue`, and what changed.

        With `everything`, or after a signal, all folders are verified as they are now. Models that did not change are
        the same objects in both catalogues.
        """
        signal = self._signal_time()
        everything, self._signal = everything or signal != self._signal, signal
        try:
            found = _identities(self.path)
        except OSError as error:
            nothing_yet = isinstance(error, FileNotFoundError) and not catalogue.models
            unreadable = None if nothing_yet else str(error)
            return Catalogue(self.path, catalogue.models, catalogue.refused, unreadable), Change()
        before, self._seen = self._seen, found
        models, refused, change = dict(catalogue.models), dict(catalogue.refused), Change()
        for name in sorted(self._taken.keys() - found.keys() - before.keys()):
            del self._taken[name]
            refused.pop(name, None)
            if models.pop(name, None):
                change.removed.append(name)
        for name, identity in found.items():
            if everything or (before.get(name) == identity != self._taken.get(name) and _has_manifest(identity)):
                self._take(name, identity, models, refused, change)
        in_order = {name: models[name] for name in sorted(models)}
        return Catalogue(self.path, in_order, refused), change

    def signal(self) -> bool:
        """Ask all workers that follow this folder to verify everything; whether they can be asked.

        This worker needs no asking, and does not hear itself.
        """
        try:
            (self.path / SIGNAL).touch()
        except OSError:
            return False
        self._signal = self._signal_time()
        return True

    def _take(
        self, name: str, identity: Identity, models: dict[str, Model], refused: dict[str, str], change: Change
    ) -> None:
        served = models.get(name)
        reason = None
        try:
            release = verified(self.path / name)
            unchanged = served is not None and served.version == release.version
            model = served if unchanged else Model.open(release, self._require_gpu)
        except ReleaseError as error:
            reason = str(error)
        except Exception as error:  # whatever a strange file makes of a library must not end the service
            reason = f"{self.path / name} cannot be loaded: {type(error).__name__}: {error}"
        if _identity(self.path / name) != identity:
            # It changed while it was read: what was found out is of no release. The next look sees it again.
            return
        self._taken[name] = identity
        if reason is not None:
            refused[name] = change.refused[name] = reason
            return
        assert model is not None
        refused.pop(name, None)
        models[name] = model
        if unchanged:
            change.unchanged.append(name)
        else:
            change.loaded[name] = model.version

    def _signal_time(self) -> int | None:
        try:
            return (self.path / SIGNAL).stat().st_mtime_ns
        except OSError:
            return None


def _identities(folder: Path) -> dict[str, Identity]:
    """Of all release folders, by name.

    Raises:
        OSError: for a folder that cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and _may_be_release(path.name))
    found: Mapping[str, Identity | None] = {name: _identity(folder / name) for name in names}
    return {name: identity for name, identity in found.items() if identity is not None}


def _may_be_release(name: str) -> bool:
    return not name.startswith(".") and name != LOST_AND_FOUND


def _identity(folder: Path) -> Identity | None:
    """None where the folder went away; empty where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(_entry_identity(entry) for entry in entries))
    except FileNotFoundError:
        return None
    except OSError:
        return ()


def _entry_identity(entry: os.DirEntry[str]) -> tuple[str, int, int, int]:
    try:
        stat = entry.stat()
    except FileNotFoundError:
        # A link to nothing, as some editors lock a file with, or a file that has just gone.
        return entry.name, 0, 0, 0
    return entry.name, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _has_manifest(identity: Identity) -> bool:
    """Whether it can be whole: the manifest is written last."""
    return any(name == FILE_NAME for name, *_ in identity)
