"""`verisynth keys`, `signing-key` and `audit`, on files of their own."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from serving.access.audit import Answered, AuditLog, Work, last_hash
from serving.access.keys import KeyRing
from serving.command.main import main
from serving.provenance.claims import ClaimKeys, key_id


def verisynth(*arguments: str | Path, keys_file: Path | None = None) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, texts, env={"VERISYNTH_KEYS_FILE": None if keys_file is None else str(keys_file)})


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    options = ("--scopes", "generate,check", "--id", "ward", "--expires", "2999-01-01")
    made = verisynth("keys", "create", *options, keys_file=file)
    assert made.exit_code == 0
    assert KeyRing(file).find(made.stdout.strip())
    assert "only time" in made.stderr
    listed = verisynth("keys", "--file", file, "list")
    assert "ward  generate,check  created" in listed.stdout
    assert "expires 2999-01-01T00:00:00Z" in listed.stdout
    assert made.stdout.strip() not in listed.stdout
    assert verisynth("keys", "revoke", "ward", keys_file=file).exit_code == 0
    again = verisynth("keys", "revoke", "ward", keys_file=file)
    assert again.exit_code == 2
    assert "it has none" in again.stderr
    assert verisynth("keys", "list", keys_file=file).stdout == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [(("check", "--expires", "tomorrow"), "tomorrow"), (("check,all",), "all"), (("check", "--id", "A b"), "A b")],
)
def test_keys_that_cannot_be_are_refused(tmp_path: Path, options: tuple[str, ...], named: str) -> None:
    refused = verisynth("keys", "create", "--scopes", *options, keys_file=tmp_path / "keys.json")
    assert refused.exit_code == 2
    assert named in refused.stderr
    assert not (tmp_path / "keys.json").exists()


def test_keys_ask_for_a_file() -> None:
    refused = verisynth("keys", "list")
    assert refused.exit_code == 2
    assert "VERISYNTH_KEYS_FILE" in refused.stderr


def test_a_signing_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    made, again = verisynth("signing-key", path), verisynth("signing-key", path)
    assert made.exit_code == 0
    public = load_pem_public_key(made.stdout.partition("key id")[0].encode())
    assert isinstance(public, Ed25519PublicKey)
    assert made.stdout.endswith(f"key id: {key_id(public)}\n")
    assert ClaimKeys.load(path, None).key_id == key_id(public)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_what_an_audit_log_could_not_record_is_told(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.mkdir()
    log, answered = AuditLog(file), Answered("0" * 8, "key", "/v1/models", 200, None, Work())
    for _ in range(2):
        with pytest.raises(OSError, match="directory"):
            log.append(answered)
    file.rmdir()
    log.append(answered)
    with file.open("ab") as opened:
        opened.write(b"half")
    log.append(answered)
    told = verisynth("audit", "verify", file)
    assert told.exit_code == 0
    assert "1 of them tell of a gap: 2 answers could not be recorded\n" in told.stdout
    assert "4 bytes of lines that were never whole" in told.stdout


def test_an_audit_log_is_verified(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "audit.jsonl"
    log = AuditLog(second)
    answered = Answered("0" * 8, "key", "/v1/generate", 200, None, Work(model="ihc", count=3))
    log.append(answered)
    second.rename(first)
    log.append(answered)
    log.append(answered)
    whole = verisynth("audit", "verify", first, second)
    assert whole.exit_code == 0
    assert whole.stdout == f"3 lines, all whole and in their order; the last has the hash {last_hash(second)}\n"
    last = verisynth("audit", "last", second).stdout.strip()
    assert verisynth("audit", "verify", second, "--previous", last_hash(first), "--last", last).exit_code == 0
    second.write_bytes(second.read_bytes().replace(b"ihc", b"ihd", 1))
    broken = verisynth("audit", "verify", first, second)
    assert broken.exit_code == 1
    assert "audit.jsonl, line 2" in broken.stderr
    missing = verisynth("audit", "verify", tmp_path / "none.jsonl")
    assert missing.exit_code == 2
    assert "none.jsonl cannot be read" in missing.stderr
