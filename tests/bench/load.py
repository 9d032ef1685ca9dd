"""Sixteen clients at once: checks against in-process workers and against `mlflow models serve`; a worker's memory."""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx
import mlflow
import numpy as np
import onnx
import onnxruntime
import psutil

from contracts import imaging
from contracts.manifest import DETECTOR, Release, read_release
from tests.bench.results import MODELS, Result, at_least, at_most
from tests.services import PORT, Service, run, serve
from training.releases.registry import signature

CLIENTS = 16
WORKERS = 2
SECONDS = 10.0
TURNS = 3


def load() -> list[Result]:
    """Checks of one image per second, by the service, by workers of this process, and by MLflow's server."""
    release = read_release(MODELS / "ihc")
    pixels = np.random.default_rng(0).integers(0, 256, (release.image.size, release.image.size, 3), dtype=np.uint8)
    upload = imaging.encode_png(pixels)
    form = httpx.Request("POST", "http://localhost", files={"image": ("i.png", upload), "model": (None, "ihc")})
    check = (form.read(), form.headers["content-type"])
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "home", MODELS) as service:
        pairs = [
            (_per_second(service.url, "/v1/authenticity", *check), _in_process(release, upload)) for _ in range(TURNS)
        ]
        print("checks/s, service and in process:", [tuple(round(one) for one in pair) for pair in pairs])
        with _mlflow_serve(release, Path(folder) / "mlflow") as other:
            question = json.dumps({"inputs": {"image": pixels[None].tolist()}}).encode()
            against = [
                (
                    _per_second(service.url, "/v1/authenticity", *check),
                    _per_second(other.url, "/invocations", question, "application/json"),
                )
                for _ in range(TURNS)
            ]
        print("checks/s, service and MLflow's:", [tuple(round(one) for one in pair) for pair in against])
        peak = _peak_mebibytes(service)
    return [
        at_least("checks at 16 clients / two workers in process", statistics.median(a / b for a, b in pairs), 0.7),
        at_least("checks at 16 clients / mlflow models serve", statistics.median(a / b for a, b in against), 5),
        at_most("peak memory of a worker with every model of models/, MiB", peak, 350),
    ]


def _per_second(url: str, path: str, body: bytes, content_type: str) -> float:
    """Answers per second to sixteen clients, each of which asks again as soon as it has its answer."""
    end = time.perf_counter() + SECONDS

    def ask(_: int) -> int:
        connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
        answered = 0
        while time.perf_counter() < end:
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            answered += 1
        connection.close()
        return answered

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(ask, range(CLIENTS))) / SECONDS


def _in_process(release: Release, upload: bytes) -> float:
    """Checks per second of as many processes as the service has, each with one thread."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS) as pool:
        return sum(pool.starmap(_judge_for_a_while, [(release.folder, upload)] * WORKERS))


def _judge_for_a_while(folder: Path, upload: bytes) -> float:
    release = read_release(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / DETECTOR, options, providers=["CPUExecutionProvider"])

    def judge() -> None:
        session.run(None, {"image": imaging.fit(imaging.decode(upload).pixels, release.image)})

    judge()
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + SECONDS:
        judge()
        count += 1
    return count / (time.perf_counter() - start)


@contextmanager
def _mlflow_serve(release: Release, folder: Path) -> Iterator[Service]:
    """MLflow's own server with as many workers, on the release's detector."""
    mlflow.onnx.save_model(
        onnx.load(release.folder / DETECTOR),
        folder / "model",
        signature=signature(release.manifest["detector"]),
        pip_requirements=[f"mlflow=={mlflow.__version__}"],
    )
    command = ["-m", "mlflow", "models", "serve", "--model-uri", str(folder / "model"), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with run([*command, "--workers", str(WORKERS), "--port", PORT], folder, MODELS, life="/ping", PATH=path) as server:
        workers = psutil.Process(server.process.pid).children(recursive=True)
        try:
            yield server
        finally:
            for worker in workers:  # which would stay without it
                with suppress(psutil.NoSuchProcess):
                    worker.terminate()


def _peak_mebibytes(service: Service) -> float:
    """The most memory that any worker ever had, after large answers of every model too."""
    for release in (read_release(path.parent) for path in sorted(MODELS.glob("*/manifest.json"))):
        for form in ("npz", "zip"):
            order = {"model": release.name, "count": 1024, "format": form}
            with httpx.stream("POST", f"{service.url}/v1/generate", json=order, timeout=600) as answer:
                assert answer.status_code == 200, answer.read()
                for _ in answer.iter_raw():
                    pass
    peaks = []
    for worker in service.workers():
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peaks.append(int(line.split()[1]) / 1024)
    return max(peaks)
