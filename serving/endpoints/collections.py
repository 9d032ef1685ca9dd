"""`GET /v1/collections`: which there are, what is in them page by page, and their files, whole or in ranges."""

import hashlib
import reprlib
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from serving.collections import Collection, Shelf
from serving.refusals import Refusal
from serving.worker import Worker

LONGEST_NUMBER = 9

Answer = TypeVar("Answer")


async def list_collections(worker: Worker, _: Request) -> Response:
    """All of them, in a few words each."""
    shelf = Shelf(worker.settings.collections_folder)
    return JSONResponse({"collections": await worker.in_thread(lambda: [one.summary() for one in shelf.all()])})


async def show_collection(worker: Worker, request: Request) -> Response:
    """One, with its Croissant document, data card and files."""
    return JSONResponse(await _of(worker, request, Collection.description))


async def list_records(worker: Worker, request: Request) -> Response:
    """One page of records, a shard each, with links to image and mask."""
    page = _number("page", request.query_params.get("page", "0"))
    base = request.url.path.removesuffix("/records")

    def link(name: str | None) -> str | None:
        return None if name is None else f"{quote(base)}/images/{page}/{quote(name)}"

    def read(collection: Collection) -> dict[str, object]:
        links = [
            record | {"image_url": link(record["file"]), "mask_url": link(record["mask"])}
            for record in collection.records(page)
        ]
        return {"page": page, "pages": collection.pages, "records": links}

    return JSONResponse(await _of(worker, request, read))


async def show_picture(worker: Worker, request: Request) -> Response:
    """One image or mask, a PNG file out of its shard."""
    page, name = _number("page", request.path_params["page"]), request.path_params["file"]
    data = await _of(worker, request, lambda collection: collection.picture(page, name))
    headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/png", headers=headers)


async def send_file(worker: Worker, request: Request) -> Response:
    """One file as it is, or the ranges of it that are asked for; its ETag is its SHA-256."""
    path = request.path_params["path"]
    place, digest = await _of(worker, request, lambda one: (one.file(path), one.checksums[path]))
    headers = {"ETag": f'"{digest}"'}
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(place, headers=headers, filename=place.name)


async def _of(worker: Worker, request: Request, read: Callable[[Collection], Answer]) -> Answer:
    """What is read, in a thread, of the collection that the path names."""
    shelf, names = Shelf(worker.settings.collections_folder), request.path_params
    return await worker.in_thread(lambda: read(shelf.find(names["name"], names["version"])))


def _is_known(request: Request, etag: str) -> bool:
    """Whether the client has this already, as `If-None-Match` says."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in known or known == ["*"]


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER):
        raise Refusal("invalid_request", f"{name} is {reprlib.repr(text)}; it must be a whole number from 0 on")
    return int(text)
