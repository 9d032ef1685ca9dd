"""The key file and its command; `test_access.py` has what keys open."""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import VerisynthError
from serving.access import keys
from serving.access.keys import KeyRing, create_key, list_keys, read_keys, revoke_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def rewrite(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_a_key_is_found_by_what_its_client_holds_and_by_nothing_else(file: Path) -> None:
    first, second = create_key(file, ["check"], name="one"), create_key(file, ["generate", "admin"])
    ring = KeyRing(file)
    found = ring.find(first)
    assert found is not None
    assert (found.id, found.scopes) == ("one", ("check",))
    other = ring.find(second)
    assert other is not None
    assert other.scopes == ("generate", "admin")
    secret = first.removeprefix("vs_one_")
    for wrong in (
        *("", "vs", "vs__", first[:-1], first + "x", first.upper(), "Bearer " + first, secret),
        f"vs_two_{secret}",
        f"vs_{other.id}_{secret}",
        "vs_one_" + "A" * 43,
    ):
        assert ring.find(wrong) is None


@given(st.text())
def test_no_other_text_is_a_key(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "one-key.json"
    if not file.exists():
        create_key(file, ["check"])
    assert KeyRing(file).find(text) is None


def test_the_file_holds_no_secret_and_is_its_owners(file: Path) -> None:
    presented = create_key(file, ["check"], name="one", requests_per_minute=5)
    secret = presented.removeprefix("vs_one_")
    text = file.read_text()
    assert secret not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    entry = json.loads(text)["keys"][0]
    assert entry["hash"] == hashlib.sha256((entry["salt"] + secret).encode()).hexdigest()
    assert entry["requests_per_minute"] == 5
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o640, 0o440])
def test_a_changed_file_keeps_its_mode_and_its_group(file: Path, mode: int) -> None:
    create_key(file, ["check"], name="one")
    file.chmod(mode)
    others = [group for group in os.getgroups() if group != os.getgid()]
    group = 12_345 if os.geteuid() == 0 else next(iter(others), os.getgid())
    os.chown(file, -1, group)
    create_key(file, ["check"], name="two")
    revoke_key(file, "one")
    found = file.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, group)


def test_keys_are_listed_by_age_and_revoked(file: Path) -> None:
    for name in ("a", "b"):
        create_key(file, ["check"], name=name)
    assert [key.id for key in list_keys(file)] == ["a", "b"]
    revoke_key(file, "a")
    assert [key.id for key in read_keys(file)] == ["b"]
    with pytest.raises(VerisynthError, match="no key 'a'; it has b"):
        revoke_key(file, "a")


def test_commands_at_once_lose_no_key(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: create_key(file, ["check"], name=f"k{number}"), range(16)))
    assert len(read_keys(file)) == 16


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"scopes": ["everything"]}, "everything"),
        ({"scopes": []}, "generate, check, admin"),
        ({"name": "Über"}, "Über"),
        ({"name": "a_b"}, "a_b"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "2020-01-01T00:00:00Z"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0"),
        ({"name": "taken"}, "has a key taken already"),
    ],
)
def test_a_wrong_key_is_not_made(file: Path, arguments: dict[str, Any], reason: str) -> None:
    create_key(file, ["check"], name="taken")
    before = file.read_text()
    with pytest.raises(VerisynthError, match=reason):
        create_key(file, **{"scopes": ["check"], **arguments})
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda document: document.clear(), "must hold"),
        (lambda document: document.update(more=1), "must hold"),
        (lambda document: document.update(keys={}), "must hold"),
        (lambda document: document["keys"].append(3), "key 1 .* no JSON object"),
        (lambda document: document["keys"].append(document["keys"][0]), "one more than once"),
        (lambda document: document["keys"][0].pop("salt"), "salt is missing"),
        (lambda document: document["keys"][0].update(secret="x"), "unknown field secret"),
        (lambda document: document["keys"][0].update(id=7), "the id is 7"),
        (lambda document: document["keys"][0].update(hash="abc"), "the hash must be"),
        (lambda document: document["keys"][0].update(salt=None), "the salt must be"),
        (lambda document: document["keys"][0].update(scopes="check"), "the scopes are 'check'"),
        (lambda document: document["keys"][0].update(scopes=["check", 3]), "check, 3"),
        (lambda document: document["keys"][0].update(created="soon"), "created is 'soon'"),
        (lambda document: document["keys"][0].update(expires=3), "expires is 3"),
        (lambda document: document["keys"][0].update(expires="9999-12-31T23:59:59-05:00"), "expires is '9999"),
        (lambda document: document["keys"][0].update(created="0001-01-01T00:00+05:00"), "created is '0001"),
        (lambda document: document["keys"][0].update(requests_per_minute=True), "requests_per_minute is True"),
    ],
)
def test_a_malformed_file_is_refused_by_name(file: Path, change: Callable[[Any], Any], reason: str) -> None:
    create_key(file, ["check"], name="one")
    rewrite(file, change)
    with pytest.raises(VerisynthError, match=reason) as refused:
        read_keys(file)
    assert str(file) in str(refused.value)


def test_a_refusal_never_quotes_what_is_secret(file: Path) -> None:
    create_key(file, ["check"], name="one")
    entry = json.loads(file.read_text())["keys"][0]
    for broken in (file.read_text()[:-4], json.dumps({"keys": [entry | {"hash": entry["hash"] + "0"}]})):
        file.write_text(broken)
        with pytest.raises(VerisynthError) as refused:
            read_keys(file)
        assert entry["hash"] not in str(refused.value)
        assert entry["salt"] not in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "taken"), [(0o600, True), (0o440, True), (0o644, False), (0o620, False), (0o602, False)]
)
def test_a_file_that_others_may_read_or_change_is_refused(file: Path, mode: int, taken: bool) -> None:
    create_key(file, ["check"])
    file.chmod(mode)
    if taken:
        assert len(read_keys(file)) == 1
        return
    with pytest.raises(VerisynthError, match=f"mode {mode:04o}.*chmod 600"):
        read_keys(file)


@given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: json.dumps({"keys": [text]}).encode()))
def test_any_other_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "strange.json"
    file.write_bytes(data)
    file.chmod(0o600)
    with pytest.raises(VerisynthError):
        read_keys(file)


class Clock:
    """Seconds that pass when told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_changed_file_is_picked_up_after_a_second(file: Path) -> None:
    clock = Clock()
    first = create_key(file, ["check"], name="first")
    ring = KeyRing(file, clock)
    assert ring.find(first)
    second = create_key(file, ["check"], name="second")
    revoke_key(file, "first")
    assert ring.find(first)  # not looked at again so soon
    assert not ring.find(second)
    clock.seconds += 1
    assert ring.find(second)
    assert not ring.find(first)


@pytest.mark.parametrize(
    "harm", [lambda file: file.write_text("{"), lambda file: file.unlink(), lambda file: file.chmod(0o644)]
)
def test_a_broken_file_keeps_the_keys_of_before(
    file: Path, harm: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    presented = create_key(file, ["check"])
    ring = KeyRing(file, clock)
    assert ring.find(presented)
    harm(file)
    for _ in range(3):
        clock.seconds += 1
        assert ring.find(presented)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert ring.obstacle is None


def test_a_file_that_could_not_be_read_once_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    first = create_key(file, ["check"])
    ring = KeyRing(file, clock)
    assert ring.find(first)
    second = create_key(file, ["check"])

    def fail(_: Path) -> list[keys.Key]:
        raise VerisynthError("no more file descriptors")

    with monkeypatch.context() as patched:
        patched.setattr(keys, "read_keys", fail)
        for _ in range(3):
            clock.seconds += 1
            assert not ring.find(second)
    assert caplog.messages == ["the keys of before stay: no more file descriptors"]
    clock.seconds += 1
    assert ring.find(second)


def test_without_a_good_file_at_first_nobody_is_let_in_until_there_is_one(file: Path) -> None:
    clock = Clock()
    file.write_text("{")
    file.chmod(0o600)
    ring = KeyRing(file, clock)
    assert "no JSON" in str(ring.obstacle)
    file.unlink()
    presented = create_key(file, ["check"])
    assert not ring.find(presented)
    clock.seconds += 1
    assert ring.find(presented)
    assert ring.obstacle is None


def test_an_unknown_id_takes_the_same_work_as_a_wrong_secret(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_key(file, ["check"], name="one")
    ring = KeyRing(file)
    ring.find("")
    compared: list[int] = []
    compare, digest = keys.hmac.compare_digest, keys._digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(len(a) + len(b)) or compare(a, b))
    hashed: list[int] = []
    monkeypatch.setattr(keys, "_digest", lambda salt, secret: hashed.append(len(salt + secret)) or digest(salt, secret))
    for name in ("one", "two"):
        assert ring.find(f"vs_{name}_{'A' * 43}") is None
    assert compared[0] == compared[1] == 128
    assert hashed[0] == hashed[1]


def test_a_day_alone_is_its_first_moment() -> None:
    assert keys.time_text(keys.parse_time("expires", "2027-12-31")) == "2027-12-31T00:00:00Z"


def test_an_expired_key_is_told_apart(file: Path) -> None:
    create_key(file, ["check"], expires=datetime.now(UTC) + timedelta(days=1))
    key = read_keys(file)[0]
    assert not key.expired(datetime.now(UTC))
    assert key.expired(datetime.now(UTC) + timedelta(days=2))
