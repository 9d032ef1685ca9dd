"""Which releases of a dataset are champion, challenger and previous; and those releases, kept whole.

    models/.archive/<dataset>/ledger.json      the versions by role, and those that were withdrawn
    models/.archive/<dataset>/<version>/       a release
    models/<dataset>/                          a copy of the champion: what is served

Everything is written beside its place and renamed into it: releases first, the ledger after them, `models/<dataset>`
last. A stop between two steps leaves a ledger whose releases are all there, and `settle` does the rest.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from contracts.errors import ReleaseError, VerisynthError
from contracts.manifest import Release, read_release
from training import folders

FILE = "ledger.json"
ROLES = ("champion", "challenger", "previous")


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


def load(dataset: str) -> Ledger:
    """The ledger, held against the folders.

    Where no champion is known, the release in `models/` is the champion. A role whose release cannot be read, as after
    a change of the manifest's schema, is vacant, and that is said.

    Raises:
        LedgerError: when the file is not a ledger.
    """
    path = folders.archive(dataset) / FILE
    ledger = Ledger()
    if path.is_file():
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            ledger = Ledger(**document | {"withdrawn": tuple(document["withdrawn"])})
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerError(f"{path} is no ledger: {error}; remove it, and models/{dataset} is champion") from error
    served = readable(folders.release(dataset))
    if served is not None and ledger.champion in (None, served.version) and served.version not in ledger.withdrawn:
        keep(dataset, served)
        ledger = replace(ledger, champion=served.version)
    for role, version in ledger.versions().items():
        try:
            archived(dataset, version)
        except ReleaseError as error:
            print(f"{dataset}: the {role} is forgotten: {error}")
            ledger = Ledger(**asdict(ledger) | {role: None})
    return ledger


def save(dataset: str, ledger: Ledger) -> None:
    """Write the ledger; a stop at any moment leaves the old one or the new one."""
    path = folders.archive(dataset) / FILE
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


def archived(dataset: str, version: str) -> Release:
    """A release that is kept.

    Raises:
        ReleaseError: when it is not there or not whole.
    """
    return read_release(folders.archive(dataset) / version)


def keep(dataset: str, release: Release) -> None:
    """Copy a release into the archive, unless it is there whole."""
    _copy(release, folders.archive(dataset) / release.version)


def settle(dataset: str, ledger: Ledger) -> None:
    """Make the folders follow the ledger: `models/` holds the champion, the archive what has a role, no more."""
    if ledger.champion is not None:
        _copy(archived(dataset, ledger.champion), folders.release(dataset))
    for path in folders.archive(dataset).iterdir():
        if path.is_dir() and path.name not in ledger.versions().values():
            shutil.rmtree(path)


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
