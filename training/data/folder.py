"""A folder of PNG, JPEG, TIFF or WebP images, or one folder per class; patients from file names or from a CSV table."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from contracts.dicom import is_dicom
from contracts.errors import ImageError, VerisynthError
from contracts.imaging import decode
from training.data.items import Collection, Item, LeftOut, Pixels, UnusableError, files_below, name_of, read_bytes
from training.data.params import FolderSource


def collect(source: FolderSource) -> Collection:
    """One item per file below `source.path`, the metadata table excepted.

    Raises:
        VerisynthError: for a folder or a table that is missing or cannot be used.
    """
    root = Path(source.path)
    names = {path: name_of(path, root) for path in files_below(root)}
    table = _Table.read(root, source, list(names.values())) if source.metadata else None
    collection = Collection()
    for path, name in names.items():
        if source.metadata and path == root / source.metadata:
            continue
        try:
            patient, label = _patient_and_label(name, source, table)
        except ImageError as error:
            collection.left_out.append(LeftOut(name, error.code, str(error)))
            continue
        collection.items.append(Item(name, patient, label, partial(read_image, path)))
    return collection


def read_image(path: Path) -> Pixels:
    """Decode a PNG, JPEG, TIFF or WebP file.

    Raises:
        ImageError: for anything else. DICOM too: its patients are known only to the `dicom` source.
    """
    data = read_bytes(path)
    if is_dicom(data):
        raise UnusableError("dicom", "a DICOM file; use a source of `kind: dicom`, which knows its patient")
    return Pixels(decode(data).pixels)


def patient_by_pattern(name: str, pattern: str | None) -> str:
    """The first group of `pattern` in `name`; the whole name where there is no pattern.

    Raises:
        UnusableError: `no_patient` where the pattern does not match.
    """
    if pattern is None:
        return name
    match = re.search(pattern, name)
    if match is None or not match.group(1):
        raise UnusableError("no_patient", f"patient_pattern {pattern!r} finds no patient in this name")
    return match.group(1)


def _patient_and_label(name: str, source: FolderSource, table: "_Table | None") -> tuple[str, str | None]:
    row = table.row_of(name) if table else _Row(None, None)
    patient = row.patient if source.metadata_patient_column else patient_by_pattern(name, source.patient_pattern)
    if not patient:
        raise UnusableError("no_patient", f"{source.metadata} names no patient for this file")
    if source.labels == "none":
        return patient, None
    label = row.label if source.labels == "metadata" else _class_folder(name)
    if not label:
        raise UnusableError("no_label", f"{source.metadata} names no label for this file")
    return patient, label


def _class_folder(name: str) -> str:
    parts = PurePosixPath(name).parts
    if len(parts) < 2:
        raise UnusableError("no_label", "lies in no class folder, and `labels: folder` takes the label from there")
    return parts[0]


@dataclass(frozen=True)
class _Row:
    patient: str | None
    label: str | None


@dataclass(frozen=True)
class _Table:
    """Patients and labels by file name, as the metadata CSV states them."""

    file: Path
    rows: dict[str, _Row]
    folders: dict[str, set[PurePosixPath]]
    """Of the images, by their name or stem."""

    @staticmethod
    def read(root: Path, source: FolderSource, names: list[str]) -> "_Table":
        assert source.metadata is not None
        file = root / source.metadata
        rows: dict[str, _Row] = {}
        for line, cells in _csv_rows(file):
            named = {
                column: _cell(file, line, cells, column)
                for column in (
                    source.metadata_file_column,
                    source.metadata_patient_column,
                    source.metadata_label_column,
                )
                if column is not None
            }
            key = named[str(source.metadata_file_column)]
            row = _Row(
                named.get(source.metadata_patient_column or ""),
                named.get(source.metadata_label_column or ""),
            )
            if rows.setdefault(key, row) != row:
                raise VerisynthError(f"{file} line {line}: {key!r} stands there twice, with another patient or label")
        folders: dict[str, set[PurePosixPath]] = {}
        for path in map(PurePosixPath, names):
            for short in (path.name, path.stem):
                folders.setdefault(short, set()).add(path.parent)
        return _Table(file, rows, folders)

    def row_of(self, name: str) -> _Row:
        path = PurePosixPath(name)
        for key in (name, str(path.with_suffix(""))):
            if key in self.rows:
                return self.rows[key]
        for key in (path.name, path.stem):
            if key in self.rows and len(self.folders[key]) > 1:
                where = ", ".join(sorted(map(str, self.folders[key])))
                raise UnusableError(
                    "ambiguous_in_metadata",
                    f"{key!r} in {self.file.name} names files in {where}; write their paths there",
                )
            if key in self.rows:
                return self.rows[key]
        raise UnusableError("not_in_metadata", f"{self.file.name} has no row for this file")


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise VerisynthError(f"metadata {file} cannot be read: {reason}") from error


def _cell(file: Path, line: int, cells: dict[str, str | None], column: str) -> str:
    if column not in cells:
        columns = ", ".join(str(name) for name in cells if name)
        raise VerisynthError(f"metadata {file} line {line}: no column {column!r}; columns: {columns}")
    return (cells[column] or "").strip()
