"""The fingerprints of all generated images, in a database that every worker and instance may share.

It is a log: one row per answered request, the fingerprints of its images in one blob, numbered through without gaps.
Each process keeps the fingerprints in memory, reads what the log gained before it searches, and compares with all of
them: no index serves bits that are so unevenly spread, and a million comparisons take milliseconds.

SQLAlchemy speaks to SQLite and PostgreSQL in the same words. It is an extra (`fingerprints`), imported only where
`VERISYNTH_FINGERPRINTS_URL` is set.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Delete,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    exists,
    func,
    insert,
    literal,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from contracts.claims import Origin, canonical
from contracts.errors import VerisynthError
from serving.provenance.fingerprints import MAXIMUM_DISTANCE, Match, StoreError, distances

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
CONNECT_SECONDS = 3
# A request waits for no statement longer than that, nor for a server that no longer acknowledges what it is sent.
STATEMENT_SECONDS = 5
SQLITE_OPTIONS = {"timeout": CONNECT_SECONDS}
POSTGRESQL_OPTIONS = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
    "options": f"-c statement_timeout={STATEMENT_SECONDS}s",
}
# After a failure the database is left alone for a while: nobody waits for it request after request.
REST_SECONDS = 10.0
PENDING_REQUESTS = 256
# Of writers that never pause, each wins its turn by chance.
ATTEMPTS = 100

Answer = TypeVar("Answer")

LOG = Table(
    "verisynth_fingerprints",
    MetaData(),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("images", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("origin", Text, nullable=False, index=True),
    Column("fingerprints", LargeBinary, nullable=False),
)


class FingerprintStore:
    """The log in one database, and its fingerprints in memory. Its methods may be called from several threads at once.

    At most about `maximum_images` are kept: with a new row the oldest ones go. In memory each image takes 16 bytes.
    """

    def __init__(self, url: str, maximum_images: int, rest_seconds: float = REST_SECONDS) -> None:
        """Nothing is connected before the first use.

        Raises:
            VerisynthError: for a URL of another form, or a driver that is not installed.
        """
        self.maximum_images = maximum_images
        self._rest_seconds = rest_seconds
        self._rests_until = 0.0
        self._engine = _engine(url)
        self._made = False
        self._lock = threading.Lock()
        self._begin = self._end = 0
        self._fingerprints = np.empty((0, 2), dtype=np.uint64)
        # One thread: rows are written in their order, and what is left is written before the process ends.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="fingerprints")
        self._places = threading.BoundedSemaphore(PENDING_REQUESTS)

    def remember(self, origin: Origin, fingerprints: np.ndarray, start: int = 0) -> None:
        """Write down the fingerprints uint64 [N, 2] of the images `start` and following of `origin`, unless there.

        Raises:
            StoreError: when they could not be written.
        """
        document = canonical(origin.document()).decode()
        self._ask(lambda: self._append(document, start, fingerprints.astype("<u8")))

    def remember_later(
        self, origin: Origin, fingerprints: np.ndarray, start: int, failed: Callable[[StoreError], None]
    ) -> None:
        """`remember` in the background, `failed` being called there where it fails; it is called at once where too
        much is waiting already.
        """
        if not self._places.acquire(blocking=False):
            failed(StoreError(f"{PENDING_REQUESTS} requests wait to be written already"))
            return

        def write() -> None:
            try:
                self.remember(origin, fingerprints, start)
            except StoreError as error:
                failed(error)
            finally:
                self._places.release()

        self._writer.submit(write)

    def read_later(self, failed: Callable[[StoreError], None]) -> None:
        """Read the log in the background, so that the first search need not; `failed` is called there if it fails."""

        def read() -> None:
            try:
                self._ask(self._read_on)
            except StoreError as error:
                failed(error)

        self._writer.submit(read)

    def nearest(self, wanted: np.ndarray) -> Match | None:
        """The image whose fingerprint is nearest to `wanted` uint64 [2]; None where none is near.

        Raises:
            StoreError: when the log could not be read.
        """
        return self._ask(lambda: self._nearest(wanted))

    def close(self) -> None:
        """Write what is waiting, and let go of the database."""
        self._writer.shutdown()
        self._engine.dispose()

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        with self._watched():
            self._make()
            return question()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Nothing is asked of a database that failed just now; one that fails in the block is left alone for a while.

        Raises:
            StoreError: in either case.
        """
        if time.monotonic() < self._rests_until:
            raise StoreError(f"the fingerprints' database failed less than {self._rest_seconds:g} seconds ago")
        try:
            yield
        except SQLAlchemyError as error:
            self._rests_until = time.monotonic() + self._rest_seconds
            # A driver's words name host and user at most.
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise StoreError(f"the fingerprints' database failed: {reason}") from error

    def _make(self) -> None:
        if self._made:
            return
        try:
            LOG.metadata.create_all(self._engine)
        except SQLAlchemyError:
            # Another process may have made the table in the meantime.
            LOG.metadata.create_all(self._engine)
        self._made = True

    def _append(self, origin: str, start: int, fingerprints: np.ndarray) -> None:
        count = len(fingerprints)
        end = select(LOG.c.first + LOG.c.images).order_by(LOG.c.first.desc()).limit(1).scalar_subquery()
        known = exists().where(
            LOG.c.origin == origin, LOG.c.start <= start, LOG.c.start + LOG.c.images >= start + count
        )
        row = select(
            func.coalesce(end, literal(0, BigInteger)),
            literal(count, Integer),
            literal(start, BigInteger),
            literal(origin, Text),
            literal(fingerprints.tobytes(), LargeBinary),
        ).where(~known)
        for _ in range(ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    if connection.execute(insert(LOG).from_select(LOG.c.keys(), row)).rowcount:
                        connection.execute(self._outdated())
                return
            except IntegrityError:
                # Another process wrote a row of this number in the meantime. So numbers have no gaps and no row is
                # ever seen before the one in front of it: reading on from the last one misses none.
                continue
        raise StoreError(f"other processes wrote fingerprints at the same moment, {ATTEMPTS} times in a row")

    def _outdated(self) -> Delete:
        log = LOG.alias()
        end = select(log.c.first + log.c.images).order_by(log.c.first.desc()).limit(1).scalar_subquery()
        oldest = end - self.maximum_images
        return delete(LOG).where(LOG.c.first < oldest, LOG.c.first + LOG.c.images <= oldest)

    def _nearest(self, wanted: np.ndarray) -> Match | None:
        begin, known = self._read_on()
        if not len(known):
            return None
        found = distances(wanted, known)
        position = int(found.argmin())
        if found[position] > MAXIMUM_DISTANCE:
            return None
        number = begin + position
        row = select(LOG.c.first, LOG.c.images, LOG.c.start, LOG.c.origin).where(LOG.c.first <= number)
        with self._engine.connect() as connection:
            at = connection.execute(row.order_by(LOG.c.first.desc()).limit(1)).one_or_none()
        if at is None or number >= at.first + at.images:
            # It was outdated in the meantime.
            return None
        with _parsing():
            return Match(Origin(**json.loads(at.origin)), at.start + number - at.first, int(found[position]))

    def _read_on(self) -> tuple[int, np.ndarray]:
        """The number of the first image kept in memory, and the fingerprints from it on, all that the log holds now."""
        # While somebody waited for the lock, the database may have failed: it is not waited for once more.
        with self._lock, self._watched(), self._engine.connect() as connection, _parsing():
            rows = select(LOG.c.first, LOG.c.images, LOG.c.fingerprints).where(LOG.c.first >= self._end)
            parts, end = [self._fingerprints], self._end
            for first, count, blob in connection.execute(rows.order_by(LOG.c.first)):
                if first != end:
                    # What lies between is outdated, and all before it.
                    parts = []
                parts.append(np.frombuffer(blob, dtype="<u8").reshape(count, 2))
                end = first + count
            if end != self._end:
                kept = np.concatenate(parts)[-self.maximum_images :]
                self._fingerprints, self._begin, self._end = kept, end - len(kept), end
            return self._begin, self._fingerprints


@contextmanager
def _parsing() -> Iterator[None]:
    """Whatever a row holds that this service did not write is a failure of the store."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise StoreError(f"the fingerprints' database holds a row that is none: {error}") from error


def _engine(url: str) -> Engine:
    advice = "use sqlite:////folder/file.db or postgresql://user:password@host/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise VerisynthError(f"VERISYNTH_FINGERPRINTS_URL is no URL of a database; {advice}") from None
    kind = parsed.drivername
    if kind not in DRIVERS or not parsed.database or parsed.database == ":memory:":
        raise VerisynthError(f"VERISYNTH_FINGERPRINTS_URL names a {kind} database that is not taken; {advice}")
    try:
        return create_engine(
            parsed.set(drivername=DRIVERS[kind]),
            connect_args=SQLITE_OPTIONS if kind == "sqlite" else POSTGRESQL_OPTIONS,
            pool_timeout=CONNECT_SECONDS,
            # A connection that broke while it lay idle is replaced unseen.
            pool_pre_ping=True,
            # Parameters are left out of error messages.
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise VerisynthError(
            f"VERISYNTH_FINGERPRINTS_URL names a {kind} database, and {error.name} is not installed; "
            "install the extra `fingerprints`"
        ) from error
