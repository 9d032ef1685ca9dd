"""The table of routes: what answers at which path.

Errors are raised as `Refusal`; limits, request ids and the error envelope are `serving.edge`'s. Who may ask is told by
`serving.access.gate`, what may be asked and answered by `serving.openapi`; tests hold the three together.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving.endpoints import admin, pages
from serving.endpoints.authenticity import authenticity
from serving.endpoints.batch import check_batch
from serving.endpoints.collections import list_collections, list_records, send_file, show_collection, show_picture
from serving.endpoints.generation import generate
from serving.endpoints.models import list_models, show_card, show_model
from serving.endpoints.painting import paint
from serving.worker import Worker

COLLECTION = "/v1/collections/{name}/{version}"

Endpoint = Callable[[Request], Awaitable[Response]]


def application(worker: Worker) -> Starlette:
    """All routes but BentoML's own `/livez` and `/readyz`."""

    def get(path: str, endpoint: Endpoint) -> Route:
        return Route(path, endpoint, methods=["GET"])

    def post(path: str, endpoint: Endpoint) -> Route:
        return Route(path, endpoint, methods=["POST"])

    return Starlette(
        routes=[
            get("/", partial(pages.page, "index.html")),
            get("/docs", partial(pages.page, "docs.html")),
            get("/openapi.json", pages.openapi),
            get("/metrics", partial(pages.metrics, worker)),
            get("/v1/models", partial(list_models, worker)),
            get("/v1/models/{name}", partial(show_model, worker)),
            get("/v1/models/{name}/card", partial(show_card, worker)),
            post("/v1/generate", partial(generate, worker)),
            post("/v1/paint", partial(paint, worker)),
            post("/v1/authenticity", partial(authenticity, worker)),
            post("/v1/authenticity/batch", partial(check_batch, worker)),
            get("/v1/collections", partial(list_collections, worker)),
            get(COLLECTION, partial(show_collection, worker)),
            get(f"{COLLECTION}/records", partial(list_records, worker)),
            get(f"{COLLECTION}/images/{{page}}/{{file}}", partial(show_picture, worker)),
            get(f"{COLLECTION}/files/{{path:path}}", partial(send_file, worker)),
            get("/v1/admin/models", partial(admin.show_models, worker)),
            post("/v1/admin/reload", partial(admin.reload, worker)),
            post("/v1/admin/models/{name}/rollback", partial(admin.roll_back, worker)),
            Mount("/web", StaticFiles(directory=pages.WEB)),
        ]
    )
