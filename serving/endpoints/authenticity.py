"""`POST /v1/authenticity`: where an uploaded image comes from, as far as can be told."""

import functools
import hashlib
import logging
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contracts.errors import ImageError
from contracts.imaging import DecodedImage, decode
from serving.access.audit import work_of
from serving.provenance.evidence import Evidence, confirmed, examine
from serving.provenance.fingerprints import Match, StoreError, fingerprint
from serving.refusals import Refusal
from serving.requests import read_authenticity
from serving.runtime import Judgement, Look, Model, ModelError, nearest
from serving.worker import Worker

if TYPE_CHECKING:
    from serving.provenance.fingerprint_store import FingerprintStore

logger = logging.getLogger(__name__)


async def authenticity(worker: Worker, request: Request) -> Response:
    """A verdict on one uploaded image, with its evidence, by the model named or the one whose kind of image it is.

    Without a name every model looks at the image once; only the answering model's look is counted.
    """
    worker.check_places()
    wanted = await read_authenticity(request)
    work = work_of(request.scope)
    async with worker.admitted():
        work.sha256 = digest = await worker.in_thread(lambda: hashlib.sha256(wanted.image).hexdigest())
        models = worker.models(wanted.model)
        decoded, evidence = await worker.in_thread(lambda: _read(worker, wanted.image))
        if wanted.model is None and len(models) > 1:
            models, timed = await _look_around(worker, models, decoded.pixels)
        else:
            timed = [await worker.in_thread(lambda: _look(models[0], decoded.pixels))]
        looks = [look for look, _ in timed]
        chosen = nearest(models, looks)
        model = models[chosen]
        judgement = await worker.in_thread(lambda: model.conclude(looks[chosen]))
    work.model, work.verdict = model.name, judgement.verdict
    worker.metrics.inference_seconds.labels(model.name, "judge").observe(timed[chosen][1])
    typicalities = {model.name: look.typicality for model, look in zip(models, looks, strict=True)}
    # The client need not wait for what its image adds to counts and drift.
    after = BackgroundTask(_record, worker, model, judgement, evidence)
    return JSONResponse(_verdict(model, decoded, judgement, typicalities, evidence, digest), background=after)


async def _look_around(
    worker: Worker, models: list[Model], pixels: np.ndarray
) -> tuple[list[Model], list[tuple[Look, float]]]:
    """The looks of all models that do not break, and these models: one broken model spoils no check."""

    def attempt(model: Model) -> tuple[Look, float] | None:
        try:
            return _look(model, pixels)
        except ModelError:
            logger.exception("%s cannot look at an image; the other models answer", model.name)
            return None

    found = await worker.side_by_side([functools.partial(attempt, model) for model in models])
    able = [(model, timed) for model, timed in zip(models, found, strict=True) if timed is not None]
    if not able:
        raise Refusal("model_failure", f"none of {', '.join(model.name for model in models)} can look at the image")
    return [model for model, _ in able], [timed for _, timed in able]


def _read(worker: Worker, data: bytes) -> tuple[DecodedImage, Evidence]:
    """The image in the uploaded bytes, and what is known of where they come from."""
    try:
        decoded = decode(data, worker.settings.decode_limits)
    except ImageError as error:
        raise Refusal(error.code, str(error)) from error
    evidence = examine(data, decoded.pixels, worker.keyring, worker.catalogue.models)
    if worker.store is not None and not evidence.proves_synthetic:
        evidence = replace(evidence, match=_match(worker, worker.store, decoded.pixels))
    return decoded, evidence


def _match(worker: Worker, store: "FingerprintStore", pixels: np.ndarray) -> Match | None:
    """The generated image that an upload is like, if any; a store that fails spoils no check."""
    wanted = fingerprint(pixels)
    try:
        match = None if wanted is None else store.nearest(wanted)
    except StoreError as error:
        worker.count_failure("look_up", error)
        return None
    return None if match is None else confirmed(match, pixels, worker.catalogue.models)


async def _record(worker: Worker, model: Model, judgement: Judgement, evidence: Evidence) -> None:
    worker.metrics.authenticity_checks.labels(model.name, evidence.verdict(judgement.verdict)).inc()
    worker.metrics.provenance_checks.labels(evidence.status).inc()
    worker.metrics.synthetic_probability.labels(model.name).observe(judgement.synthetic_probability)
    window = worker.windows[model.name]
    window.add(judgement.tiles[len(judgement.tiles) // 2])
    if window.due:
        for feature, index in window.drift().items():
            worker.metrics.input_drift.labels(model.name, feature).set(index)


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
