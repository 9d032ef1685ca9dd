"""`POST /v1/generate`: synthetic images in the format asked for, sent while they are made; and painted ones, too."""

import functools
import math
import reprlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from contracts.balances import EQUAL
from contracts.claims import Origin
from serving.access.audit import Work, work_of
from serving.formats import FORMATS, Writer
from serving.provenance.fingerprints import StoreError, fingerprints
from serving.refusals import Refusal
from serving.requests import GenerateRequest, read_generate
from serving.runtime import BATCH_SIZE, CPU, Model, Samples
from serving.streams import Emit, Stream, in_order
from serving.worker import Worker

if TYPE_CHECKING:
    from serving.provenance.fingerprint_store import FingerprintStore

SMALLEST_BATCH = 8
# Computing takes many times the memory of the pixels. On a processor, half as many are no slower (measured: faster).
PROCESSOR_BATCH_SIZE = BATCH_SIZE // 2
# Pixels of one batch: batches of large images are smaller, so that memory is the same.
BATCH_BYTES = 2**20

Draw = Callable[[int, int], Samples]
"""From the index of the first image and their number to the images."""


async def generate(worker: Worker, request: Request) -> Response:
    """Synthetic images in the format asked for."""
    worker.check_places()
    wanted = await read_generate(request)
    model = worker.model(wanted.model)
    work_of(request.scope).model = model.name
    balance = _balance(model, wanted)
    origin = Origin(model.name, model.version, seed_of(wanted), float(wanted.truncation), wanted.label, balance)

    def draw(start: int, count: int) -> Samples:
        with worker.metrics.inference_seconds.labels(model.name, "generate").time():
            label, drawn = wanted.label, wanted.balance or EQUAL
            return model.generate(origin.seed, start, count, wanted.truncation, label, drawn)

    return answer(worker, model, wanted, origin, draw, work_of(request.scope))


def seed_of(wanted: GenerateRequest) -> int:
    """The seed asked for, or a random one."""
    return secrets.randbits(32) if wanted.seed is None else wanted.seed


def answer(worker: Worker, model: Model, wanted: GenerateRequest, origin: Origin, draw: Draw, work: Work) -> Response:
    """The images of `origin` that are wanted, drawn in batches and sent in their format, written down and counted."""
    work.count = wanted.count
    form = FORMATS[wanted.format]
    headers = {
        "X-Verisynth-Model": origin.model,
        "X-Verisynth-Version": origin.version,
        "X-Verisynth-Seed": str(origin.seed),
        "Content-Disposition": f'attachment; filename="{_file_name(origin, wanted.start)}.{form.extension}"',
    }

    async def write(emit: Emit) -> None:
        async with worker.admitted():
            with form(origin, worker.signing, wanted.start, wanted.count) as writer:
                await _Generation(worker, model, origin, wanted, draw, writer, work, emit).run()

    return Stream(write, form.media_type, headers)


@dataclass(frozen=True)
class _Batch:
    """Consecutive images as their writer wants them; `fingerprints` uint64 [N, 2] where they are kept."""

    start: int
    count: int
    prepared: Any
    fingerprints: np.ndarray | None


@dataclass
class _Generation:
    """One answer while it is made: batches side by side and a little ahead of what the client takes."""

    worker: Worker
    model: Model
    origin: Origin
    wanted: GenerateRequest
    draw: Draw
    writer: Writer[Any]
    work: Work
    emit: Emit
    _unsent: int = 0
    _fingerprints: list[np.ndarray] = field(default_factory=list)

    async def run(self) -> None:
        worker = self.worker
        try:
            calls = [
                functools.partial(worker.in_thread, functools.partial(self._batch, start, count))
                for start, count in _batches(self.wanted, self.model, worker.settings.threads)
            ]
            await in_order(calls, worker.ahead, self._send)
            pieces = self.writer.finish()
            while piece := await worker.in_thread(lambda: next(pieces, b"")):
                await self.emit(piece)
            self._count()
        finally:
            self._remember_later()

    def _batch(self, start: int, count: int) -> _Batch:
        samples = self.draw(start, count)
        words = None if self.worker.store is None else fingerprints(samples.images)
        return _Batch(start, count, self.writer.prepare(samples), words)

    async def _send(self, batch: _Batch) -> None:
        # Not in the threads that compute: it would wait behind the batches that follow it.
        piece = await anyio.to_thread.run_sync(self._written, batch)
        self._unsent += batch.count
        if piece:
            await self.emit(piece)
            self._count()

    def _written(self, batch: _Batch) -> bytes:
        """What follows of the answer; where fingerprints must be kept, those of the batch are by then."""
        if self.worker.store is not None and batch.fingerprints is not None:
            if self.worker.settings.fingerprints_required:
                _remember(self.worker, self.worker.store, self.origin, batch.fingerprints, batch.start)
            else:
                self._fingerprints.append(batch.fingerprints)
        return self.writer.add(batch.prepared)

    def _count(self) -> None:
        """Count the images whose bytes were taken."""
        self.work.sent += self._unsent
        self.worker.metrics.generated_images.labels(self.model.name).inc(self._unsent)
        self._unsent = 0

    def _remember_later(self) -> None:
        """Write down what nobody need wait for, in one row for all that was sent, whole or not."""
        if self.worker.store is not None and self._fingerprints:
            failed = functools.partial(self.worker.count_failure, "write")
            words = np.concatenate(self._fingerprints)
            self.worker.store.remember_later(self.origin, words, self.wanted.start, failed)


def _batches(wanted: GenerateRequest, model: Model, threads: int) -> list[tuple[int, int]]:
    """All images asked for as (start, count), in batches that keep all threads at work.

    Where there are more batches than threads the first is a quarter of one: the answer begins that much sooner.
    """
    image = model.release.image
    size = PROCESSOR_BATCH_SIZE if model.provider == CPU else BATCH_SIZE
    most = max(1, min(size, BATCH_BYTES // (image.size**2 * image.channels)))
    batch = min(most, max(SMALLEST_BATCH, math.ceil(wanted.count / threads)))
    first = max(1, batch // 4) if wanted.count > threads * batch else min(batch, wanted.count)
    end = wanted.start + wanted.count
    rest = range(wanted.start + first, end, batch)
    return [(wanted.start, first), *((start, min(batch, end - start)) for start in rest)]


def _remember(worker: Worker, store: "FingerprintStore", origin: Origin, words: np.ndarray, start: int) -> None:
    """Write the fingerprints uint64 [N, 2] of consecutive images down.

    Raises:
        Refusal: `fingerprints_unavailable`.
    """
    try:
        store.remember(origin, words, start)
    except StoreError as error:
        worker.count_failure("write", error)
        raise Refusal(
            "fingerprints_unavailable", "the fingerprints of the images could not be written down; try again later"
        ) from error


def _balance(model: Model, wanted: GenerateRequest) -> str | None:
    """How often each label is drawn; None where there are no labels, or a single one is wanted.

    Raises:
        Refusal: `unknown_label`, or `invalid_request` for a balance of labels that the model does not have.
    """
    labels = model.release.labels
    if wanted.label is not None and wanted.label not in labels:
        offer = f"its labels are {', '.join(labels)}" if labels else "it is not conditional; leave label out"
        raise Refusal("unknown_label", f"{model.name} knows no label {reprlib.repr(wanted.label)}; {offer}")
    if wanted.balance is not None and not labels:
        raise Refusal(
            "invalid_request", f"balance is {wanted.balance!r}, and {model.name} is not conditional; leave balance out"
        )
    return (wanted.balance or EQUAL) if labels and wanted.label is None else None


def _file_name(origin: Origin, start: int) -> str:
    """Without its extension; parts of one sequence bear different names, and so do images on different masks."""
    painted = f"-mask-{origin.mask_sha256[:8]}" if origin.mask_sha256 is not None else ""
    name = f"{origin.model}{painted}-{origin.seed}"
    return f"{name}-{start}" if start else name
