"""Which releases of a name are champion, challenger and previous; and those releases, kept whole.

    models/.archive/<name>/ledger.json      the versions by role, and those that were withdrawn
    models/.archive/<name>/<version>/       a release
    models/<name>/                          a copy of the champion: what is served

Everything is written beside its place and renamed into it: releases first, the ledger after them, `models/<name>`
last. A stop between two steps leaves a ledger whose releases are all there, and `settle` does the rest. Who changes a
ledger holds it meanwhile: training and a running service may both roll back.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from contracts.errors import ReleaseError, VerisynthError
from contracts.manifest import FILE_NAME, Release, read_release

FILE = "ledger.json"
LOCK = "lock"
ROLES = ("champion", "challenger", "previous")

logger = logging.getLogger(__name__)


class LedgerError(VerisynthError):
    """A ledger that cannot be read, or a change that it does not allow."""


@dataclass(frozen=True)
class Ledger:
    """Versions by role; every change gives a new ledger."""

    champion: str | None = None
    """Passed the gate last, and is served."""
    challenger: str | None = None
    """The newest release, where the gate refused it."""
    previous: str | None = None
    """The champion before this one: a rollback brings it back."""
    withdrawn: tuple[str, ...] = ()
    """Were champion and rolled back; never promoted again unless forgiven."""

    def rival(self, version: str) -> str | None:
        """Whom a release is compared with: the champion; the champion itself, with the one whose place it took."""
        return self.previous if version == self.champion else self.champion

    def judged(self, version: str, passed: bool) -> "Ledger":
        """After the gate: a release that passed is champion, one that did not is challenger.

        A champion that is judged once more keeps its place: only a rollback takes it away. So does a previous one
        that is refused. A withdrawn release gets no role.
        """
        if version == self.champion or version in self.withdrawn:
            return self
        if passed:
            return replace(self, champion=version, challenger=None, previous=self.champion)
        return self if version == self.previous else replace(self, challenger=version)

    def rolled_back(self) -> "Ledger":
        """The previous champion in its place again, the present one withdrawn.

        Raises:
            LedgerError: without a previous champion.
        """
        if self.champion is None or self.previous is None:
            raise LedgerError(f"there is no previous release to put in the place of {self.champion or 'none'}")
        return replace(
            self, champion=self.previous, previous=None, withdrawn=tuple(sorted({*self.withdrawn, self.champion}))
        )

    def forgiven(self, version: str) -> "Ledger":
        """A withdrawn release may be judged again.

        Raises:
            LedgerError: for a version that is not withdrawn.
        """
        if version not in self.withdrawn:
            raise LedgerError(f"{version} is not withdrawn; withdrawn: {', '.join(self.withdrawn) or 'none'}")
        return replace(self, withdrawn=tuple(other for other in self.withdrawn if other != version))

    def versions(self) -> dict[str, str]:
        """The versions by role, without the roles that nobody has."""
        return {role: version for role in ROLES if (version := getattr(self, role)) is not None}


def archive(models: Path, name: str) -> Path:
    """The folder of the releases that may still be needed; the service skips names with a dot."""
    return models / ".archive" / name


@contextmanager
def held(models: Path, name: str) -> Iterator[None]:
    """The ledger of a name to oneself.

    Raises:
        LedgerError: while somebody else has it.
    """
    folder = archive(models, name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerError(f"the releases of {name} are being changed by somebody else; try again") from error
        yield


def load(models: Path, name: str) -> Ledger:
    """The ledger, held against the folders.

    Where no champion is known, the release in `models` is the champion. A role whose release cannot be read, as after
    a change of the manifest's schema, is vacant, and that is said.

    Raises:
        LedgerError: when the file is not a ledger.
    """
    ledger = recorded(models, name)
    served = readable(models / name)
    if served is not None and ledger.champion in (None, served.version) and served.version not in ledger.withdrawn:
        keep(models, served)
        ledger = replace(ledger, champion=served.version)
    for role, version in ledger.versions().items():
        try:
            archived(models, name, version)
        except ReleaseError as error:
            logger.warning("%s: the %s is forgotten: %s", name, role, error)
            ledger = Ledger(**asdict(ledger) | {role: None})
    return ledger


def recorded(models: Path, name: str) -> Ledger:
    """The ledger as its file has it, whatever became of the folders; an empty one where there is no file.

    Raises:
        LedgerError: when the file is not a ledger.
    """
    path = archive(models, name) / FILE
    if not path.is_file():
        return Ledger()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Ledger(**document | {"withdrawn": tuple(document["withdrawn"])})
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerError(f"{path} is no ledger: {error}; remove it, and {models / name} is champion") from error


def known(models: Path, name: str) -> bool:
    """Whether there is a ledger or a release of a name."""
    return (archive(models, name) / FILE).is_file() or (models / name / FILE_NAME).is_file()


def save(models: Path, name: str, ledger: Ledger) -> None:
    """Write the ledger; a stop at any moment leaves the old one or the new one."""
    path = archive(models, name) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f"{FILE}.incomplete")
    incomplete.write_text(json.dumps(asdict(ledger), indent=2) + "\n", encoding="utf-8")
    incomplete.replace(path)


def readable(folder: Path) -> Release | None:
    """The release in a folder; None where there is none that is whole."""
    try:
        return read_release(folder)
    except ReleaseError:
        return None


def archived(models: Path, name: str, version: str) -> Release:
    """A release that is kept.

    Raises:
        ReleaseError: when it is not there or not whole.
    """
    return read_release(archive(models, name) / version)


def keep(models: Path, release: Release) -> None:
    """Copy a release into the archive, unless it is there whole."""
    _copy(release, archive(models, release.name) / release.version)


def settle(models: Path, name: str, ledger: Ledger) -> None:
    """Make the folders follow the ledger: `models` holds the champion, the archive what has a role, no more."""
    if ledger.champion is not None:
        _copy(archived(models, name, ledger.champion), models / name)
    for path in archive(models, name).iterdir():
        if path.is_dir() and path.name not in ledger.versions().values():
            shutil.rmtree(path)


def roll_back(models: Path, name: str) -> Ledger:
    """Make the previous release champion in the ledger and in `models`; the champion is withdrawn.

    Where a rollback was stopped before `models` followed, this one finishes it and withdraws nothing more. Whoever
    calls this holds the ledger.

    Raises:
        LedgerError: without a previous release.
    """
    before = load(models, name)
    served = readable(models / name)
    stopped = served is not None and served.version in before.withdrawn
    after = before if stopped else before.rolled_back()
    save(models, name, after)
    settle(models, name, after)
    return after


def _copy(release: Release, target: Path) -> None:
    present = readable(target)
    if present is not None and present.version == release.version:
        return
    incomplete, replaced = (target.with_name(f".{target.name}.{state}") for state in ("incomplete", "replaced"))
    for folder in (incomplete, replaced):
        shutil.rmtree(folder, ignore_errors=True)
    # Contents alone: in a cache that links its files they are read-only, and stay so where their mode is copied.
    shutil.copytree(release.folder, incomplete, copy_function=shutil.copyfile)
    if target.exists():
        target.rename(replaced)
    incomplete.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
