"""The chain of the audit log, its writers in several processes, and full disks."""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import VerisynthError
from serving.access.audit import NO_HASH, Answered, AuditLog, BrokenChainError, Work, check_file, last_hash, verify
from tests.disks import fill, small_disk


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def answered(number: int = 0, **work: Any) -> Answered:
    return Answered(f"r{number}", "ward", "/v1/generate", 200, None, Work("waves", 3, **work))


def written(file: Path, count: int) -> list[bytes]:
    log = AuditLog(file)
    for number in range(count):
        log.append(answered(number))
    return file.read_bytes().splitlines(keepends=True)


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def digest(line: bytes) -> str:
    return hashlib.sha256(line.removesuffix(b"\n")).hexdigest()


# --- the chain ----------------------------------------------------------------------------------


def test_each_line_holds_the_hash_of_the_line_before(file: Path) -> None:
    lines = written(file, 3)
    previous = NO_HASH
    for line in lines:
        assert json.loads(line)["previous"] == previous
        previous = digest(line)
    assert (verify([file]).lines, verify([file]).last) == (3, previous)
    assert file.stat().st_mode & 0o007 == 0


def test_a_line_tells_what_was_answered_and_no_more(file: Path) -> None:
    written(file, 1)
    record = records(file)[0]
    assert record.pop("time").endswith("Z")
    assert record == {
        "event": "request",
        "request_id": "r0",
        "key": "ward",
        "route": "/v1/generate",
        "status": 200,
        "code": None,
        "model": "waves",
        "count": 3,
        "verdict": None,
        "sha256": None,
        "previous": NO_HASH,
    }


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"ward", b"wart"), *lines[3:]], 4),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
        (lambda lines: [*lines[:4], lines[4][:-1]], 5),
        (lambda lines: [*lines[:4], lines[4][:20] + b"\n"], 5),
        (lambda lines: [*lines[:2], b"\n", *lines[2:]], 3),
        (lambda lines: [*lines[:2], b"[]\n", *lines[2:]], 3),
    ],
)
def test_the_first_broken_line_is_named(file: Path, harm: Callable[[list[bytes]], list[bytes]], line: int) -> None:
    file.write_bytes(b"".join(harm(written(file, 5))))
    with pytest.raises(VerisynthError, match=f"audit.jsonl, line {line}: "):
        verify([file])


@given(st.data())
def test_no_changed_byte_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "changed.jsonl"
    for path in (file, file.with_name("changed.jsonl.last")):
        path.unlink(missing_ok=True)
    text = bytearray(b"".join(written(file, 3)))
    last = verify([file]).last
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(text)
    with pytest.raises(VerisynthError):
        verify([file], last)


def test_a_cut_off_tail_is_noticed_with_a_hash_kept_elsewhere(file: Path) -> None:
    lines = written(file, 5)
    last = last_hash(file)
    assert last == digest(lines[-1])
    assert verify([file], last).lines == 5
    written(file, 1)  # a log that has grown since still holds the line
    assert verify([file], last).lines == 6
    file.write_bytes(b"".join(lines[:-1]))
    assert verify([file]).lines == 4
    with pytest.raises(BrokenChainError, match="missing at the end"):
        verify([file], last)


def test_an_empty_log_is_whole(file: Path) -> None:
    check_file(file)
    assert verify([file]).last == NO_HASH


# --- several writers, restarts, rotation --------------------------------------------------------


def append_until(file: Path, writer: int, ended: Any, results: Any) -> None:
    log = AuditLog(file)
    count = 0
    while not ended.is_set():
        log.append(answered(1_000_000 * writer + count))
        count += 1
    results.put(count)


@contextlib.contextmanager
def writing(file: Path) -> Iterator[Any]:
    """Three processes that write until the end of the block; then the queue holds how many lines each has written."""
    context = multiprocessing.get_context("spawn")
    ended, results = context.Event(), context.Queue()
    processes = [context.Process(target=append_until, args=(file, writer, ended, results)) for writer in (1, 2, 3)]
    for process in processes:
        process.start()
    try:
        until(lambda: file.exists() and {record["request_id"][1] for record in records(file)} == {"1", "2", "3"})
        yield results
    finally:
        ended.set()
        for process in processes:
            process.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        # A line may be half written, a file just moved away.
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            if condition():
                return
        time.sleep(0.01)
    pytest.fail("never came true")


def test_processes_make_one_chain(file: Path) -> None:
    with writing(file) as results:
        before = len(records(file)) if file.exists() else 0
        until(lambda: len(records(file)) > before + 500)
    count = sum(results.get(timeout=60) for _ in range(3))
    assert verify([file]).lines == count
    assert len({record["request_id"] for record in records(file)}) == count


def test_threads_make_one_chain(file: Path) -> None:
    log = AuditLog(file)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.append(answered(number)), range(2000)))
    assert verify([file]).lines == 2000


def test_a_restart_goes_on_where_the_last_one_ended(file: Path) -> None:
    written(file, 2)
    written(file, 2)
    assert verify([file]).lines == 4


@pytest.mark.parametrize("count", [0, 2])
def test_what_was_never_whole_is_cut_off_and_told(file: Path, count: int) -> None:
    written(file, 2)
    lines = file.read_bytes().splitlines(keepends=True)[:count]
    file.write_bytes(b"".join(lines) + b'{"time": "20')
    file.with_name("audit.jsonl.last").write_text(digest(lines[-1]) if lines else "")
    written(file, 1)
    assert records(file)[-1]["torn_bytes"] == 12
    assert (verify([file]).lines, verify([file]).torn_bytes) == (count + 1, 12)


def test_a_file_that_was_moved_away_is_followed_by_a_linked_one(file: Path, tmp_path: Path) -> None:
    old, older = tmp_path / "old.jsonl", tmp_path / "older.jsonl"
    first, second = AuditLog(file), AuditLog(file)
    first.append(answered(0))
    second.append(answered(1))
    file.rename(older)
    second.append(answered(2))
    file.rename(old)
    first.append(answered(3))  # which never saw the file in between
    second.append(answered(4))
    assert verify([older, old, file]).lines == 5
    assert verify([file], previous=verify([older, old]).last).lines == 2
    with pytest.raises(VerisynthError, match="line 1"):
        verify([file])


def test_a_file_that_was_moved_away_while_nobody_wrote_is_followed_too(file: Path, tmp_path: Path) -> None:
    written(file, 2)
    file.rename(tmp_path / "old.jsonl")
    written(file, 2)
    assert verify([tmp_path / "old.jsonl", file]).lines == 4


def test_a_process_killed_between_line_and_hash_breaks_nothing(file: Path) -> None:
    beside = file.with_name("audit.jsonl.last")
    written(file, 2)
    before = beside.read_text()
    written(file, 1)
    beside.write_text(before)
    written(file, 1)
    assert verify([file]).lines == 4


def test_a_hash_file_that_was_lost_breaks_nothing(file: Path) -> None:
    log = AuditLog(file)
    for number in range(3):
        log.append(answered(number))
        file.with_name("audit.jsonl.last").unlink()
    assert verify([file]).lines == 3


def test_who_waited_for_a_lock_that_is_gone_takes_the_new_one(file: Path) -> None:
    beside = file.with_name("audit.jsonl.last")
    written(file, 1)
    with beside.open("rb") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = pool.submit(AuditLog(file).append, answered(1))
        until(lambda: [opened.path for opened in psutil.Process().open_files()].count(str(beside)) == 2)
        beside.unlink()
        fcntl.flock(held, fcntl.LOCK_UN)
        waiting.result(timeout=60)
    assert beside.read_text().split()[0] == verify([file]).last


def test_a_tail_cut_off_under_the_writer_shows_after_the_next_line(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = written(file, 3)
    file.write_bytes(b"".join(lines[:2]))
    written(file, 2)
    assert "does not end as it was left" in caplog.text
    with pytest.raises(VerisynthError, match="line 3"):
        verify([file])


def test_another_kind_of_file_is_left_alone(file: Path) -> None:
    file.write_bytes(b"x" * 20_000)
    with pytest.raises(OSError, match="the audit log is none"):
        AuditLog(file).append(answered())
    assert file.stat().st_size == 20_000


def test_no_line_is_lost_while_files_are_moved_away(file: Path) -> None:
    with writing(file) as results:
        for number in range(10):
            until(lambda: file.stat().st_size > 0)
            file.rename(file.with_suffix(f".{number:03d}"))
        until(lambda: file.stat().st_size > 0)
    count = sum(results.get(timeout=60) for _ in range(3))
    files = [*sorted(file.parent.glob("audit.0*")), file]
    assert verify(files).lines == sum(len(records(part)) for part in files)
    found = [record["request_id"] for part in files for record in records(part) if record["event"] == "request"]
    assert len(found) == len(set(found)) == count


# --- full disks ---------------------------------------------------------------------------------


def test_a_full_disk_fails_and_leaves_the_log_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        file = disk / "audit.jsonl"
        log = AuditLog(file)
        log.append(answered())
        ballast = fill(disk)
        before = file.stat().st_size
        failed = 0
        for number in range(200):
            try:
                log.append(answered(number))
            except OSError:
                failed += 1
        assert failed > 0
        assert log.failing
        with pytest.raises(OSError, match=r"No space left|could be written"):
            log.resume()
        assert verify([file]).lines >= 1
        assert file.stat().st_size >= before
        ballast.unlink()
        log.resume()
        assert not log.failing
        log.append(answered())
        assert records(file)[-2]["event"] == "gap"
        assert records(file)[-2]["missed"] == failed + 1
        assert (verify([file]).gaps, verify([file]).missed) == (1, failed + 1)


def test_what_a_full_disk_took_is_told_by_the_next_service(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        file = disk / "audit.jsonl"
        logs = AuditLog(file), AuditLog(file)
        logs[0].append(answered())
        ballast = fill(disk)
        failed = 0
        for number in range(100):
            try:
                logs[number % 2].append(answered(number))
            except OSError:
                failed += 1
        before = verify([file])
        check_file(file)  # which finds no room either
        assert verify([file]) == before
        ballast.unlink()
        check_file(file)
        check_file(file)
        assert records(file)[-1]["event"] == "gap"
        assert verify([file]).missed == failed > 0
        logs[0].append(answered())
        assert (verify([file]).lines, verify([file]).gaps) == (before.lines + 2, 1)


def test_a_log_that_never_had_a_line_counts_too(file: Path) -> None:
    file.mkdir()
    log = AuditLog(file)
    for _ in range(3):
        with pytest.raises(OSError, match="Is a directory"):
            log.append(answered())
    file.rmdir()
    written(file, 1)
    assert [record["event"] for record in records(file)] == ["gap", "request"]
    assert verify([file]).missed == 3


def test_what_cannot_be_counted_beside_the_log_is_counted_in_memory(file: Path) -> None:
    beside = file.with_name("audit.jsonl.last")
    beside.mkdir()
    log = AuditLog(file)
    for _ in range(2):
        with pytest.raises(OSError, match="Is a directory"):
            log.append(answered())
    beside.rmdir()
    log.append(answered())
    assert verify([file]).missed == 2


def run_into_the_limit(file: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    log = AuditLog(file)
    failed = 0
    for number in range(10):
        try:
            log.append(answered(number))
        except OSError:
            failed += 1
    os._exit(0 if failed > 0 and file.stat().st_size < 1000 else 1)


def test_a_line_that_is_written_by_half_is_taken_back(file: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=run_into_the_limit, args=(file,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert 1 <= verify([file]).lines < 10


def test_a_file_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VerisynthError, match="cannot be written: No such file"):
        check_file(tmp_path / "none" / "audit.jsonl")
