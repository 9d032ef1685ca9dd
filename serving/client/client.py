"""A service of Verisynth from Python.

    with Client("http://localhost:3000") as client:
        samples = client.generate(16, model="ihc", seed=7)  # samples.images: uint8 [16, 64, 64, 3]
        verdict = client.check(Path("image.png"))  # verdict.verdict: real, synthetic, uncertain or out_of_scope

It needs the extra `client` and nothing of the service's own.
"""

import functools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import numpy as np

from contracts.errors import VerisynthError
from contracts.imaging import decode_drawn_mask, encode_png
from serving.client.answers import (
    Model,
    Models,
    Samples,
    Verdict,
    read_model,
    read_models,
    read_samples,
    read_verdict,
)
from serving.client.collection import Collection, chosen_collection, fetch_files, list_collections
from serving.client.connection import Connection, ServiceError
from serving.client.download import IMAGES_PER_PART, Order, Saved, save
from serving.client.sequence import SampleSequence, painting, parts

# What the service says of one image, or breaks on: the next image may be fine.
IMAGE_STATUSES = (400, 408, 413, 415, 422, 500, 504)
IMAGE_CODES = ("model_failure",)

LARGEST_FILE_BYTES = 256 * 1024**2
"""Held in memory while they are sent, `concurrency` at once; services take 32 MiB unless told otherwise."""

Image = bytes | str | os.PathLike[str] | np.ndarray
Source = TypeVar("Source", bound=Image)


@dataclass(frozen=True)
class Checked(Generic[Source]):
    """One of many checks: a verdict, or the error for which this image has none."""

    source: Source
    verdict: Verdict | None
    error: VerisynthError | OSError | None


class Client:
    """One service. May be used by several threads; each process needs its own."""

    def __init__(self, url: str, key: str | None = None, timeout_seconds: float = 60, retries: int = 4) -> None:
        """Nothing is sent yet.

        `timeout_seconds` bounds every silence of the service. After a lost connection, and where the service is busy
        or not ready, a request is sent up to `retries` times more, after growing pauses that it may lengthen.

        Raises:
            VerisynthError: for an address or a key that cannot be one.
        """
        self._connection = Connection(url, key, timeout_seconds, retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._connection.close()

    def models(self) -> list[Model]:
        """The models that are served.

        Raises:
            ServiceError: as every request, where the service refuses or does not answer.
        """
        return self.all_models().served

    def all_models(self) -> Models:
        """The models that are served, and those that are not.

        Raises:
            ServiceError: as every request.
        """
        return read_models(self._connection.ask("GET", "/v1/models"))

    def model(self, name: str) -> Model:
        """One model.

        Raises:
            ServiceError: `unknown_model` among others.
        """
        return read_model(self._connection.ask("GET", f"/v1/models/{quote(name, safe='')}"))

    def card(self, name: str) -> str:
        """What a model is, is for and is worth, as Markdown.

        Raises:
            ServiceError: `unknown_model` among others.
        """
        return self._connection.ask("GET", f"/v1/models/{quote(name, safe='')}/card").text

    def generate(
        self,
        count: int,
        model: str | None = None,
        seed: int | None = None,
        label: str | None = None,
        balance: str | None = None,
        truncation: float = 1.0,
        start: int = 0,
    ) -> Samples:
        """The images `start` to `start + count - 1` of a seed, in as many requests as it takes.

        `model` may be left out where one is served. Without a seed a random one is chosen and told. `label` asks for
        one label, `balance` for all: `equal`, in turn, or `training`, as often as the training images had them.
        `truncation` in [0, 1] trades variety for likeness to the mean image.

        Raises:
            VerisynthError: for numbers that cannot be, or where the model changed in between.
            ServiceError: where the service refuses or does not answer.
        """
        wanted = SampleSequence.of(seed, model, label, balance, truncation)
        return self._joined("/v1/generate", lambda request: {"json": request}, wanted, start, count)

    def _joined(
        self,
        path: str,
        content: Callable[[dict[str, Any]], dict[str, Any]],
        wanted: SampleSequence,
        start: int,
        count: int,
    ) -> Samples:
        """All parts of what is asked for at `path`; an answer waits on disk until it is whole."""

        def part(first: int, length: int) -> Samples:
            with tempfile.TemporaryFile() as body:
                answer = self._connection.ask("POST", path, content(wanted.request(first, length, "npz")), body)
                return read_samples(answer, body, first, length)

        return Samples.joined((part(*asked) for asked in parts(start, count, IMAGES_PER_PART)), count)

    def paint(
        self,
        mask: Image,
        count: int = 1,
        model: str | None = None,
        seed: int | None = None,
        truncation: float = 1.0,
        start: int = 0,
    ) -> Samples:
        """Photographs painted on a mask of one's own: a PNG or TIFF by its path, its bytes, or bool or uint8 [H, W].

        It has the model's size and two values, 0 and 255 (or 0 and 1); `Samples.masks` repeats it. The rest is as in
        `generate`.

        Raises:
            VerisynthError: for what is no mask, and numbers that cannot be.
            OSError: for a file that cannot be read.
            ServiceError: `no_painter` and `mask_size` among others.
        """
        wanted = SampleSequence.of(seed, model, None, None, truncation)
        data = _bytes(mask)
        drawn = decode_drawn_mask(data)
        found = self._joined("/v1/paint", functools.partial(painting, data), wanted, start, count)
        return replace(found, masks=np.repeat(drawn[None], count, axis=0))

    def save(
        self,
        destination: str | os.PathLike[str],
        count: int,
        file_format: str | None = None,
        model: str | None = None,
        seed: int | None = None,
        label: str | None = None,
        balance: str | None = None,
        truncation: float = 1.0,
        start: int = 0,
        progress: Callable[[int], None] = lambda _: None,
        mask: Image | None = None,
    ) -> Saved:
        """Save images to a file (`.npz`, `.zip`, `.dicom.zip`, `.png`) or into a folder; `generate` has the rest.

        A file takes one answer of at most 1024 images, as the service wrote it. A folder takes any number, as `npz`
        parts or, with `zip` and `dicom`, as PNG or DICOM files; the same call again goes on where an earlier one ended.
        `progress` is told how many more images are there. With a `mask` they are painted on it, as `paint` does, into a
        file.

        Raises:
            VerisynthError: for a destination that cannot take them, or was begun with another request.
            ServiceError: where the service refuses or does not answer; what is saved stays.
        """
        wanted = SampleSequence.of(seed, model, label, balance, truncation)
        order = Order(wanted, seed is not None, start, count, file_format, None if mask is None else _bytes(mask))
        return save(self._connection, order, Path(destination), progress)

    def check(self, image: Image, model: str | None = None) -> Verdict:
        """Is this image real? A file by its path, its bytes, or pixels uint8 [H, W], [H, W, 1] or [H, W, 3].

        The bytes are sent as they are, without the file's name. Without `model` the one answers whose kind of image it
        is.

        Raises:
            VerisynthError: for pixels that are none.
            OSError: for a file that cannot be read.
            ServiceError: where the service refuses the image or does not answer.
        """
        content: dict[str, Any] = {"files": {"image": ("image", _bytes(image), "application/octet-stream")}}
        if model is not None:
            content["data"] = {"model": model}
        return read_verdict(self._connection.ask("POST", "/v1/authenticity", content))

    def check_many(
        self, images: Iterable[Source], model: str | None = None, concurrency: int = 4
    ) -> Iterator[Checked[Source]]:
        """Check images side by side, `concurrency` at once; the answers come in the order of the images.

        An image that cannot be read or is refused has its error; the others go on. At most a few images are held at
        once, however many there are.

        Raises:
            VerisynthError: for a concurrency below 1.
            ServiceError: for what would stop every image: no service, no such model, no permission.
        """
        if concurrency < 1:
            raise VerisynthError(f"the concurrency is {concurrency}; it must be at least 1")
        waiting = iter(images)
        pending: deque[Future[Checked[Source]]] = deque()
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="check")
        try:
            while True:
                for image in islice(waiting, 2 * concurrency - len(pending)):
                    pending.append(pool.submit(self._checked, image, model))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def collections(self) -> list[Collection]:
        """The collections of generated images that the service hands out.

        Raises:
            ServiceError: as every request.
        """
        return list_collections(self._connection)

    def fetch_collection(
        self,
        name: str,
        folder: str | os.PathLike[str],
        version: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Collection:
        """Fetch a collection into a folder; the same call again goes on where an earlier one ended.

        Every file is held against its SHA-256. `version` may be left out where there is one. `progress` is told how
        many more bytes are there.

        Raises:
            VerisynthError: where there is no such collection, several, or another one in the folder.
            ServiceError: where the service refuses or does not answer; what is there stays.
        """
        wanted = chosen_collection(self._connection, name, version)
        fetch_files(self._connection, wanted, Path(folder), progress)
        return wanted

    def _checked(self, image: Source, model: str | None) -> Checked[Source]:
        try:
            return Checked(image, self.check(image, model), None)
        except ServiceError as error:
            if error.status is None:
                # Some servers hang up on what they do not like: it is the image's fault if the service still answers.
                self._connection.ask("GET", "/v1/models")
            elif error.status not in IMAGE_STATUSES and error.code not in IMAGE_CODES:
                raise
            return Checked(image, None, error)
        except (VerisynthError, OSError) as error:
            return Checked(image, None, error)


def _bytes(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        levels = image.astype(np.uint8) * np.uint8(255) if image.dtype == bool else image
        pixels = levels[..., None] if levels.ndim == 2 else levels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            raise VerisynthError(
                f"the pixels are {image.dtype} {image.shape}; they must be uint8 [H, W], [H, W, 1] or [H, W, 3]"
            )
        return encode_png(pixels)
    path = Path(image)
    size = path.stat().st_size
    if size > LARGEST_FILE_BYTES:
        raise VerisynthError(f"the file has {size} bytes, more than any service takes; send a smaller image")
    return path.read_bytes()
