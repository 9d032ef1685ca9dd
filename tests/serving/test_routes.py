"""What one worker does under load, in process; `test_service.py` has the answers themselves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contracts.imaging import encode_png
from monitoring.metrics import Metrics
from serving.edge import Edge
from serving.routes import Endpoints
from serving.runtime import BATCH_SIZE, Look, ModelError, Samples
from serving.settings import Settings
from tests.releases import write_small_release

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_small_release(tmp_path / "waves")
    return tmp_path


def client(settings: Settings) -> tuple[httpx.AsyncClient, Endpoints]:
    settings = settings.resolved(cores=1)
    metrics = Metrics(CollectorRegistry())
    endpoints = Endpoints(settings, metrics)
    endpoints.load()
    transport = httpx.ASGITransport(Edge(endpoints.application(), settings, metrics))
    return httpx.AsyncClient(transport=transport, base_url="http://service"), endpoints


def test_a_full_worker_refuses_and_recovers(models: Path) -> None:
    async def scenario() -> None:
        connected, _ = client(Settings(models_folder=models, maximum_requests=1))
        begun, finish = anyio.Event(), anyio.Event()
        statuses: list[int] = []

        async def slow_body() -> AsyncIterator[bytes]:
            begun.set()
            await finish.wait()
            yield b'{"count": 1}'

        async def slow_request() -> None:
            answer = await connected.post("/v1/generate", content=slow_body(), headers=JSON)
            statuses.append(answer.status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow_request)
            await begun.wait()
            refused = await connected.post("/v1/generate", json={"count": 1})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            assert (await connected.get("/v1/models")).status_code == 200
            finish.set()
        assert statuses == [200]
        assert (await connected.post("/v1/generate", json={"count": 1})).status_code == 200

    anyio.run(scenario)


def test_a_timed_out_request_ends_its_work_after_the_batch_in_hand(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    async def scenario() -> None:
        connected, endpoints = client(Settings(models_folder=models, timeout_seconds=1, maximum_requests=1))
        model = endpoints.catalogue.models["waves"]
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
        connected, endpoints = client(Settings(models_folder=tmp_path))
        for contrast in (10, 4, 4):
            answer = await connected.post("/v1/authenticity", files={"image": ("x.png", columns(contrast))})
            found = answer.json()
            assert found["model"] == ("narrow" if contrast == 10 else "wide")
            assert found["evidence"]["typicality"] == found["evidence"]["typicalities"][found["model"]]
            assert found["evidence"]["typicalities"] == pytest.approx(
                {"narrow": min(1, contrast / 5), "wide": contrast / 20}
            )
            assert found["thresholds"]["typicality"] == (0.9 if contrast == 10 else 0.02)
        registry = endpoints.metrics.registry
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
        connected, endpoints = client(Settings(models_folder=tmp_path))
        files = {"image": ("x.png", columns(10))}

        def breaking(_: np.ndarray) -> Look:
            raise ModelError("a graph failed")

        monkeypatch.setattr(endpoints.catalogue.models["second"], "look", breaking)
        answer = await connected.post("/v1/authenticity", files=files)
        assert (answer.status_code, answer.json()["model"]) == (200, "first")
        assert set(answer.json()["evidence"]["typicalities"]) == {"first"}
        answer = await connected.post("/v1/authenticity", files=files, data={"model": "second"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failure")
        monkeypatch.setattr(endpoints.catalogue.models["first"], "look", breaking)
        answer = await connected.post("/v1/authenticity", files=files)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failure")
        assert "first, second" in answer.json()["error"]["message"]

    anyio.run(scenario)
