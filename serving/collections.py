"""The collections in a folder as they are served: only whole ones, and of these only the files that they list.

shelf = Shelf(Path("collections"))
collection = shelf.find("retina", "0123456789ab")
collection.records(0), collection.file("shards/00000.zip"), collection.picture(0, "retina-0000000.png")
"""

import csv
import json
import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.collection import (
    CARD,
    CHECKSUMS,
    CROISSANT,
    PROVENANCE,
    archive_name,
    parse_checksums,
    table_name,
)
from contracts.manifest import sha256
from serving.refusals import Refusal

TOLD = ("model", "model_version", "seed", "images_kept", "left_out", "licence")
"""What a list says of how a collection was made."""
# What files that are missing or of another form raise.
UNREADABLE = (OSError, ValueError, KeyError, TypeError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """One version of one collection. Its methods read files: call them from a thread."""

    folder: Path
    name: str
    version: str
    checksums: dict[str, str]
    """SHA-256 by path of every file that may be handed out."""
    sizes: dict[str, int]
    """Bytes by path of the same files."""
    provenance: dict[str, Any]
    """Of `provenance.json` what `TOLD` names."""

    @staticmethod
    def read(folder: Path) -> "Collection":
        """The collection in `folder`, which is `NAME/VERSION`.

        Raises:
            OSError: where a file is missing, or cannot be read.
            ValueError, KeyError: where its files are of another form.
        """
        checksums = parse_checksums((folder / CHECKSUMS).read_text(encoding="utf-8"))
        checksums[CHECKSUMS] = sha256(folder / CHECKSUMS)
        made = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        sizes = {path: (folder / path).stat().st_size for path in checksums}
        told = {name: made[name] for name in TOLD}
        return Collection(folder, folder.parent.name, folder.name, checksums, sizes, told)

    @property
    def pages(self) -> int:
        """Shards, each of which is a page of records."""
        return sum(name.startswith("records/") and name.endswith(".csv") for name in self.checksums)

    def summary(self) -> dict[str, Any]:
        """What a list says of it."""
        return {
            "name": self.name,
            "version": self.version,
            **self.provenance,
            "pages": self.pages,
            "bytes": sum(self.sizes.values()),
        }

    def description(self) -> dict[str, Any]:
        """All of it but its images: Croissant, data card, files."""
        files = [{"path": path, "bytes": self.sizes[path], "sha256": digest} for path, digest in self.checksums.items()]
        return self.summary() | {
            "croissant": json.loads(self.file(CROISSANT).read_text(encoding="utf-8")),
            "card": self.file(CARD).read_text(encoding="utf-8"),
            "files": files,
        }

    def records(self, page: int) -> list[dict[str, Any]]:
        """The lines of a shard's table: `file`, `mask`, `label`, `index`, `sha256`; null where a model has none.

        Raises:
            Refusal: `invalid_request` for a page that is not there.
        """
        if page >= self.pages:
            raise Refusal("invalid_request", f"page is {page}; the pages are 0 to {self.pages - 1}")
        with self.file(table_name(page)).open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        return [
            {"file": row["file"], "mask": row["mask"] or None, "label": row["label"] or None}
            | {"index": int(row["index"]), "sha256": row["sha256"]}
            for row in rows
        ]

    def file(self, path: str) -> Path:
        """The place of a file that the checksums list.

        Raises:
            Refusal: `unknown_file` for any other path, and for a link that leads out of the collection.
        """
        place = self.folder / path
        if path not in self.checksums or not place.is_file():
            raise Refusal("unknown_file", f"{self.name} {self.version} has no such file; {CHECKSUMS} lists its files")
        if not place.resolve().is_relative_to(self.folder.resolve()):
            logger.error("%s leads out of its collection, and is not served", place)
            raise Refusal("unknown_file", f"{path} leads out of the collection; tell the operator")
        return place

    def picture(self, page: int, name: str) -> bytes:
        """One PNG file of a shard.

        Raises:
            Refusal: `unknown_file`.
        """
        with zipfile.ZipFile(self.file(archive_name(page))) as archive:
            try:
                return archive.read(name)
            except KeyError as error:
                raise Refusal("unknown_file", f"shard {page} holds no such picture; `records` names them") from error


@dataclass(frozen=True)
class Shelf:
    """All collections in a folder, read anew each time: a new one is there as soon as it is whole."""

    folder: Path

    def all(self) -> Iterator[Collection]:
        """Every collection that can be read, by name and version; none where there is no folder."""
        for name in _folders(self.folder):
            for version in _folders(self.folder / name):
                folder = self.folder / name / version
                if not (folder / CHECKSUMS).is_file():
                    continue  # not whole yet
                try:
                    yield Collection.read(folder)
                except UNREADABLE as error:
                    logger.error("the collection %s is not served: %s", folder, error)

    def find(self, name: str, version: str) -> Collection:
        """One collection.

        Raises:
            Refusal: `unknown_collection`.
        """
        # Names are looked up, never joined to a path before they are known.
        if name in _folders(self.folder) and version in _folders(self.folder / name):
            try:
                return Collection.read(self.folder / name / version)
            except UNREADABLE as error:
                logger.error("the collection %s %s is not served: %s", name, version, error)
        raise Refusal("unknown_collection", "there is no such collection; GET /v1/collections lists them")


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are passed over."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except FileNotFoundError:
        return []
