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
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

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
from contracts.errors import ImageError, VerisynthError
from contracts.imaging import DecodedImage, decode
from contracts.statistics import FEATURES
from monitoring.drift import DriftWindow
from monitoring.metrics import Metrics
from serving.audit import work_of
from serving.evidence import Evidence, confirmed, examine
from serving.fingerprints import Match, StoreError, fingerprint, fingerprints
from serving.formats import FORMATS, Signing
from serving.openapi import document
from serving.provenance import STATUSES, Keyring, Origin
from serving.refusals import Refusal
from serving.requests import GenerateRequest, read_authenticity, read_generate
from serving.runtime import BATCH_SIZE, EQUAL, Catalogue, Judgement, Look, Model, ModelError, Samples, nearest
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.credentials import Credentials
    from serving.fingerprint_store import FingerprintStore

SMALLEST_BATCH = 8

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Endpoints:
    """The endpoints of one worker process, over the models it has loaded."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Read the keys that `settings` names; no database is connected yet.

        Raises:
            VerisynthError: for keys that cannot be read, or a database of fingerprints that cannot be used.
        """
        self.settings = settings
        self.metrics = metrics
        self.catalogue = Catalogue(settings.models_folder)
        self.keyring = Keyring.load(settings.signing_key_file, settings.trusted_keys_folder)
        self.signing = Signing(self.keyring, _credentials(settings))
        self.store = _store(settings)
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
        if self.store is not None:
            self.store.read_later(functools.partial(self._count_failure, "look_up"))
        for status in STATUSES:
            self.metrics.provenance_checks.labels(status)
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
        self._check_places()
        wanted = await read_generate(request)
        async with self._admitted():
            model = self._model(wanted.model)
            work_of(request).model, work_of(request).count = model.name, wanted.count
            balance = _balance(model, wanted)
            seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
            parts = await self._batches(model, seed, wanted)
            origin = Origin(model.name, model.version, seed, float(wanted.truncation), wanted.label, balance)
            form = FORMATS[wanted.format]
            samples = Samples.joined(parts)
            body = await self._in_thread(lambda: form.write(samples, origin, self.signing))
            if self.store is not None:
                await self._in_thread(functools.partial(self._remember, self.store, origin, samples))
        self.metrics.generated_images.labels(model.name).inc(wanted.count)
        headers = {
            "X-Verisynth-Model": model.name,
            "X-Verisynth-Version": model.version,
            "X-Verisynth-Seed": str(seed),
            "Content-Disposition": f'attachment; filename="{_file_name(origin, wanted.start)}.{form.extension}"',
        }
        return Response(body, media_type=form.media_type, headers=headers)

    async def authenticity(self, request: Request) -> Response:
        """A verdict on one uploaded image, with its evidence, by the model named or the one whose kind of image it is.

        Without a name every model looks at the image once; only the answering model's look is counted.
        """
        self._check_places()
        wanted = await read_authenticity(request)
        work = work_of(request)
        async with self._admitted():
            work.sha256 = digest = await self._in_thread(lambda: hashlib.sha256(wanted.image).hexdigest())
            models = self._models(wanted.model)
            decoded, evidence = await self._in_thread(lambda: self._read(wanted.image))
            if wanted.model is None and len(models) > 1:
                models, timed = await self._look_around(models, decoded.pixels)
            else:
                timed = [await self._in_thread(lambda: _look(models[0], decoded.pixels))]
            looks = [look for look, _ in timed]
            chosen = nearest(models, looks)
            model = models[chosen]
            judgement = await self._in_thread(lambda: model.conclude(looks[chosen]))
        work.model, work.verdict = model.name, judgement.verdict
        self.metrics.inference_seconds.labels(model.name, "judge").observe(timed[chosen][1])
        typicalities = {model.name: look.typicality for model, look in zip(models, looks, strict=True)}
        # The client need not wait for what its image adds to counts and drift.
        after = BackgroundTask(self._record, model, judgement, evidence)
        return JSONResponse(_verdict(model, decoded, judgement, typicalities, evidence, digest), background=after)

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
        end = wanted.start + wanted.count
        return await self._side_by_side(
            [
                functools.partial(self._generate, model, seed, start, min(batch, end - start), wanted)
                for start in range(wanted.start, end, batch)
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

    def _read(self, data: bytes) -> tuple[DecodedImage, Evidence]:
        """The image in the uploaded bytes, and what is known of where they come from."""
        try:
            decoded = decode(data, self.settings.decode_limits)
        except ImageError as error:
            raise Refusal(error.code, str(error)) from error
        evidence = examine(data, decoded.pixels, self.keyring, self.catalogue.models)
        if self.store is not None and not evidence.proves_synthetic:
            evidence = replace(evidence, match=self._match(self.store, decoded.pixels))
        return decoded, evidence

    def _remember(self, store: "FingerprintStore", origin: Origin, samples: Samples) -> None:
        """Write the fingerprints of the images down: before they are answered where that is required, else meanwhile.

        Raises:
            Refusal: `fingerprints_unavailable`, where it is required.
        """
        words = fingerprints(samples.images)
        if not self.settings.fingerprints_required:
            store.remember_later(origin, words, samples.start, functools.partial(self._count_failure, "write"))
            return
        try:
            store.remember(origin, words, samples.start)
        except StoreError as error:
            self._count_failure("write", error)
            raise Refusal(
                "fingerprints_unavailable", "the fingerprints of the images could not be written down; try again later"
            ) from error

    def _match(self, store: "FingerprintStore", pixels: np.ndarray) -> Match | None:
        """The generated image that an upload is like, if any; a store that fails spoils no check."""
        wanted = fingerprint(pixels)
        try:
            match = None if wanted is None else store.nearest(wanted)
        except StoreError as error:
            self._count_failure("look_up", error)
            return None
        return None if match is None else confirmed(match, pixels, self.catalogue.models)

    def _count_failure(self, operation: str, error: StoreError) -> None:
        logger.warning("fingerprints, %s: %s", operation, error)
        self.metrics.fingerprint_failures.labels(operation).inc()

    async def _record(self, model: Model, judgement: Judgement, evidence: Evidence) -> None:
        self.metrics.authenticity_checks.labels(model.name, evidence.verdict(judgement.verdict)).inc()
        self.metrics.provenance_checks.labels(evidence.status).inc()
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

    def _check_places(self) -> None:
        """Refuse before the body is read where it would be read in vain."""
        if self._places.available_tokens < 1:
            raise self._overloaded()

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """A place among the requests in hand, taken when the body is there: who sends slowly holds none."""
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock as error:
            raise self._overloaded() from error
        try:
            yield
        finally:
            self._places.release()

    def _overloaded(self) -> Refusal:
        return Refusal("overloaded", f"{self.settings.maximum_requests} requests are already being answered; try again")

    async def _in_thread(self, call: Callable[[], Answer]) -> Answer:
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._threads)
        except ModelError as error:
            logger.exception("a model failed")
            raise Refusal("model_failure", str(error)) from error


def _credentials(settings: Settings) -> "Credentials | None":
    """The Content Credentials that `settings` names; their library is an extra, and imported only here."""
    certificates_file, key_file = settings.c2pa_certificates_file, settings.c2pa_key_file
    if certificates_file is None and key_file is None:
        return None
    if certificates_file is None or key_file is None:
        raise VerisynthError("VERISYNTH_C2PA_CERTIFICATES_FILE and VERISYNTH_C2PA_KEY_FILE go together; name both")
    try:
        from serving.credentials import Credentials
    except ModuleNotFoundError as error:
        raise VerisynthError(
            f"VERISYNTH_C2PA_CERTIFICATES_FILE is set, and {error.name} is not installed; install the extra `c2pa`"
        ) from error
    return Credentials.load(certificates_file, key_file)


def _store(settings: Settings) -> "FingerprintStore | None":
    """The store that `settings` names; its library is an extra, and imported only here."""
    if not settings.fingerprints_url:
        if settings.fingerprints_required:
            raise VerisynthError(
                "VERISYNTH_FINGERPRINTS_REQUIRED is true, and VERISYNTH_FINGERPRINTS_URL names no database; name one"
            )
        return None
    try:
        from serving.fingerprint_store import FingerprintStore
    except ModuleNotFoundError as error:
        raise VerisynthError(
            f"VERISYNTH_FINGERPRINTS_URL is set, and {error.name} is not installed; install the extra `fingerprints`"
        ) from error
    return FingerprintStore(settings.fingerprints_url, settings.fingerprints_maximum)


async def _file(path: Path, _: Request) -> Response:
    return FileResponse(path)


def _file_name(origin: Origin, start: int) -> str:
    """Without its extension; parts of one sequence bear different names."""
    name = f"{origin.model}-{origin.seed}"
    return f"{name}-{start}" if start else name


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
    model: Model,
    decoded: DecodedImage,
    judgement: Judgement,
    typicalities: dict[str, float],
    evidence: Evidence,
    digest: str,
) -> dict[str, Any]:
    thresholds = model.release.thresholds
    height, width = decoded.pixels.shape[:2]
    return {
        "model": model.name,
        "model_version": model.version,
        "verdict": evidence.verdict(judgement.verdict),
        "synthetic_probability": judgement.synthetic_probability,
        "thresholds": {
            "real": thresholds.real,
            "synthetic": thresholds.synthetic,
            "typicality": thresholds.typicality,
        },
        "evidence": {
            "detector": {
                "kind": model.release.manifest["detector"]["kind"],
                "verdict": judgement.verdict,
                "tiles": len(judgement.tiles),
                "heatmap": None if judgement.heatmap is None else _rounded(judgement.heatmap),
            },
            "typicality": judgement.typicality,
            "typicalities": typicalities,
            "provenance": evidence.document(),
        },
        "image": {"format": decoded.format, "width": width, "height": height, "sha256": digest},
    }


def _rounded(heatmap: np.ndarray) -> list[list[float]]:
    values: list[list[float]] = np.round(heatmap.astype(np.float64), 4).tolist()
    return values
