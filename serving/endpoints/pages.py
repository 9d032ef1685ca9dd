"""What people, crawlers and Prometheus read: the page, the interface's description, the metrics."""

from pathlib import Path

import anyio
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from serving.openapi import document
from serving.worker import Worker

WEB = Path(__file__).parents[1] / "web"


async def openapi(_: Request) -> Response:
    """The interface, for programs."""
    return JSONResponse(document())


async def metrics(worker: Worker, _: Request) -> Response:
    """What Prometheus scrapes, of all workers."""
    text = await anyio.to_thread.run_sync(worker.metrics.exposition)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def page(name: str, _: Request) -> Response:
    """A file of `web/`."""
    return FileResponse(WEB / name)
