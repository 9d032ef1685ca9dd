"""`POST /v1/authenticity`: where an uploaded image comes from, as far as can be told."""

import hashlib

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.access.audit import work_of
from serving.checks import check, count
from serving.requests import read_authenticity
from serving.worker import Worker

QUICKLY_HASHED_BYTES = 2**16
"""A hash of so many takes less than handing them to a thread."""


async def authenticity(worker: Worker, request: Request) -> Response:
    """A verdict on one uploaded image, with its evidence, by the model named or the one whose kind of image it is.

    Without a name every model looks at the image once; only the answering model's look is counted.
    """
    worker.check_places()
    wanted = await read_authenticity(request)
    async with worker.admitted():
        work = work_of(request.scope)
        # The audit log tells of these bytes whatever is refused next, an unknown model too.
        work.sha256 = await _sha256(worker, wanted.image)
        catalogue = worker.catalogue
        found = await check(worker, wanted.image, catalogue, catalogue.all_or(wanted.model), work)
    # The client need not wait for what its image adds to counts and drift.
    return JSONResponse(found.document(), background=BackgroundTask(count, worker, found))


async def _sha256(worker: Worker, data: bytes) -> str:
    if len(data) <= QUICKLY_HASHED_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await worker.in_thread(lambda: hashlib.sha256(data).hexdigest())
