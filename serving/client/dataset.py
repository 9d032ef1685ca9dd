"""Synthetic samples of a running service as a map-style dataset for PyTorch, kept on disk.

    dataset = SyntheticDataset("http://localhost:3000", "cache", count=2000, model="blood")
    image, label = dataset[0]  # float32 [3, 64, 64] in [0, 1], int

The cache:

    cache/<model>/<version>/<seed>-<hash of label, balance and truncation>/
        sequence.json                         what it is
        000000/  000128/                      parts, by the index of their first image
            images.npy                        uint8 [128, H, W, C]
            labels.npy  masks.npy             int64 [128], uint8 [128, H, W], where the model draws them

A part is fetched when one of its images is first asked for, or ahead by `fill`. It takes its name only when it is
whole, and is fetched once, however many threads, workers and programs want it. Another version of a model has another
folder.
"""

import hashlib
import json
import operator
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from contracts.errors import VerisynthError
from serving.client.answers import check_same_model
from serving.client.client import Client
from serving.client.sequence import SampleSequence
from serving.client.whole_file import whole_file

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    MapStyleDataset = Dataset[Any]
else:
    # What PyTorch asks of a dataset is the length and the items; type checkers ask for the base class.
    MapStyleDataset = object

IMAGES_PER_PART = 128
TARGETS = ("label", "mask", "none")
CONTENTS = "sequence.json"
VERSION = re.compile(r"\w{1,64}")
ARRAYS = ("images", "labels", "masks")


@dataclass(frozen=True)
class _Contents:
    """`sequence.json`: what a cache folder holds."""

    model: str
    version: str
    labels: list[str]
    has_masks: bool


class SyntheticDataset(MapStyleDataset):
    """The first `count` images of a seed, and their labels or masks.

    `torch.utils.data.DataLoader` takes it as it is, with workers that fork or spawn. Items are (image, target): the
    image float32 [C, H, W] in [0, 1], the target an int of `labels`, or a mask float32 [1, H, W] in [0, 1]. With the
    target `none` an item is the image alone. Images and masks are tensors where PyTorch is installed, else arrays.
    """

    def __init__(
        self,
        url: str,
        cache_folder: str | os.PathLike[str],
        count: int,
        model: str,
        seed: int = 0,
        label: str | None = None,
        balance: str | None = None,
        truncation: float = 1.0,
        target: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        version: str | None = None,
        key: str | None = None,
        timeout_seconds: float = 60,
        retries: int = 4,
    ) -> None:
        """Asks the service for its version of the model; no image is fetched yet.

        `target` is one of `TARGETS`; without one it is the label, where the model draws labels, else the mask, where it
        draws masks. `transform` is applied to images. With a `version`, no other is taken, and what lies in the cache
        is used without asking the service.

        Raises:
            VerisynthError: for values that cannot be, a target that the model does not draw, or another version.
            ServiceError: where the service refuses or does not answer.
        """
        if type(count) is not int or count < 1:
            raise VerisynthError(f"the count is {count!r}; ask for at least 1 image")
        self._url, self._key, self._patience = url, key, (timeout_seconds, retries)
        self._sequence = SampleSequence.of(seed, model, label, balance, truncation)
        self._count = count
        self._transform = transform
        self._client: Client | None = None
        self._client_process = 0
        self._parts: dict[int, dict[str, np.ndarray]] = {}
        self._contents = self._find(Path(cache_folder), version)
        self.folder = self._folder(Path(cache_folder), self._contents.version)
        self.target = self._chosen_target(target)
        with whole_file(self._made(self.folder) / CONTENTS) as file:
            document = {"synthetic": True} | asdict(self._sequence) | asdict(self._contents)
            file.write(json.dumps(document, indent=2).encode() + b"\n")

    @property
    def version(self) -> str:
        """The model's version, the same for all images."""
        return self._contents.version

    @property
    def labels(self) -> list[str]:
        """The names of the labels, by number; empty where the model draws none."""
        return self._contents.labels

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        """Image `index` and its target.

        Raises:
            IndexError: outside of the dataset.
            VerisynthError: where the model changed in the meantime, or a part in the cache is damaged.
            ServiceError: where the image is not there yet and cannot be fetched.
        """
        position = operator.index(index)
        position += self._count if position < 0 else 0
        if not 0 <= position < self._count:
            raise IndexError(f"the index is {index}, and there are {self._count} images")
        part = self._part(position // IMAGES_PER_PART)
        row = position % IMAGES_PER_PART
        image = _floats(part["images"][row].transpose(2, 0, 1))
        if self._transform is not None:
            image = self._transform(image)
        if self.target == "label":
            return image, int(part["labels"][row])
        return (image, _floats(part["masks"][row][None])) if self.target == "mask" else image

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are spawned open the cache and the service on their own.
        return self.__dict__ | {"_client": None, "_parts": {}}

    def fill(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Fetch all that is not there yet; `progress` is told how many more images are there.

        Raises:
            VerisynthError, ServiceError: as for an item. What was fetched stays.
        """
        for start in range(0, self._count, IMAGES_PER_PART):
            self._part(start // IMAGES_PER_PART)
            progress(min(IMAGES_PER_PART, self._count - start))

    def fill_in_background(self) -> Future[None]:
        """`fill` in a thread that ends with the program; the future tells when it is done, or why it ended."""
        future: Future[None] = Future()
        # From now on nobody can cancel it, and its end can be told.
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                self.fill()
            except BaseException as error:  # told by the future
                future.set_exception(error)
            else:
                future.set_result(None)

        threading.Thread(target=work, name="fill", daemon=True).start()
        return future

    def _find(self, cache_folder: Path, version: str | None) -> _Contents:
        """What the images are: out of the cache where the version is known, else out of the service."""
        if version is not None:
            path = self._folder(cache_folder, version) / CONTENTS
            if path.exists():
                try:
                    document = json.loads(path.read_bytes())
                    return _Contents(**{name: document[name] for name in _Contents.__dataclass_fields__})
                except (ValueError, TypeError, KeyError) as error:
                    raise VerisynthError(f"{path} is damaged ({error}); remove {path.parent}") from error
        assert self._sequence.model is not None
        model = self._connected().model(self._sequence.model)
        if not VERSION.fullmatch(model.version):
            raise VerisynthError(f"the version of {model.name} is {model.version!r}, which cannot name a folder")
        if version is not None:
            check_same_model((model.name, version), (model.name, model.version))
        return _Contents(model.name, model.version, model.labels, model.has_masks)

    def _chosen_target(self, target: str | None) -> str:
        drawn = {"label": bool(self._contents.labels), "mask": self._contents.has_masks, "none": True}
        if target is None:
            return next(name for name in TARGETS if drawn[name])
        if not drawn.get(target, False):
            offer = ", ".join(name for name in TARGETS if drawn[name])
            raise VerisynthError(f"the target is {target!r}; of {self._contents.model} it can be {offer}")
        return target

    def _folder(self, cache_folder: Path, version: str) -> Path:
        sequence = self._sequence
        settings = json.dumps([sequence.label, sequence.balance, sequence.truncation])
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        return cache_folder / str(sequence.model) / version / f"{sequence.seed}-{digest}"

    def _part(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a part, memory-mapped; fetched where they are not there."""
        if number not in self._parts:
            name = f"{number * IMAGES_PER_PART:06d}"
            folder = self.folder / name
            if not folder.exists():
                with FileLock(self._made(self.folder / ".locks") / name):
                    # Somebody else may have fetched it while we waited.
                    if not folder.exists():
                        self._fetch(number * IMAGES_PER_PART, folder)
            self._parts[number] = self._opened(folder)
        return self._parts[number]

    def _fetch(self, start: int, folder: Path) -> None:
        samples = self._connected().generate(IMAGES_PER_PART, **asdict(self._sequence), start=start)
        check_same_model((self._contents.model, self.version), (samples.model, samples.version))
        staging = folder.with_name(f".{uuid.uuid4().hex}.incomplete")
        staging.mkdir()
        try:
            for name in ARRAYS:
                array: np.ndarray | None = getattr(samples, name)
                if array is not None:
                    with whole_file(staging / f"{name}.npy") as file:
                        np.save(file, array)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _opened(self, folder: Path) -> dict[str, np.ndarray]:
        wanted = {"images": True, "labels": bool(self.labels), "masks": self._contents.has_masks}
        try:
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name, drawn in wanted.items() if drawn}
            if any(len(array) != IMAGES_PER_PART for array in arrays.values()):
                raise ValueError(f"it must hold {IMAGES_PER_PART} images")
        except (OSError, ValueError, EOFError) as error:
            raise VerisynthError(f"{folder} is damaged ({error}); remove it, and it is fetched again") from error
        return arrays

    def _connected(self) -> Client:
        """A client of this process: a forked worker must not use its parent's connections."""
        if self._client is None or self._client_process != os.getpid():
            self._client = Client(self._url, self._key, *self._patience)
            self._client_process = os.getpid()
        return self._client

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _floats(levels: np.ndarray) -> Any:
    """uint8 of any shape as float32 in [0, 1]: a tensor where PyTorch is installed, else an array."""
    scaled = np.ascontiguousarray(levels, dtype=np.float32) / np.float32(255)
    try:
        import torch
    except ImportError:
        return scaled
    return torch.from_numpy(scaled)
