"""`POST /v1/generate`: synthetic images in the format asked for; and what painted images have in common with them."""

import functools
import math
import reprlib
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from contracts.balances import EQUAL
from contracts.claims import Origin
from serving.access.audit import Work, work_of
from serving.formats import FORMATS
from serving.provenance.fingerprints import StoreError, fingerprints
from serving.refusals import Refusal
from serving.requests import GenerateRequest, read_generate
from serving.runtime import BATCH_SIZE, Model, Samples
from serving.worker import Worker

if TYPE_CHECKING:
    from serving.provenance.fingerprint_store import FingerprintStore

SMALLEST_BATCH = 8

Draw = Callable[[int, int], Samples]
"""From the index of the first image and their number to the images."""


async def generate(worker: Worker, request: Request) -> Response:
    """Synthetic images in the format asked for."""
    worker.check_places()
    wanted = await read_generate(request)
    async with worker.admitted():
        model = worker.model(wanted.model)
        work = work_of(request.scope)
        work.model = model.name
        balance = _balance(model, wanted)
        origin = Origin(model.name, model.version, seed_of(wanted), float(wanted.truncation), wanted.label, balance)

        def draw(start: int, count: int) -> Samples:
            with worker.metrics.inference_seconds.labels(model.name, "generate").time():
                label, drawn = wanted.label, wanted.balance or EQUAL
                return model.generate(origin.seed, start, count, wanted.truncation, label, drawn)

        return await answer(worker, wanted, origin, draw, work)


def seed_of(wanted: GenerateRequest) -> int:
    """The seed asked for, or a random one."""
    return secrets.randbits(32) if wanted.seed is None else wanted.seed


async def answer(worker: Worker, wanted: GenerateRequest, origin: Origin, draw: Draw, work: Work) -> Response:
    """The images of `origin` that are wanted, drawn in batches, in their format, written down and counted."""
    form = FORMATS[wanted.format]
    samples = Samples.joined(await _batches(worker, wanted, draw))
    body = await worker.in_thread(lambda: form.write(samples, origin, worker.signing))
    if worker.store is not None:
        await worker.in_thread(functools.partial(_remember, worker, worker.store, origin, samples))
    work.count = wanted.count
    headers = {
        "X-Verisynth-Model": origin.model,
        "X-Verisynth-Version": origin.version,
        "X-Verisynth-Seed": str(origin.seed),
        "Content-Disposition": f'attachment; filename="{_file_name(origin, wanted.start)}.{form.extension}"',
    }
    # What could not be recorded is not handed out, and what follows an answer does not happen.
    after = BackgroundTask(_count, worker, origin.model, wanted.count)
    return Response(body, media_type=form.media_type, headers=headers, background=after)


async def _count(worker: Worker, model: str, count: int) -> None:
    worker.metrics.generated_images.labels(model).inc(count)


async def _batches(worker: Worker, wanted: GenerateRequest, draw: Draw) -> list[Samples]:
    """All images asked for, in batches side by side."""
    batch = min(BATCH_SIZE, max(SMALLEST_BATCH, math.ceil(wanted.count / worker.settings.threads)))
    end = wanted.start + wanted.count
    return await worker.side_by_side(
        [functools.partial(draw, start, min(batch, end - start)) for start in range(wanted.start, end, batch)]
    )


def _remember(worker: Worker, store: "FingerprintStore", origin: Origin, samples: Samples) -> None:
    """Write the fingerprints of the images down: before they are answered where that is required, else meanwhile.

    Raises:
        Refusal: `fingerprints_unavailable`, where it is required.
    """
    words = fingerprints(samples.images)
    if not worker.settings.fingerprints_required:
        store.remember_later(origin, words, samples.start, functools.partial(worker.count_failure, "write"))
        return
    try:
        store.remember(origin, words, samples.start)
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
