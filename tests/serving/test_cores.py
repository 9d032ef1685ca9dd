"""The rule of cores: what computes at once is workers x threads, however many models are served."""

import threading
from pathlib import Path

import anyio
import pytest
from prometheus_client import CollectorRegistry

from monitoring.metrics import Metrics
from serving.settings import Settings
from serving.worker import Worker
from tests.releases import real_images, write_small_release

TASKS = Path("/proc/self/task")


@pytest.mark.parametrize(
    ("given", "cores", "workers", "threads"),
    [
        ({}, 2, 1, 2),
        ({}, 16, 4, 4),
        ({"workers": 3}, 16, 3, 5),
        ({"workers": 8}, 4, 8, 1),
        ({"workers": 2, "threads": 3}, 16, 2, 3),
    ],
)
def test_cores_are_shared_among_workers(given: dict[str, int], cores: int, workers: int, threads: int) -> None:
    settings = Settings(**given).resolved(cores)  # type: ignore[arg-type]
    assert (settings.workers, settings.threads) == (workers, threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_requests_to_all_models_share_the_threads_of_the_settings(tmp_path: Path, threads: int) -> None:
    for name in ("first", "second", "third"):
        write_small_release(tmp_path / name)
    worker = Worker(Settings(models_folder=tmp_path, threads=threads).resolved(8), Metrics(CollectorRegistry()))
    worker.load()
    running, most = 0, 0
    lock, together = threading.Lock(), threading.Barrier(threads)

    def compute() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # Nobody goes on before all threads are in use.
        together.wait(timeout=30)
        with lock:
            running -= 1

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in worker.catalogue.models:
                group.start_soon(worker.side_by_side, [compute] * 2 * threads)

    anyio.run(scenario)
    assert most == threads


@pytest.mark.skipif(not TASKS.exists(), reason="counts threads as Linux tells them")
def test_models_bring_no_threads_of_their_own(tmp_path: Path) -> None:
    write_small_release(tmp_path / "first")
    worker = Worker(Settings(models_folder=tmp_path).resolved(1), Metrics(CollectorRegistry()))
    worker.load()
    before = len(list(TASKS.iterdir()))
    for name in ("second", "third", "fourth"):
        write_small_release(tmp_path / name)
    worker.follow(everything=True)
    for model in worker.catalogue.models.values():
        model.generate(0, 0, 64)
        model.judge(real_images(1)[0])
    assert len(worker.catalogue.models) == 4
    assert len(list(TASKS.iterdir())) <= before
