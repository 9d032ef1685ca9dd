"""The HTTP endpoints, as a Starlette application: read the request, call the runtime, write the answer.

Errors are raised as `Refusal`; limits, request ids and the error envelope are `serving.edge`'s.
"""

import functools
import hashlib
import logging
import math
import reprlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import anyio
import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from contracts.card import card
from contracts.errors import ImageError
from contracts.imaging import DecodedImage, decode
from contracts.statistics import FEATURES
from monitoring.drift import DriftWindow
from monitoring.metrics import Metrics
from serving.formats import FORMATS, Origin
from serving.openapi import document
from serving.refusals import Refusal
from serving.requests import GenerateRequest, read_authenticity, read_generate
from serving.runtime import BATCH_SIZE, EQUAL, Catalogue, Judgement, Look, Model, ModelError, Samples, nearest
from serving.settings import Settings

SMALLEST_BATCH = 8

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Endpoints:
    """The endpoints of one worker process, over the models it has loaded."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.catalogue = Catalogue(settings.models_folder)
        self._windows: dict[str, DriftWindow] = {}

    def application(self) -> Starlette:
        """All routes but BentoML's own `/livez` and `/readyz`."""
        web = Path(__file__).parent / "web"
        return Starlette(
            routes=[
                Route("/", functools.partial(_file, web / "index.html"), methods=["GET"]),
                Route("/docs", functools.partial(_file, web / "docs.html"), methods=["GET"]),
                Route("/openapi.json", self.openapi, methods=["GET"]),
                Route("/metrics", self.expose_metrics, methods=["GET"]),
                Route("/v1/models", self.list_models, methods=["GET"]),
                Route("/v1/models/{name}", self.show_model, methods=["GET"]),
                Route("/v1/models/{name}/card", self.show_card, methods=["GET"]),
                Route("/v1/generate", self.generate, methods=["POST"]),
                Route("/v1/authenticity", self.authenticity, methods=["POST"]),
                Mount("/web", StaticFiles(directory=web)),
            ]
        )

    def load(self) -> None:
        """Load, check and warm all models; blocks until they are ready."""
        self.catalogue = Catalogue.load(self.settings.models_folder, self.settings.require_gpu)
        self.metrics.refused_releases.set(len(self.catalogue.refused))
        for model in self.catalogue.models.values():
            self.metrics.announce(model.name, model.version, model.provider, FEATURES)
            self._windows[model.name] = DriftWindow(model.reference, self.settings.drift_window)

    @functools.cached_property
    def _threads(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self.settings.threads)

    @functools.cached_property
    def _places(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self.settings.maximum_requests)

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(document())

    async def expose_metrics(self, _: Request) -> Response:
        text = await anyio.to_thread.run_sync(self.metrics.exposition)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def list_models(self, _: Request) -> Response:
        models = [_description(model) for model in self.catalogue.models.values()]
        return JSONResponse({"models": models, "refused": self.catalogue.refused})

    async def show_model(self, request: Request) -> Response:
        return JSONResponse(_description(self._model(request.path_params["name"])))

    async def show_card(self, request: Request) -> Response:
        """The model card as Markdown."""
        model = self._model(request.path_params["name"])
        return Response(card(model.release.manifest), media_type="text/markdown")

    async def generate(self, request: Request) -> Response:
        """Synthetic images in the format asked for."""
        async with self._admitted():
            wanted = await read_generate(request)
            model = self._model(wanted.model)
            balance = _balance(model, wanted)
            seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
            parts = await self._batches(model, seed, wanted)
            origin = Origin(model.name, model.version, seed, float(wanted.truncation), wanted.label, balance)
            form = FORMATS[wanted.format]
            body = await self._in_thread(lambda: form.write(Samples.joined(parts), origin))
        self.metrics.generated_images.labels(model.name).inc(wanted.count)
        headers = {
            "X-Verisynth-Model": model.name,
            "X-Verisynth-Version": model.version,
            "X-Verisynth-Seed": str(seed),
            "Content-Disposition": f'attachment; filename="{model.name}-{seed}.{form.extension}"',
        }
        return Response(body, media_type=form.media_type, headers=headers)

    async def authenticity(self, request: Request) -> Response:
        """A verdict on one uploaded image, with its evidence, by the model named or the one whose kind of image it is.

        Without a name every model looks at the image once; only the answering model's look is counted.
        """
        async with self._admitted():
            wanted = await read_authenticity(request)
            models = self._models(wanted.model)
            decoded, digest = await self._in_thread(lambda: self._decode(wanted.image))
            if wanted.model is None and len(models) > 1:
                models, timed = await self._look_around(models, decoded.pixels)
            else:
                timed = [await self._in_thread(lambda: _look(models[0], decoded.pixels))]
            looks = [look for look, _ in timed]
            chosen = nearest(models, looks)
            model = models[chosen]
            judgement = await self._in_thread(lambda: model.conclude(looks[chosen]))
        self.metrics.inference_seconds.labels(model.name, "judge").observe(timed[chosen][1])
        typicalities = {model.name: look.typicality for model, look in zip(models, looks, strict=True)}
        # The client need not wait for what its image adds to counts and drift.
        after = BackgroundTask(self._record, model, judgement)
        return JSONResponse(_verdict(model, decoded, judgement, typicalities, digest), background=after)

    async def _look_around(
        self, models: list[Model], pixels: np.ndarray
    ) -> tuple[list[Model], list[tuple[Look, float]]]:
        """The looks of all models that do not break, and these models: one broken model spoils no check."""

        def attempt(model: Model) -> tuple[Look, float] | None:
            try:
                return _look(model, pixels)
            except ModelError:
                logger.exception("%s cannot look at an image; the other models answer", model.name)
                return None

        found = await self._side_by_side([functools.partial(attempt, model) for model in models])
        able = [(model, timed) for model, timed in zip(models, found, strict=True) if timed is not None]
        if not able:
            raise Refusal("model_failure", f"none of {', '.join(model.name for model in models)} can look at the image")
        return [model for model, _ in able], [timed for _, timed in able]

    async def _batches(self, model: Model, seed: int, wanted: GenerateRequest) -> list[Samples]:
        """All images asked for, in batches side by side."""
        batch = min(BATCH_SIZE, max(SMALLEST_BATCH, math.ceil(wanted.count / self.settings.threads)))
        return await self._side_by_side(
            [
                functools.partial(self._generate, model, seed, start, min(batch, wanted.count - start), wanted)
                for start in range(0, wanted.count, batch)
            ]
        )

    async def _side_by_side(self, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """The answers of all calls, in order, each made in a thread; a timed-out request ends after those in hand."""
        answers: dict[int, Answer] = {}

        async def run(position: int, call: Callable[[], Answer]) -> None:
            answers[position] = await self._in_thread(call)

        try:
            async with anyio.create_task_group() as group:
                for position, call in enumerate(calls):
                    group.start_soon(run, position, call)
        except* Refusal as refused:
            raise refused.exceptions[0] from None
        return [answers[position] for position in range(len(calls))]

    def _generate(self, model: Model, seed: int, start: int, count: int, wanted: GenerateRequest) -> Samples:
        with self.metrics.inference_seconds.labels(model.name, "generate").time():
            return model.generate(seed, start, count, wanted.truncation, wanted.label, wanted.balance or EQUAL)

    def _decode(self, data: bytes) -> tuple[DecodedImage, str]:
        try:
            decoded = decode(data, self.settings.decode_limits)
        except ImageError as error:
            raise Refusal(error.code, str(error)) from error
        return decoded, hashlib.sha256(data).hexdigest()

    async def _record(self, model: Model, judgement: Judgement) -> None:
        self.metrics.authenticity_checks.labels(model.name, judgement.verdict).inc()
        self.metrics.synthetic_probability.labels(model.name).observe(judgement.synthetic_probability)
        window = self._windows[model.name]
        window.add(judgement.tiles[len(judgement.tiles) // 2])
        if window.due:
            for feature, index in window.drift().items():
                self.metrics.input_drift.labels(model.name, feature).set(index)

    def _models(self, name: str | None) -> list[Model]:
        """The model named, or all."""
        if name is None and self.catalogue.models:
            return list(self.catalogue.models.values())
        return [self._model(name)]

    def _model(self, name: str | None) -> Model:
        models, refused = self.catalogue.models, self.catalogue.refused
        if self.catalogue.obstacle:
            raise Refusal("not_ready", self.catalogue.obstacle)
        if name is None:
            if len(models) > 1:
                raise Refusal("model_required", f"several models are served; name one of {', '.join(models)}")
            return next(iter(models.values()))
        if name in refused:
            raise Refusal("model_refused", f"{name} is not served: {refused[name]}")
        if name not in models:
            raise Refusal(
                "unknown_model", f"there is no model {reprlib.repr(name)}; the models are {', '.join(models)}"
            )
        return models[name]

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock as error:
            raise Refusal(
                "overloaded", f"{self.settings.maximum_requests} requests are already being answered; try again"
            ) from error
        try:
            yield
        finally:
            self._places.release()

    async def _in_thread(self, call: Callable[[], Answer]) -> Answer:
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._threads)
        except ModelError as error:
            logger.exception("a model failed")
            raise Refusal("model_failure", str(error)) from error


async def _file(path: Path, _: Request) -> Response:
    return FileResponse(path)


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


def _description(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "provider": model.provider,
        "manifest": model.release.manifest,
    }


def _look(model: Model, pixels: np.ndarray) -> tuple[Look, float]:
    """A model's look, and the seconds it took."""
    started = perf_counter()
    look = model.look(pixels)
    return look, perf_counter() - started


def _verdict(
    model: Model, decoded: DecodedImage, judgement: Judgement, typicalities: dict[str, float], digest: str
) -> dict[str, Any]:
    thresholds = model.release.thresholds
    height, width = decoded.pixels.shape[:2]
    return {
        "model": model.name,
        "model_version": model.version,
        "verdict": judgement.verdict,
        "synthetic_probability": judgement.synthetic_probability,
        "thresholds": {
            "real": thresholds.real,
            "synthetic": thresholds.synthetic,
            "typicality": thresholds.typicality,
        },
        "evidence": {
            "detector": {
                "kind": model.release.manifest["detector"]["kind"],
                "tiles": len(judgement.tiles),
                "heatmap": None if judgement.heatmap is None else _rounded(judgement.heatmap),
            },
            "typicality": judgement.typicality,
            "typicalities": typicalities,
            "provenance": None,
        },
        "image": {"format": decoded.format, "width": width, "height": height, "sha256": digest},
    }


def _rounded(heatmap: np.ndarray) -> list[list[float]]:
    values: list[list[float]] = np.round(heatmap.astype(np.float64), 4).tolist()
    return values
