import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from contracts.claims import Origin
from contracts.errors import VerisynthError
from serving.provenance.fingerprint_store import PENDING_REQUESTS, FingerprintStore
from serving.provenance.fingerprints import MAXIMUM_DISTANCE, Match, StoreError
from tests.databases import postgresql
from tests.services import ROOT

MUCH = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/fingerprints.db"
        return
    server = request.getfixturevalue("server")
    yield server
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS verisynth_fingerprints")


def origin(seed: int) -> Origin:
    return Origin("waves", "0123456789ab", seed, 1.0, "größer", None)


def words(seed: int, count: int) -> np.ndarray:
    """Random fingerprints, far from each other."""
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), dtype=np.uint64)


def test_what_was_written_is_found_within_the_bound(url: str) -> None:
    store = FingerprintStore(url, MUCH)
    assert store.nearest(words(0, 1)[0]) is None
    for seed, count in ((0, 5), (1, 1), (2, 300)):
        store.remember(origin(seed), words(seed, count))
    assert store.nearest(words(2, 300)[299]) == Match(origin(2), 299, 0)
    assert store.nearest(words(1, 1)[0]) == Match(origin(1), 0, 0)
    assert store.nearest(words(0, 5)[4] ^ np.array([0b111, 1], dtype=np.uint64)) == Match(origin(0), 4, 4)
    for bits, found in ((MAXIMUM_DISTANCE, True), (MAXIMUM_DISTANCE + 1, False)):
        changed = words(0, 5)[0] ^ np.array([0, 2**bits - 1], dtype=np.uint64)
        assert (store.nearest(changed) is not None) is found
    store.close()


def test_another_process_reads_on_where_it_stopped(url: str) -> None:
    writer, reader = FingerprintStore(url, MUCH), FingerprintStore(url, MUCH)
    for seed in range(4):
        writer.remember(origin(seed), words(seed, 7))
        assert reader.nearest(words(seed, 7)[3]) == Match(origin(seed), 3, 0)
    late = FingerprintStore(url, MUCH)
    failures: list[StoreError] = []
    late.read_later(failures.append)
    late._writer.submit(lambda: None).result()
    assert failures == []
    assert late._end == 28
    assert late.nearest(words(2, 7)[6]) == Match(origin(2), 6, 0)
    for store in (writer, reader, late):
        store.close()


def test_the_same_request_is_written_once(url: str) -> None:
    store = FingerprintStore(url, MUCH)
    for count in (3, 3, 2, 5, 4):
        store.remember(origin(0), words(0, 5)[:count])
    store.nearest(words(0, 1)[0])
    assert store._end == 3 + 5
    store.close()


def test_the_oldest_go_when_there_are_too_many(url: str) -> None:
    store, late = FingerprintStore(url, 100), FingerprintStore(url, 1000)
    assert late.nearest(words(0, 1)[0]) is None
    for seed in range(30):
        store.remember(origin(seed), words(seed, 10))
        if seed == 3:
            assert late.nearest(words(0, 10)[0]) is not None
    # One process slept while more was written than is kept.
    for reader in (store, late, FingerprintStore(url, 100)):
        assert reader.nearest(words(29, 10)[9]) == Match(origin(29), 9, 0)
        assert reader.nearest(words(20, 10)[0]) == Match(origin(20), 0, 0)
        assert reader.nearest(words(19, 10)[9]) is None
        assert len(reader._fingerprints) == 100
        reader.close()
    new = FingerprintStore(url, MUCH)
    new.nearest(words(0, 1)[0])
    assert (new._begin, new._end) == (200, 300)
    new.close()


def test_many_processes_write_without_gaps(url: str) -> None:
    program = (
        "import sys; from serving.provenance.fingerprint_store import FingerprintStore\n"
        "from tests.serving.provenance.test_fingerprint_store import origin, words\n"
        "store = FingerprintStore(sys.argv[1], 10**6); base = int(sys.argv[2])\n"
        "[store.remember(origin(base + step), words(base + step, 4)) for step in range(25)]; store.close()"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, url, str(1000 * number)], cwd=ROOT) for number in range(3)
    ]
    reader = FingerprintStore(url, MUCH)
    while any(writer.poll() is None for writer in writers):
        reader.nearest(words(5, 1)[0])
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    for number in range(3):
        for step in range(25):
            seed = 1000 * number + step
            assert reader.nearest(words(seed, 4)[2]) == Match(origin(seed), 2, 0)
    assert (reader._begin, reader._end) == (0, 300)
    reader.close()


def test_what_waits_is_written_before_the_process_ends(url: str) -> None:
    program = (
        "import sys; from serving.provenance.fingerprint_store import FingerprintStore\n"
        "from tests.serving.provenance.test_fingerprint_store import origin, words\n"
        "store = FingerprintStore(sys.argv[1], 10**6)\n"
        "[store.remember_later(origin(seed), words(seed, 4), 0, print) for seed in range(50)]"
    )
    ended = subprocess.run([sys.executable, "-c", program, url], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    store = FingerprintStore(url, MUCH)
    assert store.nearest(words(49, 4)[3]) == Match(origin(49), 3, 0)
    assert store._end == 200
    store.close()


def test_what_fails_is_told_and_then_left_alone_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    hasty, patient = (FingerprintStore(f"sqlite:///{folder}/f.db", MUCH, rest) for rest in (0.0, 3600.0))
    for store in (hasty, patient):
        with pytest.raises(StoreError, match="unable to open database file"):
            store.remember(origin(0), words(0, 1))
    with pytest.raises(StoreError, match="failed less than 3600 seconds ago"):
        patient.nearest(words(0, 1)[0])
    failures: list[StoreError] = []
    hasty.remember_later(origin(0), words(0, 1), 0, failures.append)
    hasty.read_later(failures.append)
    hasty._writer.submit(lambda: None).result()
    assert len(failures) == 2
    folder.mkdir()
    hasty.remember(origin(0), words(0, 1))
    assert hasty.nearest(words(0, 1)[0]) == Match(origin(0), 0, 0)
    for store in (hasty, patient):
        store.close()


def test_who_waited_while_the_database_failed_does_not_ask_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FingerprintStore(f"sqlite:///{tmp_path}/f.db", MUCH, 3600.0)
    arrived, asked = threading.Semaphore(0), []

    def fail() -> NoReturn:
        asked.append(1)
        raise OperationalError("SELECT", {}, OSError("it is gone"))

    monkeypatch.setattr(store, "_make", arrived.release)
    monkeypatch.setattr(store._engine, "connect", fail)
    with ThreadPoolExecutor(4) as pool:
        with store._lock:
            answers = [pool.submit(store.nearest, words(0, 1)[0]) for _ in range(4)]
            for _ in answers:
                assert arrived.acquire(timeout=60)
        for answer in answers:
            with pytest.raises(StoreError):
                answer.result(timeout=60)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "harm",
    ["fingerprints = X'00'", "origin = 'no JSON'", "origin = '[]'", "images = 'many'", "origin = '{\"seed\":1}'"],
)
def test_a_row_that_is_none_is_a_failure_of_the_store(tmp_path: Path, harm: str) -> None:
    file = tmp_path / "f.db"
    store = FingerprintStore(f"sqlite:///{file}", MUCH)
    store.remember(origin(0), words(0, 2))
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE verisynth_fingerprints SET {harm}")
    for _ in range(2):
        with pytest.raises(StoreError, match="a row that is none"):
            store.nearest(words(0, 2)[1])
    store.close()


def test_no_statement_of_a_server_is_waited_for_without_end(server: str) -> None:
    store = FingerprintStore(server, MUCH)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "5s"
    store.close()


def test_what_cannot_wait_is_told_at_once(tmp_path: Path) -> None:
    store = FingerprintStore(f"sqlite:///{tmp_path}/f.db", MUCH)
    held = threading.Event()
    store._writer.submit(held.wait)
    failures: list[StoreError] = []
    for seed in range(PENDING_REQUESTS + 2):
        store.remember_later(origin(seed), words(seed, 1), 0, failures.append)
    assert len(failures) == 2
    held.set()
    store.close()
    assert FingerprintStore(f"sqlite:///{tmp_path}/f.db", MUCH).nearest(words(PENDING_REQUESTS - 1, 1)[0]) is not None


@pytest.mark.parametrize(
    "url",
    [
        "SECRET",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://me:SECRET@host/database",
        "postgresql://me:SECRET@host",
        "postgresql+asyncpg://me:SECRET@host/database",
        "https://me:SECRET@host:x/",
    ],
)
def test_a_url_of_another_form_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(VerisynthError, match="VERISYNTH_FINGERPRINTS_URL") as refused:
        FingerprintStore(url, MUCH)
    assert "SECRET" not in str(refused.value)


def test_a_server_that_is_away_is_told_without_its_password(server: str) -> None:
    store = FingerprintStore("postgresql://me:SECRET@127.0.0.1:1/database", MUCH)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1") as failed:
        store.nearest(words(0, 1)[0])
    assert "SECRET" not in str(failed.value)
    store.close()


def test_a_connection_that_broke_is_replaced(server: str) -> None:
    import psycopg

    store = FingerprintStore(server, MUCH)
    store.remember(origin(0), words(0, 1))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert store.nearest(words(0, 1)[0]) == Match(origin(0), 0, 0)
    store.close()
