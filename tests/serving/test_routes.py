"""What one worker does under load, in process; `test_service.py` has the answers themselves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from monitoring.metrics import Metrics
from serving.edge import Edge
from serving.routes import Endpoints
from serving.runtime import BATCH_SIZE, Samples
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
