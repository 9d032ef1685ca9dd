"""One check: where an image comes from, as far as a worker can tell; by itself or as one of many."""

import functools
import hashlib
import logging
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import ImageError
from contracts.imaging import DecodedImage, decode
from serving.access.audit import Work
from serving.catalogue import Catalogue
from serving.provenance.evidence import Evidence, confirmed, examine
from serving.provenance.fingerprints import Match, StoreError, fingerprint
from serving.refusals import Refusal
from serving.runtime import Judgement, Look, Model, ModelError, nearest
from serving.worker import Worker

if TYPE_CHECKING:
    from serving.provenance.fingerprint_store import FingerprintStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """What was found out about one image, and the model that answers for it."""

    model: Model
    decoded: DecodedImage
    judgement: Judgement
    typicalities: dict[str, float]
    """Of the image, by every model that looked at it."""
    evidence: Evidence
    sha256: str
    """Of the uploaded bytes."""
    inference_seconds: float

    @property
    def verdict(self) -> str:
        return self.evidence.verdict(self.judgement.verdict)

    def document(self) -> dict[str, Any]:
        """The answer as JSON values."""
        model, judgement = self.model, self.judgement
        thresholds = model.release.thresholds
        height, width = self.decoded.pixels.shape[:2]
        return {
            "model": model.name,
            "model_version": model.version,
            "verdict": self.verdict,
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
                "typicalities": self.typicalities,
                "provenance": self.evidence.document(),
            },
            "image": {"format": self.decoded.format, "width": width, "height": height, "sha256": self.sha256},
        }


async def check(worker: Worker, data: bytes, catalogue: Catalogue, models: list[Model], work: Work) -> Check:
    """Check the bytes of one file by one model of a catalogue, or by the one of several whose kind of image it is.

    Several models look at the image once each, side by side. `work` is told of what is done, as it is done.

    Raises:
        Refusal: for bytes that are no such image, and `model_failure`.
    """
    if len(models) == 1:
        found = await worker.in_thread(lambda: _check_by(worker, data, catalogue, models[0], work))
    else:
        digest, decoded, evidence = await worker.in_thread(lambda: _read(worker, data, catalogue, work))
        models, timed = await _look_around(worker, models, decoded.pixels)
        looks = [look for look, _ in timed]
        chosen = nearest(models, looks)
        judgement = await worker.in_thread(lambda: models[chosen].conclude(looks[chosen]))
        typicalities = {model.name: look.typicality for model, look in zip(models, looks, strict=True)}
        found = Check(models[chosen], decoded, judgement, typicalities, evidence, digest, timed[chosen][1])
    work.model, work.verdict = found.model.name, found.verdict
    worker.metrics.inference_seconds.labels(found.model.name, "judge").observe(found.inference_seconds)
    return found


async def count(worker: Worker, found: Check) -> None:
    """Add a check that was answered to counts and drift."""
    name = found.model.name
    worker.metrics.authenticity_checks.labels(name, found.verdict).inc()
    worker.metrics.provenance_checks.labels(found.evidence.status).inc()
    worker.metrics.synthetic_probability.labels(name).observe(found.judgement.synthetic_probability)
    window = worker.windows.get(found.model)
    if window is None:
        # Another release took its place meanwhile.
        return
    window.add(found.judgement.tiles[len(found.judgement.tiles) // 2])
    if window.due:
        for feature, index in window.drift().items():
            worker.metrics.input_drift.labels(name, feature).set(index)


def _check_by(worker: Worker, data: bytes, catalogue: Catalogue, model: Model, work: Work) -> Check:
    digest, decoded, evidence = _read(worker, data, catalogue, work)
    look, seconds = _look(model, decoded.pixels)
    judgement = model.conclude(look)
    return Check(model, decoded, judgement, {model.name: look.typicality}, evidence, digest, seconds)


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


def _read(worker: Worker, data: bytes, catalogue: Catalogue, work: Work) -> tuple[str, DecodedImage, Evidence]:
    """The hash of the uploaded bytes, the image in them, and what is known of where they come from."""
    work.sha256 = digest = work.sha256 or hashlib.sha256(data).hexdigest()
    try:
        decoded = decode(data, worker.settings.decode_limits)
    except ImageError as error:
        raise Refusal(error.code, str(error)) from error
    evidence = examine(data, decoded.pixels, worker.keyring, catalogue.models)
    if worker.store is not None and not evidence.proves_synthetic:
        evidence = replace(evidence, match=_match(worker, worker.store, catalogue, decoded.pixels))
    return digest, decoded, evidence


def _match(worker: Worker, store: "FingerprintStore", catalogue: Catalogue, pixels: np.ndarray) -> Match | None:
    """The generated image that an upload is like, if any; a store that fails spoils no check."""
    wanted = fingerprint(pixels)
    try:
        match = None if wanted is None else store.nearest(wanted)
    except StoreError as error:
        worker.count_failure("look_up", error)
        return None
    return None if match is None else confirmed(match, pixels, catalogue.models)


def _look(model: Model, pixels: np.ndarray) -> tuple[Look, float]:
    """A model's look, and the seconds it took."""
    started = perf_counter()
    look = model.look(pixels)
    return look, perf_counter() - started


def _rounded(heatmap: np.ndarray) -> list[list[float]]:
    values: list[list[float]] = np.round(heatmap.astype(np.float64), 4).tolist()
    return values
