"""Where the service listens, asked of real sockets and of real service processes."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.access.exposure import is_loopback, listening_hosts, obstacle, requested_hosts
from serving.access.keys import create_key
from serving.settings import Settings
from tests.releases import write_small_release
from tests.services import PORT, ROOT, run, serve, service_environment


@contextmanager
def listening(host: str, family: socket.AddressFamily = socket.AF_INET) -> Iterator[None]:
    with socket.socket(family) as opened:
        opened.bind((host, 0))
        opened.listen()
        yield


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_small_release(tmp_path / "models" / "waves")
    return tmp_path / "models"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::1%lo"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "fe80::1", "localhost", "", "example"])
def test_what_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_process_knows_the_sockets_it_listens_on() -> None:
    before = listening_hosts()
    with listening("0.0.0.0"), listening("127.0.0.1"), socket.socket() as connecting:
        connecting.bind(("127.0.0.2", 0))  # does not listen
        assert set(listening_hosts()) - set(before) == {"0.0.0.0", "127.0.0.1"}
    assert listening_hosts() == before


@pytest.mark.parametrize(
    ("settings", "hosts", "reason"),
    [
        ({}, ["127.0.0.1"], None),
        ({}, ["127.0.0.1", "::1"], None),
        ({}, ["0.0.0.0"], "listens on 0.0.0.0 and has no keys"),
        ({}, ["127.0.0.1", "10.1.2.3"], "listens on 10.1.2.3 "),
        ({}, [], "cannot tell where it listens"),
        ({"allow_anonymous": True}, ["0.0.0.0"], None),
        ({"keys_file": Path("keys.json")}, ["0.0.0.0"], None),
    ],
)
def test_without_keys_only_loopback_is_right(settings: dict[str, Any], hosts: list[str], reason: str | None) -> None:
    found = obstacle(Settings(**settings), hosts)
    assert found is reason is None or (reason is not None and reason in str(found))


def test_no_address_was_requested_outside_of_the_command() -> None:
    assert requested_hosts("0.0.0.0") == []


def refusal(home: Path, models: Path, *options: str, **settings: str) -> str:
    """What `bentoml serve` says when it does not start."""
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Verisynth", "--port", "0", *options]
    environment = service_environment(home, models, **settings)
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    ("options", "settings"),
    [(["--host", "0.0.0.0"], {}), ([], {}), ([], {"BENTOML_HOST": "::"}), (["--host", "0.0.0.0", "--development"], {})],
)
def test_without_keys_the_service_does_not_start_for_other_machines(
    tmp_path: Path, models: Path, options: list[str], settings: dict[str, str]
) -> None:
    said = refusal(tmp_path, models, *options, **settings)
    assert "has no keys; name a key file in VERISYNTH_KEYS_FILE" in said


def test_a_worker_that_finds_itself_exposed_answers_nothing(tmp_path: Path, models: Path) -> None:
    # A supervisor that is not the command, as in a program of somebody's own.
    program = (
        "import sys; from bentoml import serve; "
        "serve('serving.service:Verisynth', host='0.0.0.0', port=int(sys.argv[1]), blocking=True)"
    )
    with run(["-c", program, PORT], tmp_path, models, VERISYNTH_WORKERS="1") as service, service.client() as client:
        for path in ("/readyz", "/v1/models", "/", "/metrics", "/openapi.json"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready"), path
            assert "listens on 0.0.0.0 and has no keys" in answer.json()["error"]["message"]
            assert answer.headers["retry-after"]
        assert client.post("/v1/generate", json={"count": 1}).status_code == 503
        assert client.get("/livez").status_code == 200


def test_with_keys_or_by_name_the_service_serves_other_machines(tmp_path: Path, models: Path) -> None:
    key = create_key(tmp_path / "keys.json", ["check"])
    with serve(
        tmp_path / "keyed",
        models,
        host="0.0.0.0",
        VERISYNTH_WORKERS="1",
        VERISYNTH_KEYS_FILE=str(tmp_path / "keys.json"),
    ) as keyed:
        assert keyed.client().get("/readyz").status_code == 200
        assert keyed.client().get("/v1/models").status_code == 401
        assert keyed.client(key).get("/v1/models").status_code == 200
    with serve(
        tmp_path / "open", models, host="0.0.0.0", VERISYNTH_WORKERS="1", VERISYNTH_ALLOW_ANONYMOUS="true"
    ) as opened:
        assert opened.client().get("/v1/models").status_code == 200


def test_a_key_file_that_is_refused_stops_the_start(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "keys.json"
    create_key(file, ["check"])
    file.chmod(0o644)
    assert f"the key file {file} has mode 0644" in refusal(tmp_path, models, VERISYNTH_KEYS_FILE=str(file))
    file.write_text("{}")
    file.chmod(0o600)
    assert f"the key file {file} must hold" in refusal(tmp_path, models, VERISYNTH_KEYS_FILE=str(file))


def test_an_audit_log_that_cannot_be_written_stops_the_start(tmp_path: Path, models: Path) -> None:
    said = refusal(tmp_path, models, "--host", "127.0.0.1", VERISYNTH_AUDIT_FILE=str(tmp_path / "none" / "audit.jsonl"))
    assert "name another in VERISYNTH_AUDIT_FILE" in said
