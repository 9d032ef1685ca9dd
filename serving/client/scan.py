"""A folder of images, checked one after the other into a report that can be gone on with.

    with Report.opened(Path("report.csv")) as report:
        for row in run(prepare(Path("archive"), report), client):
            print(row.path, row.outcome)

The report is CSV or, where its name ends with `.jsonl`, JSON lines: one row per image, written as soon as the image is
checked. A scan that was stopped goes on: files that the report has are not checked again, unless their size or time of
change differs, or the service broke on them.
"""

import csv
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from filelock import FileLock, Timeout

from contracts.errors import VerisynthError
from contracts.manifest import VERDICTS
from serving.client.client import Checked, Client
from serving.client.connection import ServiceError
from serving.client.whole_file import whole_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
# PNG, JPEG, TIFF in both byte orders, BigTIFF likewise; WebP is marked behind its length, DICOM behind 128 bytes.
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SIGNATURE_BYTES = 132
UNCHECKED = "unchecked"
UNREADABLE = "unreadable"
# Not the file's fault, so that another scan tries again.
PASSING_CODES = (
    *(UNREADABLE, "internal_error", "timeout", "body_too_slow", "model_failure", "unreachable", "unexpected_answer"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a report: a verdict, or an error. All are texts, empty where there is nothing to say."""

    path: str
    """Relative to the folder that was scanned, with slashes, after `./`: no spreadsheet takes it for a formula."""
    size_bytes: str
    changed_ns: str
    """When the file last changed, in nanoseconds since 1970."""
    verdict: str = ""
    synthetic_probability: str = ""
    typicality: str = ""
    model: str = ""
    model_version: str = ""
    sha256: str = ""
    error: str = ""
    """The service's code, or `unreadable`."""
    message: str = ""
    request_id: str = ""

    @property
    def outcome(self) -> str:
        """The verdict, or `unchecked`."""
        return self.verdict or UNCHECKED


# What the csv module says of a row that ends between quotes.
CUT_OFF = "unexpected end of data"
COLUMNS = tuple(field.name for field in fields(Row))


class Report:
    """The rows on disk, by path, while nobody else writes them."""

    def __init__(self, path: Path) -> None:
        """Reads what an earlier scan left; a last row that was cut off is dropped. Use `opened`.

        Raises:
            VerisynthError: for a file that is no report.
        """
        self.path = path
        self._is_csv = path.suffix != ".jsonl"
        self.rows = self._read()

    @staticmethod
    @contextmanager
    def opened(path: Path) -> Iterator["Report"]:
        """A report for one scan at a time.

        Raises:
            VerisynthError: for a file that is no report, that another scan is writing, or whose folder is not there.
        """
        if not path.parent.is_dir():
            raise VerisynthError(f"there is no folder {path.parent}; make it, or name another")
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise VerisynthError(f"another scan is writing {path}; wait for it, or name another report") from error
        try:
            yield Report(path)
        finally:
            lock.release()

    def keep(self, rows: dict[str, Row]) -> None:
        """Write the report anew with these rows, so that further ones can be added."""
        with whole_file(self.path) as file:
            file.write(self._encoded(dict(zip(COLUMNS, COLUMNS, strict=True))) if self._is_csv else b"")
            for row in rows.values():
                file.write(self._encoded(asdict(row)))
        self.rows = dict(rows)

    def add(self, row: Row) -> None:
        """Write one more row; a program that is ended after this has written it."""
        with self.path.open("ab") as file:
            file.write(self._encoded(asdict(row)))
        self.rows[row.path] = row

    def _encoded(self, cells: dict[str, str]) -> bytes:
        if not self._is_csv:
            return json.dumps(cells).encode() + b"\n"
        line = io.StringIO()
        # Its line ends are those of RFC 4180: with others, it leaves a carriage return in a name unquoted.
        csv.writer(line).writerow(cells.values())
        # Names of files may be no UTF-8: their bytes are kept.
        return line.getvalue().encode("utf-8", "surrogateescape")

    def _read(self) -> dict[str, Row]:
        if not self.path.exists():
            return {}
        data = self.path.read_bytes()
        # What a stopped scan was writing ends without a line end.
        text = data[: data.rfind(b"\n") + 1].decode("utf-8", "surrogateescape")
        rows: dict[str, Row] = {}
        try:
            for cells in (_csv_cells if self._is_csv else _json_cells)(text):
                row = Row(**cells)
                rows[row.path] = row
        except (ValueError, TypeError, RecursionError, csv.Error) as error:
            if str(error) != CUT_OFF:
                raise VerisynthError(
                    f"{self.path} is no report of a scan ({error}, after {len(rows)} rows); name another file"
                ) from error
        return rows


def _csv_cells(text: str) -> Iterator[dict[str, str]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    if tuple(next(lines, COLUMNS)) != COLUMNS:
        raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
    for cells in lines:
        yield dict(zip(COLUMNS, cells, strict=True))


def _json_cells(text: str) -> Iterator[dict[str, str]]:
    for line in text.split("\n")[:-1]:
        cells = json.loads(line)
        if not (isinstance(cells, dict) and set(cells) == set(COLUMNS)):
            raise ValueError(f"its rows do not have {', '.join(COLUMNS)}")
        if not all(isinstance(cell, str) for cell in cells.values()):
            raise ValueError("what it holds are not all texts")
        yield cells


def images_below(folder: Path) -> Iterator[Path]:
    """PNG, JPEG, TIFF, WebP and DICOM files in a folder and those below it, in the order of their names.

    By their first bytes, and by their names so that a broken one is told of. Hidden files and folders are passed over,
    and links to folders are not followed.

    Raises:
        VerisynthError: for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise VerisynthError(f"{error.filename} cannot be read ({error.strerror}); scan a folder that can be")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and _is_image(path):
                yield path


def _is_image(path: Path) -> bool:
    has_name = path.suffix.lower() in SUFFIXES
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Reading a pipe would never end.
            return False
        if has_name:
            return True
        with path.open("rb") as file:
            start = file.read(SIGNATURE_BYTES)
    except OSError:
        return has_name
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start.startswith(SIGNATURES) or is_webp or start[128:] == b"DICM"


@dataclass(frozen=True)
class Scan:
    """What is left to be checked, and what an earlier scan has found out."""

    folder: Path
    report: Report
    done: dict[str, Row]
    left: dict[Path, Row]
    """By path the rows that have no verdict yet."""


def prepare(folder: Path, report: Report, model: str | None = None) -> Scan:
    """Look which files there are, and which of them the report has as they are now, by the model that is named.

    Raises:
        VerisynthError: for a folder that cannot be read.
    """
    done, left = {}, {}
    for path in images_below(folder):
        row = _unchecked(folder, path)
        before = report.rows.get(row.path)
        if before is not None and _is_current(before, row, model):
            done[row.path] = before
        else:
            left[path] = row
    return Scan(folder, report, done, left)


def _unchecked(folder: Path, path: Path) -> Row:
    name = f"./{path.relative_to(folder).as_posix()}"
    try:
        found = path.stat()
    except OSError:
        # A link to nothing: the check will say so.
        return Row(name, "", "")
    return Row(name, str(found.st_size), str(found.st_mtime_ns))


def _is_current(before: Row, now: Row, model: str | None) -> bool:
    same_file = (before.size_bytes, before.changed_ns) == (now.size_bytes, now.changed_ns)
    same_model = model is None or not before.verdict or before.model == model
    return same_file and same_model and before.error not in PASSING_CODES


def run(scan: Scan, client: Client, model: str | None = None, concurrency: int = 4) -> Iterator[Row]:
    """Check what is left, `concurrency` files at once; every row is in the report before it is given.

    Rows of files that are no longer there stay in the report.

    Raises:
        ServiceError: for what would stop every check; the report keeps what was found out.
    """
    stale = {row.path for row in scan.left.values()}
    scan.report.keep({path: row for path, row in scan.report.rows.items() if path not in stale})
    for checked in client.check_many(scan.left, model=model, concurrency=concurrency):
        row = _filled(scan.left[checked.source], checked)
        scan.report.add(row)
        yield row


def _filled(row: Row, checked: Checked[Path]) -> Row:
    cells = asdict(row)
    if checked.verdict is not None:
        verdict = checked.verdict
        cells |= {
            "verdict": verdict.verdict,
            "synthetic_probability": repr(verdict.synthetic_probability),
            "typicality": repr(verdict.typicality),
            "model": verdict.model,
            "model_version": verdict.model_version,
            "sha256": verdict.sha256,
        }
    elif isinstance(checked.error, ServiceError):
        error = checked.error
        cells |= {"error": error.code, "message": error.message, "request_id": error.request_id}
    else:
        cells |= {"error": UNREADABLE, "message": str(checked.error)}
    # A service's lone surrogates must not make the report unwritable; those in the path are bytes of its name.
    writable = {name: cell.encode("utf-8", "backslashreplace").decode() for name, cell in cells.items()}
    return Row(**writable | {"path": row.path})


def counted(rows: list[Row]) -> dict[str, int]:
    """How many rows have each outcome: all verdicts, and `unchecked`."""
    found = Counter(row.outcome for row in rows)
    return {outcome: found[outcome] for outcome in (*VERDICTS, UNCHECKED)}
