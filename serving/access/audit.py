"""The audit log: one JSON line per answered request, each holding the hash of the line before.

An answer that was cut has a second line, and every file of a batch one of its own.

    verisynth audit verify audit.jsonl                      # whole, from its first line on?
    verisynth audit verify old.jsonl audit.jsonl            # and does the second go on where the first ended?
    verisynth audit verify audit.jsonl --previous HASH      # the second without the first
    verisynth audit verify audit.jsonl --last HASH          # is the line of this hash still there?
    verisynth audit last audit.jsonl                        # the hash to keep elsewhere

A line that is changed, taken out or moved breaks the chain after it. Lines taken off the end break nothing: only a
hash that is kept elsewhere shows it. Whoever may write the file can make a new chain, which such a hash shows, too.

Beside the log lies `audit.jsonl.last`, the hash of its last line. It is the lock that the worker processes take turns
by, and what the first line of a new file follows when the operator has moved the old one away. Behind the hash stands
how many lines could not be written since: a number that is changed in its place, which a full disk has room for.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.errors import VerisynthError

NO_HASH = "0" * 64
"""What the first line of all names as the hash of the line before."""
MODE = 0o640
LONGEST_LINE_BYTES = 16 * 1024
REQUEST, FILE, CUT, GAP = "request", "file", "cut", "gap"
MISSED_DIGITS = 10


class BrokenChainError(VerisynthError):
    """Lines that are not what the service wrote."""


logger = logging.getLogger(__name__)


@dataclass
class Work:
    """What an endpoint did, for the audit log to tell: values that the service chose, never a client's own words."""

    model: str | None = None
    count: int | None = None
    verdict: str | None = None
    sha256: str | None = None
    """Of the uploaded bytes."""
    sent: int = 0
    """Of `count`, where the answer is made while it is sent."""


def work_of(scope: MutableMapping[str, Any]) -> Work:
    """What has been done so far for the request of this ASGI scope, to be filled in."""
    work: Work = scope.setdefault("state", {}).setdefault("work", Work())
    return work


Recorder = Callable[[int, str | None, Work], Awaitable[None]]
"""Records one part of an answer before it is sent: its status, the code of its error, what was done for it."""


def recorder_of(scope: MutableMapping[str, Any]) -> Recorder:
    """What records the files of this ASGI scope's request; it does nothing where there is no log."""
    recorder: Recorder = scope.setdefault("state", {}).get("recorder", _record_nothing)
    return recorder


async def _record_nothing(_: int, __: str | None, ___: Work) -> None:
    pass


@dataclass(frozen=True)
class Answered:
    """One answered request, file of a batch, or answer that was cut; `key` is the id of its key, or `anonymous`."""

    request_id: str
    key: str
    route: str
    status: int
    code: str | None
    work: Work
    event: str = REQUEST


@dataclass(frozen=True)
class Chain:
    """How far a chain reaches, and what it says is missing in it."""

    lines: int
    last: str
    gaps: int = 0
    missed: int = 0
    """Answers in these gaps that have no line."""
    torn_bytes: int = 0
    """Of lines that were cut off because they were never whole."""


class AuditLog:
    """Appends lines to a file that other processes append to as well, and that the operator may move away at any time.

    Every method blocks: call them from a thread. Lines reach the operating system before an answer is sent, not the
    disk: what a power cut takes is what the disk had not written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._turn = threading.Lock()
        self._failing = False
        # Those that are not even counted beside the log.
        self._uncounted = 0

    @property
    def failing(self) -> bool:
        """Whether the last line could not be written."""
        return self._failing

    def resume(self) -> None:
        """After a failure: write how many lines are missing. One more is where that fails.

        Raises:
            OSError: the file still cannot be written.
        """
        self._append(None)

    def append(self, answered: Answered) -> None:
        """Write one line.

        Raises:
            OSError: it cannot be written; nothing of it is left in the file.
        """
        record = {
            "event": answered.event,
            "request_id": answered.request_id,
            "key": answered.key,
            "route": answered.route,
            "status": answered.status,
            "code": answered.code,
            "model": answered.work.model,
            "count": answered.work.sent if answered.event == CUT else answered.work.count,
            "verdict": answered.work.verdict,
            "sha256": answered.work.sha256,
        }
        self._append(record)

    def _append(self, record: dict[str, Any] | None) -> None:
        with self._turn:
            try:
                with _opened(self.file) as chain:
                    _tell_missed(chain, self._uncounted)
                    self._uncounted = 0
                    if record is not None:
                        _write(chain, record)
                self._failing = False
            except OSError:
                self._failing = True
                self._count_missed()
                raise

    def _count_missed(self) -> None:
        try:
            with _locked(self.file, fcntl.LOCK_EX, os.O_RDWR | os.O_CREAT) as last:
                os.pwrite(last, _count_text(_missed(last) + 1), len(NO_HASH))
        except OSError:
            self._uncounted += 1


@dataclass(frozen=True)
class _Descriptors:
    """The open log, and the open file beside it: the hash of the log's last line, and how many are missing after it."""

    log: int
    last: int


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_Descriptors]:
    """Both files, made where they are not there, while no other process writes to them.

    They are opened anew each time, so that a file moved away is followed by a new one.
    """
    with _locked(file, fcntl.LOCK_EX, os.O_RDWR | os.O_CREAT) as last:
        log = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            yield _Descriptors(log, last)
        finally:
            os.close(log)


@contextlib.contextmanager
def _locked(file: Path, operation: int, flags: int) -> Iterator[int]:
    beside = file.with_name(f"{file.name}.last")
    while True:
        descriptor = os.open(beside, flags | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(descriptor, operation)
            # Whoever waited for a lock may have got that of a file which is gone.
            if _is_at(descriptor, beside):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(chain: _Descriptors, record: dict[str, Any]) -> None:
    """Append one line, all of it or nothing."""
    previous, torn = _end(chain)
    size = os.fstat(chain.log).st_size - torn
    if torn:
        logger.warning("the audit log ended in %d bytes of a line that was never whole; they were cut off", torn)
        os.ftruncate(chain.log, size)
        record = {"torn_bytes": torn} | record
    line = json.dumps({"time": _now()} | record | {"previous": previous}).encode()
    try:
        written = os.write(chain.log, line + b"\n")
        if written <= len(line):
            raise OSError(f"only {written} of {len(line) + 1} bytes could be written")
        os.pwrite(chain.last, _digest(line).encode() + _count_text(0), 0)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(chain.log, size)
        raise


def _tell_missed(chain: _Descriptors, uncounted: int) -> None:
    """Write how many lines are missing, by all processes before this one and by this one; nothing where none is."""
    missed = _missed(chain.last) + uncounted
    if missed:
        _write(chain, {"event": GAP, "missed": missed})


def _missed(last: int) -> int:
    count = os.pread(last, MISSED_DIGITS + 1, len(NO_HASH)).strip()
    return int(count) if count.isdigit() else 0


def _count_text(count: int) -> bytes:
    return f"\n{count:0{MISSED_DIGITS}d}\n".encode()


def _end(chain: _Descriptors) -> tuple[str, int]:
    """The hash that the next line must name, and how many bytes at the end are no whole line."""
    # Where a count came before any hash, the file begins with a hole.
    known = os.pread(chain.last, len(NO_HASH), 0).strip(b"\0").decode("ascii", "replace")
    size = os.fstat(chain.log).st_size
    tail = os.pread(chain.log, LONGEST_LINE_BYTES, max(0, size - LONGEST_LINE_BYTES))
    whole, _, torn = tail.rpartition(b"\n")
    line = whole.rpartition(b"\n")[2]
    if not line:
        if len(torn) == LONGEST_LINE_BYTES:
            raise OSError(f"the audit log is none: there is no line in its last {LONGEST_LINE_BYTES} bytes")
        return known or NO_HASH, len(torn)
    found = _digest(line)
    # A process may have been killed after its line and before its hash.
    if known in ("", found, _previous(line)):
        return found, len(torn)
    logger.error("the audit log does not end as it was left: lines were taken off its end, or changed")
    # Following what was there, the next line shows the break to whoever verifies.
    return known, len(torn)


def verify(files: Sequence[Path], last: str | None = None, previous: str = NO_HASH) -> Chain:
    """Walk the chain through all files, in the order they were written; `previous` is what the first line follows.

    Raises:
        BrokenChainError: names the file and the first line that does not follow from the one before, or says that no
            line has the hash `last`.
        VerisynthError: where a file cannot be read.
    """
    lines = gaps = missed = torn_bytes = 0
    seen = last is None
    for file in files:
        for number, line in _numbered_lines(file):
            reason = _flaw(line, previous)
            if reason:
                raise BrokenChainError(f"{file}, line {number}: {reason}")
            lines, previous = lines + 1, _digest(line.removesuffix(b"\n"))
            record = json.loads(line)
            gaps, missed = gaps + (record.get("event") == GAP), missed + _number(record, "missed")
            torn_bytes += _number(record, "torn_bytes")
            seen = seen or previous == last
    if not seen:
        raise BrokenChainError(f"no line has the hash {last}: lines are missing at the end of {files[-1]}")
    return Chain(lines, previous, gaps, missed, torn_bytes)


def last_hash(file: Path) -> str:
    """The hash of the last line: kept elsewhere, it tells later whether lines were cut off.

    Raises:
        VerisynthError: where the file cannot be read or does not end in a whole line.
    """
    line = b""
    for _, found in _numbered_lines(file):
        line = found
    if not line.endswith(b"\n"):
        raise VerisynthError(f"{file} does not end in a whole line")
    return _digest(line.removesuffix(b"\n"))


def check_file(file: Path) -> None:
    """Make the file where there is none, and tell in it what an earlier service could not write.

    Raises:
        VerisynthError: it cannot be written to.
    """
    try:
        with _opened(file) as chain, contextlib.suppress(OSError):
            # Where there is still no room, the first line that finds some comes after it.
            _tell_missed(chain, 0)
    except OSError as error:
        raise VerisynthError(
            f"the audit log {file} cannot be written: {error.strerror}; name another in VERISYNTH_AUDIT_FILE"
        ) from error


def _numbered_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that there are now: a service may be writing, and must not wait until all are read."""
    try:
        with file.open("rb") as opened:
            # While a line is being written there is half of it. A file that was moved away has nobody to wait for.
            with contextlib.suppress(OSError), _locked(file, fcntl.LOCK_SH, os.O_RDONLY):
                pass
            left = os.fstat(opened.fileno()).st_size
            for number, line in enumerate(opened, start=1):
                if left == 0:
                    break
                yield number, line[:left]
                left -= len(line[:left])
    except OSError as error:
        raise VerisynthError(f"{file} cannot be read: {error.strerror}") from error


def _flaw(line: bytes, previous: str) -> str | None:
    """What is wrong with a line that should follow the one with the hash `previous`."""
    if not line.endswith(b"\n"):
        return "the line is not whole"
    named = _previous(line)
    if named != previous:
        return f"it follows {named}, and the line before it has {previous}: a line was changed, added or taken out"
    return None


def _number(record: dict[str, Any], name: str) -> int:
    value = record.get(name, 0)
    return value if type(value) is int else 0


def _previous(line: bytes) -> str:
    """The hash that a line names; `nothing` where it names none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "nothing"
    named = record.get("previous") if isinstance(record, dict) else None
    return named if isinstance(named, str) else "nothing"


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
