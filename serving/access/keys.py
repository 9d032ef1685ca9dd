"""API keys: a file of salted hashes, read again when it changes.

`verisynth keys` keeps it. What a client holds is `vs_<id>_<secret>`, told once, when the key is made. The secret is
256 random bits. A password needs a slow hash because it can be guessed; nobody tries 2^256 secrets however fast the
hash is, so one SHA-256 is right here, and a request does not pay for a slow one. The salt keeps equal hashes from
telling that two files hold the same key.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.errors import VerisynthError

SCOPES = ("generate", "check", "admin")
PREFIX = "vs_"
KEY = re.compile(rf"{PREFIX}([a-z0-9-]{{1,32}})_([A-Za-z0-9_-]{{43}})")
API_KEY_ID = re.compile(r"[a-z0-9-]{1,32}")
SALT = re.compile(r"[0-9a-f]{32}")
DIGEST = re.compile(r"[0-9a-f]{64}")
SECRET_BYTES = 32
SALT_BYTES = 16
REFRESH_SECONDS = 1.0
KEYS_FILE = "VERISYNTH_KEYS_FILE"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """One entry of the file; times are in UTC."""

    id: str
    salt: str
    hash: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime | None = None
    requests_per_minute: int | None = None
    """None: the service's own limit."""

    def is_opened_by(self, secret: str) -> bool:
        """Whether this is the secret; takes the same time whatever is wrong with it."""
        return hmac.compare_digest(_digest(self.salt, secret), self.hash)

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


# What a secret is held against where its id is unknown, so that both take the same work. No text has this hash.
DECOY = Key("", "0" * 2 * SALT_BYTES, "0" * 64, (), datetime.min.replace(tzinfo=UTC))


class KeyRing:
    """The keys of a file that is looked at again once a second, when somebody asks.

    A file that cannot be taken is logged, and the keys of before stay; where there were none, nobody is let in.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._looked = -math.inf
        self._state: tuple[int, ...] | None = None
        self._keys: dict[str, Key] = {}
        self._obstacle: str | None = None
        self._complaint: str | None = None

    @property
    def obstacle(self) -> str | None:
        """Why there are no keys at all; None once a file was taken."""
        self._refresh()
        return self._obstacle

    def find(self, presented: str) -> Key | None:
        """The key that a client presents, `vs_<id>_<secret>`, expired or not; None for any other text."""
        self._refresh()
        parts = KEY.fullmatch(presented)
        name, secret = parts.groups() if parts else ("", presented)
        key = self._keys.get(name, DECOY)
        return key if key.is_opened_by(secret) and key is not DECOY else None

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < REFRESH_SECONDS:
            return
        self._looked = now
        state = _state(self._file)
        if state == self._state:
            self._complaint = None
            return
        try:
            self._keys = {key.id: key for key in read_keys(self._file)}
        except VerisynthError as error:
            # The file may be as it was and be read the next time: its state is not kept before it was.
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("the keys of before stay: %s", error)
            self._obstacle = str(error) if self._state is None else None
        else:
            logger.info("%d keys were read from %s", len(self._keys), self._file)
            self._state, self._obstacle, self._complaint = state, None, None


def read_keys(file: Path) -> list[Key]:
    """All keys of a file.

    Raises:
        VerisynthError: a file that cannot be read, that others may read or change, or that is malformed.
    """
    try:
        with file.open("rb") as opened:
            _check_mode(file, os.fstat(opened.fileno()).st_mode)
            data = opened.read()
    except OSError as error:
        raise VerisynthError(
            f"the key file {file} cannot be read: {error.strerror}; make one with `verisynth keys create`"
        ) from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        # The decoder's own words would quote the file.
        raise VerisynthError(f"the key file {file} is no JSON; make a new one, or mend it") from error
    entries = document.get("keys") if isinstance(document, dict) and document.keys() == {"keys"} else None
    if not isinstance(entries, list):
        raise VerisynthError(f'the key file {file} must hold {{"keys": [...]}} and nothing else')
    keys = [_parse_key(file, position, entry) for position, entry in enumerate(entries)]
    doubles = {key.id for key in keys if [other.id for other in keys].count(key.id) > 1}
    if doubles:
        raise VerisynthError(f"the key file {file} holds {', '.join(sorted(doubles))} more than once; keep one of each")
    return keys


def create_key(
    file: Path,
    scopes: Sequence[str],
    name: str | None = None,
    expires: datetime | None = None,
    requests_per_minute: int | None = None,
) -> str:
    """Add a key to the file, which is made where there is none. Returns what the client holds; it is kept nowhere.

    Raises:
        VerisynthError: an unknown scope, an id that is taken or malformed, a time that has passed, a limit below 1, and
            what `read_keys` raises.
    """
    name = secrets.token_hex(4) if name is None else name
    secret = secrets.token_urlsafe(SECRET_BYTES)
    salt = secrets.token_hex(SALT_BYTES)
    now = datetime.now(UTC).replace(microsecond=0)
    key = Key(name, salt, _digest(salt, secret), tuple(scopes), now, expires, requests_per_minute)
    _check_key(key)
    if key.expired(now):
        raise VerisynthError(f"the key would have expired at {time_text(expires)}; name a later time")
    with _exclusive(file) as keys:
        if name in [other.id for other in keys]:
            raise VerisynthError(f"{file} has a key {name} already; revoke it first or choose another id")
        keys.append(key)
    return f"{PREFIX}{name}_{secret}"


def list_keys(file: Path) -> list[Key]:
    """All keys, the oldest first. Raises VerisynthError as `read_keys` does."""
    return sorted(read_keys(file), key=lambda key: (key.created, key.id))


def revoke_key(file: Path, name: str) -> None:
    """Take a key out of the file.

    Raises:
        VerisynthError: there is no such key, and what `read_keys` raises.
    """
    with _exclusive(file) as keys:
        left = [key for key in keys if key.id != name]
        if len(left) == len(keys):
            raise VerisynthError(f"{file} has no key {name!r}; it has {', '.join(key.id for key in keys) or 'none'}")
        keys[:] = left


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode("utf-8", "surrogatepass")).hexdigest()


def _state(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def _check_mode(file: Path, mode: int) -> None:
    # A group may read: Kubernetes gives a pod its secrets through one.
    if stat.S_IMODE(mode) & (stat.S_IRWXO | stat.S_IWGRP):
        raise VerisynthError(
            f"the key file {file} has mode {stat.S_IMODE(mode):04o}, which lets others read or change it; "
            f"`chmod 600 {file}`"
        )


def _parse_key(file: Path, position: int, entry: object) -> Key:
    known = {field.name for field in fields(Key)}
    try:
        if not isinstance(entry, dict):
            raise VerisynthError("it is no JSON object")
        if unknown := sorted(entry.keys() - known):
            raise VerisynthError(f"unknown field {', '.join(unknown)}; the fields are {', '.join(sorted(known))}")
        if missing := sorted({"id", "salt", "hash", "scopes", "created"} - entry.keys()):
            raise VerisynthError(f"{', '.join(missing)} is missing")
        scopes = entry["scopes"]
        if not isinstance(scopes, list):
            raise VerisynthError(f"the scopes are {scopes!r}; use a list of some of {', '.join(SCOPES)}")
        key = Key(
            id=entry["id"],
            salt=entry["salt"],
            hash=entry["hash"],
            scopes=tuple(scopes),
            created=parse_time("created", entry["created"]),
            expires=None if entry.get("expires") is None else parse_time("expires", entry["expires"]),
            requests_per_minute=entry.get("requests_per_minute"),
        )
        _check_key(key)
    except VerisynthError as error:
        raise VerisynthError(f"key {position} of {file} is not taken: {error}") from error
    return key


def _check_key(key: Key) -> None:
    """Names the field; the values of salt and hash are never told."""
    if not _is_text(key.id, API_KEY_ID):
        raise VerisynthError(f"the id is {key.id!r}; use 1 to 32 lower-case letters, digits and hyphens")
    if not _is_text(key.salt, SALT):
        raise VerisynthError(f"the salt must be {2 * SALT_BYTES} hexadecimal digits")
    if not _is_text(key.hash, DIGEST):
        raise VerisynthError("the hash must be 64 hexadecimal digits")
    if not key.scopes or any(scope not in SCOPES for scope in key.scopes):
        raise VerisynthError(f"the scopes are {', '.join(map(str, key.scopes))!r}; use some of {', '.join(SCOPES)}")
    limit: Any = key.requests_per_minute
    if limit is not None and not (type(limit) is int and limit >= 1):
        raise VerisynthError(f"requests_per_minute is {limit!r}; use a whole number of at least 1, or leave it out")


def _is_text(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def parse_time(field: str, text: object) -> datetime:
    """ISO 8601; without a time zone, UTC; a day alone is its first moment.

    Raises:
        VerisynthError: for any other text, and for a time that is in no year from 1 to 9999 in UTC.
    """
    try:
        time_ = datetime.fromisoformat(str(text))
        return time_.replace(tzinfo=UTC) if time_.tzinfo is None else time_.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise VerisynthError(f"{field} is {text!r}; use a time such as 2027-12-31T23:59:59Z") from error


def time_text(time_: datetime | None) -> str:
    return "never" if time_ is None else time_.isoformat(timespec="seconds").replace("+00:00", "Z")


@contextlib.contextmanager
def _exclusive(file: Path) -> Iterator[list[Key]]:
    """The keys of the file, to be changed in the block; written when it ends well, one command at a time."""
    target = file.resolve()
    try:
        folder = os.open(target.parent, os.O_RDONLY)
    except OSError as error:
        raise VerisynthError(f"the folder of {file} cannot be opened: {error.strerror}; make it first") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(file) if target.exists() else []
        yield keys
        _write(target, keys)
    finally:
        os.close(folder)


def _write(target: Path, keys: list[Key]) -> None:
    document = {"keys": [_entry(key) for key in keys]}
    try:
        # mkstemp gives mode 0600; a reader sees the old file or the new one, never half of it.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise VerisynthError(f"{target} cannot be written: {error.strerror}") from error
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            _take_after(descriptor, target)
            opened.write(json.dumps(document, indent=2) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise VerisynthError(f"{target} cannot be written: {error.strerror}") from error


def _take_after(descriptor: int, target: Path) -> None:
    """Give the open file the owner, group and mode of the target, if there is one: a service may read it as a group."""
    try:
        before = target.stat()
    except FileNotFoundError:
        return
    os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _entry(key: Key) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": key.id,
        "salt": key.salt,
        "hash": key.hash,
        "scopes": list(key.scopes),
        "created": time_text(key.created),
    }
    if key.expires is not None:
        entry["expires"] = time_text(key.expires)
    if key.requests_per_minute is not None:
        entry["requests_per_minute"] = key.requests_per_minute
    return entry
