"""`GET /v1/models`: what is served, of what, how good."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contracts.card import card
from serving.runtime import Model
from serving.worker import Worker


async def list_models(worker: Worker, _: Request) -> Response:
    """All of them, and why others are refused."""
    catalogue = worker.catalogue
    models = [_description(model) for model in catalogue.models.values()]
    return JSONResponse({"models": models, "refused": catalogue.refused})


async def show_model(worker: Worker, request: Request) -> Response:
    """One, with its manifest."""
    return JSONResponse(_description(worker.model(request.path_params["name"])))


async def show_card(worker: Worker, request: Request) -> Response:
    """The model card as Markdown."""
    model = worker.model(request.path_params["name"])
    return Response(card(model.release.manifest), media_type="text/markdown")


def _description(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "provider": model.provider,
        "manifest": model.release.manifest,
    }
