"""What one worker does under load, in process; `test_service.py` has the answers themselves."""

import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from contracts.errors import VerisynthError
from contracts.imaging import encode_png
from monitoring.metrics import Metrics
from serving.access.gate import Gate
from serving.edge import Edge
from serving.requests import GENERATE_BODY_BYTES
from serving.routes import application
from serving.runtime import BATCH_SIZE, Look, ModelError, Samples
from serving.settings import Settings
from serving.worker import Worker
from tests.images import encoded
from tests.releases import real_images, write_small_release

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_small_release(tmp_path / "waves")
    return tmp_path


def client(settings: Settings) -> tuple[httpx.AsyncClient, Worker]:
    settings = settings.resolved(cores=1)
    metrics = Metrics(CollectorRegistry())
    worker = Worker(settings, metrics)
    worker.load()
    gate = Gate(settings)
    gate.load(["127.0.0.1"])
    transport = httpx.ASGITransport(Edge(application(worker), settings, metrics, gate))
    return httpx.AsyncClient(transport=transport, base_url="http://service"), worker


def test_a_full_worker_refuses_and_recovers(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        connected, worker = client(Settings(models_folder=models, maximum_requests=1))
        model = worker.catalogue.models["waves"]
        generate = model.generate
        begun, finish = anyio.Event(), anyio.Event()
        statuses: list[int] = []

        def slow_batch(*wanted: Any) -> Samples:
            anyio.from_thread.run_sync(begun.set)
            anyio.from_thread.run(finish.wait)
            return generate(*wanted)

        async def slow_request() -> None:
            statuses.append((await connected.post("/v1/generate", json={"count": 1})).status_code)

        monkeypatch.setattr(model, "generate", slow_batch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow_request)
            await begun.wait()
            refused = await connected.post("/v1/generate", json={"count": 1})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            assert (await connected.get("/v1/models")).status_code == 200
            monkeypatch.undo()
            finish.set()
        assert statuses == [200]
        assert (await connected.post("/v1/generate", json={"count": 1})).status_code == 200

    anyio.run(scenario)


def test_a_body_on_its_way_holds_no_place_and_a_full_worker_reads_none(models: Path) -> None:
    async def scenario() -> None:
        connected, worker = client(Settings(models_folder=models, maximum_requests=1))
        begun, finish = anyio.Event(), anyio.Event()
        statuses: list[int] = []

        async def slow_body() -> AsyncIterator[bytes]:
            begun.set()
            await finish.wait()
            yield b'{"count": 1}'

        async def slow_request() -> None:
            statuses.append((await connected.post("/v1/generate", content=slow_body(), headers=JSON)).status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow_request)
            await begun.wait()
            assert (await connected.post("/v1/generate", json={"count": 1})).status_code == 200
            finish.set()
        assert statuses == [200]

        async def unread_body() -> AsyncIterator[bytes]:
            await anyio.sleep_forever()
            yield b""

        async with worker.admitted():
            refused = await connected.post("/v1/generate", content=unread_body(), headers=JSON)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")

    anyio.run(scenario)


def test_a_few_numbers_may_not_weigh_what_an_image_may(models: Path) -> None:
    async def scenario() -> None:
        connected, _ = client(Settings(models_folder=models))
        padded = b'{"count": 1' + b" " * (GENERATE_BODY_BYTES - 12) + b"}"
        assert (await connected.post("/v1/generate", content=padded, headers=JSON)).status_code == 200
        refused = await connected.post("/v1/generate", content=b" " + padded, headers=JSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")

    anyio.run(scenario)


def test_a_timed_out_request_ends_its_work_after_the_batch_in_hand(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    async def scenario() -> None:
        connected, worker = client(Settings(models_folder=models, timeout_seconds=1, maximum_requests=1))
        model = worker.catalogue.models["waves"]
        generate = model.generate

        def endless_first_batch(seed: int, start: int, *wanted: Any) -> Samples:
            batches.append(start)
            anyio.from_thread.run(anyio.sleep, 1.5)
            return generate(seed, start, *wanted)

        monkeypatch.setattr(model, "generate", endless_first_batch)
        late = await connected.post("/v1/generate", json={"count": 3 * BATCH_SIZE})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        monkeypatch.undo()
        assert (await connected.post("/v1/generate", json={"count": 1})).status_code == 200

    anyio.run(scenario)
    assert batches == [0]


def columns(contrast: int) -> bytes:
    """Dark and bright columns, this many grey levels from their mean."""
    pixels = np.full((32, 32, 3), 90, np.uint8)
    pixels[:, ::2] += np.uint8(2 * contrast)
    return encode_png(pixels)


def test_only_the_answering_model_is_counted(tmp_path: Path) -> None:
    write_small_release(tmp_path / "narrow", typical_contrast=5, typicality_threshold=0.9)
    write_small_release(tmp_path / "wide")

    async def scenario() -> None:
        connected, worker = client(Settings(models_folder=tmp_path))
        for contrast in (10, 4, 4):
            answer = await connected.post("/v1/authenticity", files={"image": ("x.png", columns(contrast))})
            found = answer.json()
            assert found["model"] == ("narrow" if contrast == 10 else "wide")
            assert found["evidence"]["typicality"] == found["evidence"]["typicalities"][found["model"]]
            assert found["evidence"]["typicalities"] == pytest.approx(
                {"narrow": min(1, contrast / 5), "wide": contrast / 20}
            )
            assert found["thresholds"]["typicality"] == (0.9 if contrast == 10 else 0.02)
        registry = worker.metrics.registry
        for name, count in (("narrow", 1), ("wide", 2)):
            assert (
                registry.get_sample_value("verisynth_inference_seconds_count", {"model": name, "kind": "judge"})
                == count
            )
            assert (
                registry.get_sample_value("verisynth_authenticity_checks_total", {"model": name, "verdict": "real"})
                == count
            )

    anyio.run(scenario)


def test_a_model_that_breaks_while_all_look_spoils_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        write_small_release(tmp_path / name)

    async def scenario() -> None:
        connected, worker = client(Settings(models_folder=tmp_path))
        files = {"image": ("x.png", columns(10))}

        def breaking(_: np.ndarray) -> Look:
            raise ModelError("a graph failed")

        monkeypatch.setattr(worker.catalogue.models["second"], "look", breaking)
        answer = await connected.post("/v1/authenticity", files=files)
        assert (answer.status_code, answer.json()["model"]) == (200, "first")
        assert set(answer.json()["evidence"]["typicalities"]) == {"first"}
        answer = await connected.post("/v1/authenticity", files=files, data={"model": "second"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failure")
        monkeypatch.setattr(worker.catalogue.models["first"], "look", breaking)
        answer = await connected.post("/v1/authenticity", files=files)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failure")
        assert "first, second" in answer.json()["error"]["message"]

    anyio.run(scenario)


# --- fingerprints -------------------------------------------------------------------------------


def stripped(answer: httpx.Response, index: int) -> bytes:
    """A generated image without its mark, as a JPEG."""
    with np.load(io.BytesIO(answer.content)) as arrays:
        return encoded(Image.fromarray(arrays["images"][index]), "JPEG", quality=85)


def test_a_generated_image_is_known_without_its_mark(models: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        connected, worker = client(
            Settings(models_folder=models, fingerprints_url=f"sqlite:///{tmp_path}/f.db", fingerprints_required=True)
        )
        made = await connected.post("/v1/generate", json={"count": 70, "seed": 5, "truncation": 0.9})
        answer = await connected.post("/v1/authenticity", files={"image": ("x.jpg", stripped(made, 66))})
        provenance = answer.json()["evidence"]["provenance"]
        assert (provenance["status"], provenance["match"]["index"], provenance["match"]["seed"]) == ("absent", 66, 5)
        assert provenance["match"]["distance"] <= 20
        assert provenance["match"]["similarity"] >= 0.9
        assert (answer.json()["verdict"], answer.json()["evidence"]["detector"]["verdict"]) == ("synthetic", "real")
        answer = await connected.post("/v1/authenticity", files={"image": ("x.png", encode_png(real_images(1)[0]))})
        assert (answer.json()["verdict"], answer.json()["evidence"]["provenance"]["match"]) == ("real", None)
        flat = np.full((32, 32, 3), 128, np.uint8)
        answer = await connected.post("/v1/authenticity", files={"image": ("x.png", encode_png(flat))})
        assert answer.json()["evidence"]["provenance"]["match"] is None
        count = worker.metrics.registry.get_sample_value
        assert count("verisynth_provenance_checks_total", {"status": "absent"}) == 3
        assert count("verisynth_provenance_checks_total", {"status": "valid"}) == 0
        assert count("verisynth_authenticity_checks_total", {"model": "waves", "verdict": "synthetic"}) == 1

    anyio.run(scenario)


@pytest.mark.parametrize("required", [False, True])
def test_a_store_that_fails_is_counted_and_stops_only_what_requires_it(
    required: bool, models: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/missing/f.db"

    async def scenario() -> None:
        settings = Settings(models_folder=models, fingerprints_url=url, fingerprints_required=required)
        connected, worker = client(settings)
        made = await connected.post("/v1/generate", json={"count": 1})
        if required:
            assert (made.status_code, made.json()["error"]["code"]) == (503, "fingerprints_unavailable")
            assert int(made.headers["retry-after"]) > 0
        else:
            assert made.status_code == 200
        assert worker.store is not None
        worker.store.close()
        checked = await connected.post("/v1/authenticity", files={"image": ("x.png", columns(10))})
        assert (checked.status_code, checked.json()["evidence"]["provenance"]["match"]) == (200, None)
        # The log is read once when the worker starts, and the check wants to look into it.
        for operation, failures in (("write", 1), ("look_up", 2)):
            name = "verisynth_fingerprint_failures_total"
            assert worker.metrics.registry.get_sample_value(name, {"operation": operation}) == failures

    anyio.run(scenario)


def test_a_store_that_cannot_be_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VerisynthError, match="VERISYNTH_FINGERPRINTS_URL names no database"):
        client(Settings(fingerprints_required=True))
    monkeypatch.setitem(sys.modules, "serving.provenance.fingerprint_store", None)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(VerisynthError, match="install the extra `fingerprints`"):
        client(Settings(fingerprints_url="sqlite:////tmp/f.db"))
