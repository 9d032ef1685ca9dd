"""A service that keeps an audit log: what the log tells of requests, full disks, two services with one log."""

import hashlib
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.imaging import encode_png
from serving.access.audit import verify
from serving.access.keys import create_key
from tests.disks import fill, small_disk
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

IMAGE = encode_png(real_images(1)[0])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_small_release(folder / "waves")
    return folder


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(client: httpx.Client, image: bytes = IMAGE, model: str = "waves") -> httpx.Response:
    return client.post("/v1/authenticity", files={"image": ("Jane Doe 1970.png", image)}, data={"model": model})


def test_every_answer_is_in_the_log(tmp_path: Path, models: Path) -> None:
    file, keys = tmp_path / "audit.jsonl", tmp_path / "keys.json"
    key = create_key(keys, ["generate", "check"], name="ward")
    settings = {"VERISYNTH_WORKERS": "2", "VERISYNTH_KEYS_FILE": str(keys), "VERISYNTH_AUDIT_FILE": str(file)}
    expected: list[tuple[Any, ...]] = []

    def told(answer: httpx.Response, *rest: Any) -> None:
        code = answer.json()["error"]["code"] if answer.is_error else None
        expected.append((answer.headers["x-request-id"], answer.status_code, code, *rest))

    broken, sha = IMAGE[:100], hashlib.sha256(IMAGE).hexdigest()
    with serve(tmp_path / "home", models, **settings) as service:
        with service.client(key) as client, service.client() as nobody:
            made = "/v1/generate"
            told(client.post(made, json={"count": 2}), "ward", made, "waves", 2, None, None)
            told(client.post(made, json={"count": 2, "model": "Jane"}), "ward", made, None, None, None, None)
            told(client.post(made, json={}), "ward", made, None, None, None, None)
            # Images that were not made are not in the log.
            told(client.post(made, json={"count": 1, "label": "blue"}), "ward", made, "waves", None, None, None)
            told(nobody.post(made, json={"count": 2}), "anonymous", made, None, None, None, None)
            checked = "/v1/authenticity"
            told(check(client), "ward", checked, "waves", None, "real", sha)
            # What provenance proves is answered, and so it is logged, whatever the detector says.
            drawn = client.post(made, json={"count": 1, "seed": 1, "format": "zip"})
            told(drawn, "ward", made, "waves", 1, None, None)
            with zipfile.ZipFile(io.BytesIO(drawn.content)) as archive:
                picture = archive.read("000000.png")
            answer = check(client, picture)
            assert (answer.json()["verdict"], answer.json()["evidence"]["detector"]["verdict"]) == ("synthetic", "real")
            told(answer, "ward", checked, "waves", None, "synthetic", hashlib.sha256(picture).hexdigest())
            told(check(client, broken), "ward", checked, None, None, None, hashlib.sha256(broken).hexdigest())
            told(check(client, model="Jane"), "ward", checked, None, None, None, sha)
            told(client.post("/v1/admin/reload"), "ward", "/v1/admin/reload", None, None, None, None)
            told(client.get("/v1/models/Jane"), "ward", "/v1/models/{name}", None, None, None, None)
            told(client.get("/v1/models"), "ward", "/v1/models", None, None, None, None)
            told(client.get("/v1/Jane"), "anonymous", "unmatched", None, None, None, None)
            for path in ("/", "/metrics", "/readyz", "/Jane"):
                client.get(path)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: service.client(key).get("/v1/models"), range(40)))
    found = [
        tuple(
            record[name]
            for name in ("request_id", "status", "code", "key", "route", "model", "count", "verdict", "sha256")
        )
        for record in records(file)
    ]
    assert found[: len(expected)] == expected
    assert len(found) == len(expected) + 40
    assert verify([file]).lines == len(found)
    text = file.read_text()
    assert "Jane" not in text
    assert key.rpartition("_")[2] not in text


def audit_failures(client: httpx.Client) -> float:
    name = "verisynth_audit_failures_total "
    return float(next(line for line in client.get("/metrics").text.splitlines() if line.startswith(name)).split()[1])


def generated(client: httpx.Client) -> float:
    name = 'verisynth_generated_images_total{model="waves"} '
    return float(next(line for line in client.get("/metrics").text.splitlines() if line.startswith(name)).split()[1])


@pytest.mark.parametrize("required", ["true", "false"])
def test_a_full_disk_under_a_service(tmp_path: Path, models: Path, required: str) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        file = disk / "audit.jsonl"
        settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_AUDIT_FILE": str(file), "VERISYNTH_AUDIT_REQUIRED": required}
        with serve(tmp_path / "home", models, **settings) as service, service.client() as client:
            ask = {"json": {"count": 1, "seed": 1}}
            assert client.post("/v1/generate", **ask).status_code == 200
            ballast = fill(disk)
            statuses = [client.post("/v1/generate", **ask).status_code for _ in range(200)]
            if required == "false":
                assert set(statuses) == {200}
                assert audit_failures(client) > 0
            else:
                assert set(statuses[-50:]) == {503}
                before = generated(client)
                refused = client.post("/v1/generate", **ask)
                assert refused.json()["error"]["code"] == "audit_failure"
                assert refused.headers["retry-after"]
                assert "X-Verisynth-Seed" not in refused.headers
                assert generated(client) == before  # refused before the work
                assert audit_failures(client) == statuses.count(503) + 1
            assert client.get("/readyz").status_code == 200
            ballast.unlink()
            assert client.post("/v1/generate", **ask).status_code == 200
            assert "gap" in [record["event"] for record in records(file)]
            verify([file])


@pytest.mark.parametrize("route", ["generate", "check"])
def test_a_device_that_is_always_full(tmp_path: Path, models: Path, route: str) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_AUDIT_FILE": str(full)}
    with serve(tmp_path / "home", models, **settings) as service, service.client() as client:
        # The first one is refused after its work, the next ones before.
        for _ in range(3):
            refused = client.post("/v1/generate", json={"count": 1}) if route == "generate" else check(client)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_failure")
            assert "sha256" not in refused.text
        assert audit_failures(client) == 3
        assert client.get("/").status_code == 200
        # What was not handed out is not counted.
        counted = ("verisynth_generated_images_total{", "verisynth_authenticity_checks_total{")
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(counted)]
        assert {line.split()[-1] for line in lines} == {"0.0"}
    assert "Traceback" not in service.log.read_text()


def test_services_share_one_log(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "audit.jsonl"

    def ask(service: Service) -> None:
        with service.client() as client:
            for _ in range(20):
                assert client.get("/v1/models").status_code == 200

    settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_AUDIT_FILE": str(file)}
    with (
        serve(tmp_path / "a", models, **settings) as first,
        serve(tmp_path / "b", models, **settings) as second,
        ThreadPoolExecutor(2) as pool,
    ):
        list(pool.map(ask, (first, second)))
    assert verify([file]).lines == 40
