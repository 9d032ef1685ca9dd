"""`POST /v1/authenticity/batch`: many files in one request, a line of JSON for each as soon as it is checked.

    {"index": 0, "name": "a.png", "model": "ihc", "verdict": "real", ...}
    {"index": 1, "name": "b.png", "error": {"code": "broken_image", "message": "..."}}
    {"files": 2, "checked": 1, "errors": 1}

The last line says that this was all.
"""

import functools
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serving.access.audit import Work, recorder_of, work_of
from serving.batches import BatchFile, read_batch
from serving.catalogue import Catalogue
from serving.checks import Check, check, count
from serving.refusals import DEFAULT_MESSAGES, Refusal
from serving.runtime import Model
from serving.streams import Emit, Stream, in_order
from serving.uploads import Spool
from serving.worker import Worker

MEDIA_TYPE = "application/x-ndjson"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """What came of one file: a check, or the refusal in its place."""

    work: Work
    found: Check | None = None
    refusal: Refusal | None = None

    @property
    def document(self) -> dict[str, Any]:
        if self.found is not None:
            return self.found.document()
        assert self.refusal is not None
        return {"error": {"code": self.refusal.code, "message": self.refusal.detail}}


async def check_batch(worker: Worker, request: Request) -> Response:
    """A verdict on each of many files, in their order; one that is broken spoils none of the others."""
    worker.check_places()

    async def write(emit: Emit) -> None:
        with Spool() as spool:
            batch = await read_batch(request, spool, worker.settings)
            async with worker.admitted():
                # All files by the same releases, whatever is loaded meanwhile.
                catalogue = worker.catalogue
                models = catalogue.all_or(batch.model)
                work = work_of(request.scope)
                work.model, work.count = models[0].name if batch.model else None, len(batch.files)
                await _answer(
                    worker, request, batch.files, functools.partial(_outcome, worker, catalogue, models), emit
                )

    return Stream(write, MEDIA_TYPE)


async def _answer(
    worker: Worker,
    request: Request,
    files: list[BatchFile],
    outcome_of: Callable[[BatchFile], Awaitable[_Outcome]],
    emit: Emit,
) -> None:
    work, record = work_of(request.scope), recorder_of(request.scope)
    errors = 0

    async def send(outcome: _Outcome) -> None:
        nonlocal errors
        refusal = outcome.refusal
        line = {"index": work.sent, "name": files[work.sent].name} | outcome.document
        await record(*_status(refusal), outcome.work)
        await emit(_line(line))
        if outcome.found is not None:
            await count(worker, outcome.found)
        work.sent += 1
        errors += refusal is not None

    calls = [functools.partial(outcome_of, file) for file in files]
    await in_order(calls, worker.ahead, send)
    await emit(_line({"files": len(files), "checked": len(files) - errors, "errors": errors}))


async def _outcome(worker: Worker, catalogue: Catalogue, models: list[Model], file: BatchFile) -> _Outcome:
    work = Work()
    try:
        data = await worker.in_thread(file.read)
        if not data:
            raise Refusal("invalid_request", "the file is empty")
        return _Outcome(work, found=await check(worker, data, catalogue, models, work))
    except Refusal as refusal:
        return _Outcome(work, refusal=refusal)
    except Exception:
        # Of a single check it would be the whole answer.
        logger.exception("a file of a batch cannot be checked")
        return _Outcome(work, refusal=Refusal("internal_error", DEFAULT_MESSAGES["internal_error"]))


def _status(refusal: Refusal | None) -> tuple[int, str | None]:
    return (200, None) if refusal is None else (refusal.status_code, refusal.code)


def _line(document: dict[str, Any]) -> bytes:
    # Every character beyond ASCII is escaped, line ends too, so that a line is a line.
    return json.dumps(document).encode() + b"\n"
