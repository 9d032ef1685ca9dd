"""Collections of a service: which there are, and a folder that holds one, fetched file by file and gone on with.

    labelled/
        shards/.00000.zip.part                 what of a file is there so far
        shards/00000.zip                       a file takes its name when its SHA-256 is right
        SHA256SUMS                             last: where it is, everything is

What a service calls its files is checked before anything is written.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from contracts.collection import CHECKSUMS
from contracts.errors import VerisynthError
from contracts.manifest import sha256
from serving.client.answers import reading, text
from serving.client.connection import Connection, ServiceError, quoted

PART_SUFFIX = ".part"


@dataclass(frozen=True)
class Collection:
    """A versioned set of generated images that a service hands out."""

    name: str
    version: str
    model: str
    images: int
    bytes: int
    """Of all its files."""
    licence: str
    document: dict[str, Any]
    """The whole answer; `/docs` describes it."""


@dataclass(frozen=True)
class File:
    """One file of a collection."""

    path: str
    bytes: int
    sha256: str


def list_collections(connection: Connection) -> list[Collection]:
    """All collections of a service.

    Raises:
        ServiceError: where the service refuses or does not answer.
    """
    answer = connection.ask("GET", "/v1/collections")
    with reading("list of collections", answer):
        return [_collection(document) for document in answer.json()["collections"]]


def chosen_collection(connection: Connection, name: str, version: str | None) -> Collection:
    """The collection of a name; where there are several versions of it, one must be named.

    Raises:
        VerisynthError: where there is none, or several.
        ServiceError: where the service refuses or does not answer.
    """
    everything = list_collections(connection)
    found = [one for one in everything if one.name == name and version in (None, one.version)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{one.name} {one.version}" for one in found or everything) or "none"
    wanted = name if version is None else f"{name} {version}"
    raise VerisynthError(f"{len(found)} collections are called {wanted}; name one by name and version of: {known}")


def fetch_files(connection: Connection, wanted: Collection, folder: Path, progress: Callable[[int], None]) -> None:
    """Fetch what of a collection is not in the folder yet; `progress` is told how many more bytes are there.

    Raises:
        VerisynthError: for a folder that holds another collection.
        ServiceError: where the service refuses, does not answer, or sends other bytes than it promised; what is there
            stays.
    """
    base = f"/v1/collections/{quoted(wanted.name)}/{quoted(wanted.version)}"
    answer = connection.ask("GET", base)
    with reading("collection", answer):
        files = [File(text(file["path"]), int(file["bytes"]), text(file["sha256"])) for file in answer.json()["files"]]
        for file in files:
            _check_path(file.path)
    _check_folder(folder, files)
    for file in sorted(files, key=lambda one: one.path == CHECKSUMS):
        _fetch_file(connection, f"{base}/files/{quoted(file.path)}", file, folder, progress)


def _fetch_file(connection: Connection, url: str, file: File, folder: Path, progress: Callable[[int], None]) -> None:
    path = folder / file.path
    if path.is_file() and sha256(path) == file.sha256:
        progress(file.bytes)
        return
    part = path.with_name(f".{path.name}{PART_SUFFIX}")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("a+b") as sink:
        if sink.tell() > file.bytes:
            sink.truncate(0)
        progress(sink.tell())
        if sink.tell() < file.bytes:
            connection.download(url, sink, f'"{file.sha256}"', progress)
        sink.seek(0)
        found = hashlib.file_digest(sink, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise ServiceError("unexpected_answer", f"{file.path} has the sha256 {found}, not {file.sha256}; try again", "")
    part.replace(path)


def _check_folder(folder: Path, files: list[File]) -> None:
    """Refuse a folder with whole files that are not this collection's."""
    theirs = next(file.sha256 for file in files if file.path == CHECKSUMS)
    present = folder / CHECKSUMS
    if present.is_file() and sha256(present) != theirs:
        raise VerisynthError(f"{folder} holds another collection; name a folder that is new or empty")


def _check_path(path: str) -> None:
    """What a service calls a file must lie in the folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in path or ":" in path:
        raise ValueError(f"{path!r} is no path inside a folder")


def _collection(document: dict[str, Any]) -> Collection:
    name, version, model, licence = (text(document[field]) for field in ("name", "version", "model", "licence"))
    return Collection(name, version, model, int(document["images_kept"]), int(document["bytes"]), licence, document)
