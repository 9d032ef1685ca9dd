"""Answers that are made while they are sent: in process, and as a real service sends them."""

import io
import json
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry

from contracts.imaging import decode
from monitoring.metrics import Metrics
from serving.access.audit import verify
from serving.access.gate import Gate
from serving.edge import PIECE_BYTES, Edge
from serving.endpoints.generation import PROCESSOR_BATCH_SIZE as BATCH_SIZE
from serving.routes import application
from serving.runtime import ModelError, Samples
from serving.settings import Settings
from serving.worker import Worker
from tests.asgi import Conversation
from tests.releases import write_small_release
from tests.services import Service, serve

MEBIBYTE = 1024**2
LARGEST_WORKER_BYTES = 350 * MEBIBYTE
BATCHES = 6
FIRST = BATCH_SIZE // 4
COUNT = FIRST + (BATCHES - 1) * BATCH_SIZE


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_small_release(tmp_path / "models" / "waves", size=64)
    return tmp_path / "models"


class Counted:
    """A worker behind its edge, one thread, and the batches that its model was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.settings = Settings(threads=1, **settings).resolved(cores=1)
        self.metrics = Metrics(CollectorRegistry())
        self.worker = Worker(self.settings, self.metrics)
        self.worker.load()
        gate = Gate(self.settings)
        gate.load(["127.0.0.1"])
        self.edge = Edge(application(self.worker), self.settings, self.metrics, gate)
        self.starts: list[int] = []
        self.broken_from: int | None = None
        model = self.worker.catalogue.models["waves"]
        generate = model.generate

        def counted(seed: int, start: int, *wanted: Any) -> Samples:
            self.starts.append(start)
            if self.broken_from is not None and start >= self.broken_from:
                raise ModelError("a graph failed")
            return generate(seed, start, *wanted)

        monkeypatch.setattr(model, "generate", counted)

    def ask(self, conversation: Conversation) -> Conversation:
        return anyio.run(conversation.ask, self.edge)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0

    def requests(self, status: int) -> float:
        return self.value("verisynth_requests_total", route="/v1/generate", status=str(status))

    @property
    def generated(self) -> float:
        return self.value("verisynth_generated_images_total", model="waves")


def generation(form: str = "npz", count: int = COUNT, **options: Any) -> Conversation:
    body = json.dumps({"count": count, "seed": 7, "format": form}).encode()
    return Conversation("/v1/generate", body, **options)


def audited(file: Path) -> list[dict[str, Any]]:
    verify([file])
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("form", ["npz", "zip", "dicom"])
def test_images_are_sent_before_the_last_are_made(models: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    service = Counted(monkeypatch, models_folder=models)
    made: list[int] = []
    answered = service.ask(generation(form, on_piece=lambda _: made.append(len(service.starts))))
    assert answered.complete
    # One is sent, and two are made meanwhile.
    assert made[0] <= 3 < BATCHES
    assert service.starts == [0, *range(FIRST, COUNT, BATCH_SIZE)]
    assert service.generated == COUNT
    assert zipfile.ZipFile(io.BytesIO(answered.content)).testzip() is None


def test_a_model_that_fails_in_the_middle_cuts_the_answer_off(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Counted(monkeypatch, models_folder=models, audit_file=tmp_path / "audit.jsonl")
    service.broken_from = FIRST + BATCH_SIZE
    answered = service.ask(generation())
    assert (answered.status, answered.complete) == (200, False)
    assert not zipfile.is_zipfile(io.BytesIO(answered.content))
    assert service.generated == FIRST + BATCH_SIZE
    assert service.requests(200) == service.value("verisynth_cut_answers_total", reason="model_failure") == 1
    before, after = audited(tmp_path / "audit.jsonl")
    assert (before["event"], before["status"], before["code"], before["count"]) == ("request", 200, None, COUNT)
    assert (after["event"], after["status"], after["code"]) == ("cut", 200, "model_failure")
    assert (after["count"], after["request_id"]) == (FIRST + BATCH_SIZE, before["request_id"])


def test_a_model_that_fails_at_once_is_a_refusal(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Counted(monkeypatch, models_folder=models)
    service.broken_from = 0
    answered = service.ask(generation())
    assert (answered.status, answered.complete) == (503, True)
    assert json.loads(answered.content)["error"]["code"] == "model_failure"
    assert service.generated == 0


def test_a_client_that_leaves_ends_the_work(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Counted(monkeypatch, models_folder=models, audit_file=tmp_path / "audit.jsonl", maximum_requests=1)
    answered = service.ask(generation(pieces=3, leaves=True))
    assert answered.status == 200
    assert len(service.starts) < BATCHES
    assert 0 < service.generated < COUNT
    assert service.requests(499) == service.value("verisynth_cut_answers_total", reason="client_closed") == 1
    assert [line["code"] for line in audited(tmp_path / "audit.jsonl")] == [None, "client_closed"]
    # Its place is free.
    assert service.ask(generation(count=1)).complete


def test_a_client_that_leaves_before_the_first_byte_is_no_error(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Counted(monkeypatch, models_folder=models, audit_file=tmp_path / "audit.jsonl")
    service.ask(generation(pieces=-1, leaves=True))
    assert service.requests(499) == 1
    assert service.generated == 0


def test_a_client_that_reads_nothing_is_waited_for_with_little_made_and_then_cut_off(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Counted(monkeypatch, models_folder=models, timeout_seconds=1)
    answered = service.ask(generation(pieces=1))
    assert not answered.complete
    # One was taken, one waits to be, and two are ahead of it.
    assert len(service.starts) == 4
    assert service.value("verisynth_cut_answers_total", reason="timeout") == 1
    assert service.requests(200) == 1


def test_a_client_that_goes_on_reading_has_time(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Counted(monkeypatch, models_folder=models, timeout_seconds=1)
    started = time.monotonic()

    # Four batches, and half of the deadline for each of them.
    answered = service.ask(generation(count=4 * BATCH_SIZE, on_piece=lambda _: time.sleep(0.5)))
    assert time.monotonic() - started > 1
    assert answered.complete


def test_fingerprints_that_are_required_are_written_before_their_images_are_sent(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlalchemy", reason="the store comes with the extra `fingerprints`")
    url = f"sqlite:///{tmp_path}/f.db"
    service = Counted(monkeypatch, models_folder=models, fingerprints_url=url, fingerprints_required=True)
    store = service.worker.store
    assert store is not None
    written: list[int] = []
    remember = store.remember

    def remembered(origin: Any, words: np.ndarray, start: int = 0) -> None:
        remember(origin, words, start)
        written.append(start + len(words))

    monkeypatch.setattr(store, "remember", remembered)
    sent: list[bool] = []

    def on_piece(answer: Conversation) -> None:
        sent.append(len(answer.content) <= written[-1] * 64 * 64 * 3 + PIECE_BYTES)

    assert service.ask(generation(on_piece=on_piece)).complete
    assert all(sent)
    assert written == list(range(FIRST, COUNT + 1, BATCH_SIZE))
    store.close()


def test_an_audit_log_that_cannot_be_written_ends_the_work(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Counted(monkeypatch, models_folder=models, audit_file=tmp_path / "missing" / "audit.jsonl")
    answered = service.ask(generation())
    assert (answered.status, answered.complete) == (503, True)
    assert json.loads(answered.content)["error"]["code"] == "audit_failure"
    assert len(service.starts) < BATCHES


# --- a real service -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = tmp_path_factory.mktemp("models")
    write_small_release(models / "waves", size=64)
    write_small_release(models / "labelled", size=256, labels=("benign", "malignant"), masks=True)
    settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_THREADS": "2", "VERISYNTH_TIMEOUT_SECONDS": "10"}
    with serve(tmp_path_factory.mktemp("home"), models, **settings) as running:
        yield running


def worker_of(service: Service) -> psutil.Process:
    """The one that has loaded the models."""
    children = psutil.Process(service.process.pid).children(recursive=True)
    return max(children, key=lambda process: process.memory_info().rss)


def peak_bytes(process: psutil.Process) -> int:
    """Of resident memory since the process began."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def metric(service: Service, name: str) -> float:
    lines = httpx.get(f"{service.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("form", ["npz", "zip", "dicom", "png"])
def test_the_largest_answers_take_little_memory(streaming: Service, tmp_path: Path, form: str) -> None:
    path = tmp_path / "answer"
    # Pictures of 256 pixels: 256 MB with their masks. Each as a file of its own, or on one sheet, smaller ones will do.
    model = "labelled" if form == "npz" else "waves"
    with streaming.client() as client, path.open("wb") as file:
        request = {"model": model, "count": 1024, "seed": 7, "format": form}
        with client.stream("POST", "/v1/generate", json=request, timeout=120) as answer:
            assert answer.status_code == 200
            for data in answer.iter_bytes():
                file.write(data)
    assert peak_bytes(worker_of(streaming)) < LARGEST_WORKER_BYTES
    if form == "png":
        assert decode(path.read_bytes()).pixels.shape == (32 * 66 + 2, 32 * 66 + 2, 3)
        return
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == {"npz": 4, "zip": 1025, "dicom": 1025}[form]


def connect(service: Service, request: dict[str, Any]) -> socket.socket:
    """A connection that has asked, and reads little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
    body = json.dumps(request).encode()
    head = f"POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    return connection


def await_count(service: Service, name: str, more_than: float) -> None:
    deadline = time.monotonic() + 60
    while metric(service, name) <= more_than:
        assert time.monotonic() < deadline, name
        time.sleep(0.1)


def test_clients_that_leave_or_do_not_read_cost_little(streaming: Service) -> None:
    left, slow = (
        'verisynth_cut_answers_total{reason="client_closed"}',
        'verisynth_cut_answers_total{reason="timeout"}',
    )
    before = {name: metric(streaming, name) for name in (left, slow)}
    made = metric(streaming, "verisynth_generated_images_total")
    request = {"model": "labelled", "count": 1024, "seed": 7}
    connect(streaming, request).close()
    await_count(streaming, left, before[left])
    idle = [connect(streaming, request) for _ in range(20)]
    # They keep nobody waiting.
    assert httpx.post(f"{streaming.url}/v1/generate", json={"model": "waves", "count": 1}, timeout=30).is_success
    await_count(streaming, slow, before[slow] + 19)
    for connection in idle:
        connection.close()
    # Of 21 times 1024.
    assert metric(streaming, "verisynth_generated_images_total") - made < 2048
    assert peak_bytes(worker_of(streaming)) < LARGEST_WORKER_BYTES
