"""`POST /v1/paint`: photographs painted on a mask that the client drew, so that rare geometry can be asked for."""

import functools
import hashlib
from dataclasses import replace

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from contracts.claims import Origin, pixel_sha256
from contracts.errors import ImageError
from contracts.imaging import decode_drawn_mask
from serving.access.audit import work_of
from serving.endpoints.generation import answer, seed_of
from serving.refusals import Refusal
from serving.requests import read_paint
from serving.runtime import Model, Samples
from serving.worker import Worker


async def paint(worker: Worker, request: Request) -> Response:
    """Photographs on the client's mask, in the format asked for.

    The mask is not in the answer: nothing is claimed of it but that it was the client's, by its hash.
    """
    worker.check_places()
    form = await read_paint(request)
    wanted = form.images
    model = worker.model(wanted.model)
    work = work_of(request.scope)
    work.model = model.name
    async with worker.admitted():
        work.sha256 = await worker.in_thread(lambda: hashlib.sha256(form.mask).hexdigest())
        mask = await worker.in_thread(functools.partial(_mask, worker, model, form.mask))
    digest = pixel_sha256(mask[..., None])
    origin = Origin(model.name, model.version, seed_of(wanted), float(wanted.truncation), None, None, digest)

    def draw(start: int, count: int) -> Samples:
        with worker.metrics.inference_seconds.labels(model.name, "paint").time():
            return replace(model.paint(mask, origin.seed, start, count, wanted.truncation), masks=None)

    return answer(worker, model, wanted, origin, draw, work)


def _mask(worker: Worker, model: Model, data: bytes) -> np.ndarray:
    """The mask in the uploaded bytes, uint8 [H, W] of 0 and 255, of the size that the model paints on.

    Raises:
        Refusal: `no_painter`, `mask_size`, and what `decode_drawn_mask` refuses.
    """
    if not model.paints:
        raise Refusal("no_painter", f"{model.name} does not paint on masks: it learned from images without any")
    try:
        mask = decode_drawn_mask(data, worker.settings.decode_limits)
    except ImageError as error:
        raise Refusal(error.code, str(error)) from error
    size = model.release.image.size
    height, width = mask.shape
    if (height, width) != (size, size):
        raise Refusal(
            "mask_size",
            f"the mask is {width}x{height}, and {model.name} paints {size}x{size}; draw it at that size, "
            "since resizing would change thin shapes",
        )
    return mask
