"""What a service answers, as values: a model, samples, a verdict. Bytes that are none of them are a `ServiceError`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import httpx
import numpy as np

from contracts.errors import VerisynthError
from contracts.manifest import VERDICTS
from serving.client.connection import ServiceError


@dataclass(frozen=True)
class Model:
    """A model that is served."""

    name: str
    version: str
    provider: str
    """The ONNX Runtime execution provider that runs it."""
    manifest: dict[str, Any]
    """`docs/manifest.md` describes it."""

    @property
    def labels(self) -> list[str]:
        """The names of its labels, by number; empty where it draws none."""
        return list(self.manifest["generator"]["labels"])

    @property
    def has_masks(self) -> bool:
        return "mask" in self.manifest["generator"]["outputs"]

    @property
    def paints(self) -> bool:
        """Whether it paints photographs on masks of one's own."""
        return "painter" in self.manifest


@dataclass(frozen=True)
class Models:
    """All models of a service."""

    served: list[Model]
    refused: dict[str, str]
    """By name the releases that are not served, and why."""


@dataclass(frozen=True)
class Samples:
    """Consecutive images of one sequence, from index `start` on."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    labels: np.ndarray | None
    """int64 [N]: positions in `Model.labels`; None where the model draws none."""
    masks: np.ndarray | None
    """uint8 [N, H, W] of 0 and 255; None where the model draws none."""
    seed: int
    model: str
    version: str
    start: int = 0

    @staticmethod
    def joined(parts: Iterable["Samples"], count: int) -> "Samples":
        """Consecutive parts of `count` images as one; of the parts, one is held at a time.

        Raises:
            VerisynthError: where another model answered in the middle.
        """
        whole: Samples | None = None
        filled = 0
        for part in parts:
            if whole is None:
                whole = part._room_for(count)
            check_same_model((whole.model, whole.version), (part.model, part.version))
            rows = slice(filled, filled + len(part.images))
            for room, array in ((whole.images, part.images), (whole.labels, part.labels), (whole.masks, part.masks)):
                if room is not None and array is not None:
                    room[rows] = array
            filled = rows.stop
        assert whole is not None, "there is at least one part"
        assert filled == count, f"{filled} of {count} images are there"
        return whole

    def _room_for(self, count: int) -> "Samples":
        """Samples like these, `count` of them, not filled yet."""

        def room(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else np.empty((count, *array.shape[1:]), array.dtype)

        images = room(self.images)
        assert images is not None
        return replace(self, images=images, labels=room(self.labels), masks=room(self.masks))


@dataclass(frozen=True)
class Verdict:
    """What a service says of one image. Only `real` was found to be real; the other three were not."""

    verdict: str
    """`real`, `synthetic`, `uncertain` or `out_of_scope`."""
    synthetic_probability: float
    typicality: float
    """How much the image is like those that the model knows; where it is not, the probability means nothing."""
    model: str
    """The model that answered."""
    model_version: str
    sha256: str
    """Of the bytes that were sent."""
    document: dict[str, Any]
    """The whole answer, evidence and thresholds included; `/docs` describes it."""


def check_same_model(before: tuple[str, str], now: tuple[str, str]) -> None:
    """Refuse images of another model (name, version) than the ones before: they would be no one sequence.

    Raises:
        VerisynthError: naming both.
    """
    if before != now:
        raise VerisynthError(
            f"the images so far are of {' '.join(before)}, and the service now draws with {' '.join(now)}; "
            "begin anew for images of one model"
        )


def read_samples(answer: httpx.Response, body: BinaryIO, start: int, count: int) -> Samples:
    """An `npz` answer, its body in a file, to a request for `count` images from `start` on.

    Raises:
        ServiceError: `unexpected_answer` for anything else.
    """
    with reading("samples", answer):
        body.seek(0)
        with np.load(body, allow_pickle=False) as arrays:
            images, labels, masks = (arrays.get(name) for name in ("images", "labels", "masks"))
        _check(images is not None and images.dtype == np.uint8 and images.ndim == 4, "images", images)
        _check(labels is None or (labels.dtype == np.int64 and labels.ndim == 1), "labels", labels)
        _check(masks is None or (masks.dtype == np.uint8 and masks.ndim == 3), "masks", masks)
        for name, array in (("images", images), ("labels", labels), ("masks", masks)):
            _check(array is None or len(array) == count, name, array)
        assert images is not None
        return Samples(
            images=images,
            labels=labels,
            masks=masks,
            seed=int(answer.headers["X-Verisynth-Seed"]),
            model=answer.headers["X-Verisynth-Model"],
            version=answer.headers["X-Verisynth-Version"],
            start=start,
        )


def read_verdict(answer: httpx.Response) -> Verdict:
    """The answer to a check.

    Raises:
        ServiceError: `unexpected_answer` for anything else.
    """
    with reading("verdict", answer):
        document = answer.json()
        verdict = Verdict(
            verdict=text(document["verdict"]),
            synthetic_probability=float(document["synthetic_probability"]),
            typicality=float(document["evidence"]["typicality"]),
            model=text(document["model"]),
            model_version=text(document["model_version"]),
            sha256=text(document["image"]["sha256"]),
            document=document,
        )
        if verdict.verdict not in VERDICTS:
            raise ValueError(f"the verdict is {verdict.verdict!r}; known are {', '.join(VERDICTS)}")
        return verdict


def read_models(answer: httpx.Response) -> Models:
    """The models that are served, and those that are not.

    Raises:
        ServiceError: `unexpected_answer` for anything else.
    """
    with reading("list of models", answer):
        document = answer.json()
        return Models(
            served=[_model(model) for model in document["models"]],
            refused={text(name): text(reason) for name, reason in document["refused"].items()},
        )


def read_model(answer: httpx.Response) -> Model:
    """One model.

    Raises:
        ServiceError: `unexpected_answer` for anything else.
    """
    with reading("model", answer):
        return _model(answer.json())


def _model(document: dict[str, Any]) -> Model:
    name, version, provider = (text(document[field]) for field in ("name", "version", "provider"))
    model = Model(name, version, provider, document["manifest"])
    # Asked of every model, and better here, where a strange answer still has its request id.
    for label in model.labels:
        text(label)
    _ = model.has_masks
    return model


def text(value: object) -> str:
    """A text out of an answer; TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} stands where a text belongs")
    return value


def _check(fine: bool, name: str, array: np.ndarray | None) -> None:
    if not fine:
        raise ValueError(f"{name}: {'missing' if array is None else f'{array.dtype} {array.shape}'}")


@contextmanager
def reading(what: str, answer: httpx.Response) -> Iterator[None]:
    """Whatever goes wrong while an answer is read means that it is not what was asked for."""
    try:
        yield
    except Exception as error:  # numpy, zipfile and json raise many kinds on malformed bytes
        message = f"{answer.request.url} answered no {what} ({error!r:.200}); is it the address of the service?"
        request_id = answer.headers.get("X-Request-ID", "")
        raise ServiceError("unexpected_answer", message, request_id, answer.status_code) from error
