"""MedMNIST's `npz` files with MedMNIST's own splits, and their download.

Download a set into a folder:  python -m training.data.medmnist pneumoniamnist data/raw/pneumonia [--side 64]
"""

import argparse
import hashlib
import http.client
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np

from contracts.errors import VerisynthError
from training import progress
from training.border import border
from training.data.items import Collection, Item, Pixels
from training.data.medmnist_sets import SETS, MedmnistSet, file_name, url
from training.data.params import MedmnistSource

HELD_OUT_FIRST = {"test": "test", "validation": "val", "train": "train"}
CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30


def collect(source: MedmnistSource) -> Collection:
    """One item per image, its split given; images are read from the archive one by one, in order.

    The files name no patients: each image counts as one. Of a multi-label set (chestmnist) the
    label is all findings joined by `|`, or `no finding`.

    Raises:
        VerisynthError: for a file that is missing, broken or no MedMNIST file.
    """
    file = Path(source.path) / file_name(source.name, source.side)
    if not file.is_file():
        raise VerisynthError(
            f"{file} is missing; fetch it with "
            f"`python -m training.data.medmnist {source.name} {source.path} --side {source.side}`"
        )
    known = SETS[source.name]
    items = []
    for split, key in HELD_OUT_FIRST.items():
        images = _Rows.open(file, f"{key}_images", dimensions=(3, 4))
        labels = _Rows.open(file, f"{key}_labels", dimensions=(2,))
        if images.count != labels.count:
            raise VerisynthError(f"{file}: {images.count} {key}_images, but {labels.count} {key}_labels")
        for index in range(images.count):
            name = f"{split}/{index}"
            label = _label(labels.row(index), known, f"{file} {key}_labels row {index}")
            items.append(Item(name, name, label, partial(_read, images, index), split))
    return Collection(items)


def _label(row: np.ndarray, known: MedmnistSet, where: str) -> str:
    numbers = [int(number) for number in row.ravel()]
    if known.task.startswith("multi-label"):
        if len(numbers) != len(known.labels):
            raise VerisynthError(f"{where} holds {len(numbers)} findings; the set has {len(known.labels)}")
        return "|".join(name for name, present in zip(known.labels, numbers, strict=True) if present) or "no finding"
    if len(numbers) != 1 or not 0 <= numbers[0] < len(known.labels):
        raise VerisynthError(f"{where} is {numbers}; labels are 0 to {len(known.labels) - 1}")
    return known.labels[numbers[0]]


def _read(images: "_Rows", index: int) -> Pixels:
    pixels = images.row(index)
    return Pixels(pixels[..., None] if pixels.ndim == 2 else pixels)


@dataclass(frozen=True)
class _Rows:
    """An array inside an npz archive, read row by row: the large sets are never in memory whole."""

    file: Path
    stream: IO[bytes]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @staticmethod
    def open(file: Path, key: str, dimensions: tuple[int, ...]) -> "_Rows":
        try:
            archive = zipfile.ZipFile(file)
            if f"{key}.npy" not in archive.namelist():
                raise VerisynthError(f"{file} is no MedMNIST file: it holds {archive.namelist()}, but no {key}")
            stream = archive.open(f"{key}.npy")
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = header(stream)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise VerisynthError(f"{file} is broken: {error}; fetch it again") from error
        integers = dtype == np.uint8 if key.endswith("images") else dtype.kind in "iu"
        if not integers or fortran_order or len(shape) not in dimensions or (len(shape) == 4 and shape[3] != 3):
            raise VerisynthError(f"{file}: {key} is {dtype} {shape}, not as MedMNIST writes it")
        return _Rows(file, stream, stream.tell(), shape, dtype)

    @property
    def count(self) -> int:
        return self.shape[0]

    def row(self, index: int) -> np.ndarray:
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        try:
            self.stream.seek(self.start + index * size)
            data = self.stream.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise VerisynthError(f"{self.file} is broken at row {index}: {error}; fetch it again") from error
        if len(data) < size:
            raise VerisynthError(f"{self.file} ends before row {index}; fetch it again")
        return np.frombuffer(data, dtype=self.dtype).reshape(self.shape[1:])


def download(address: str, file: Path, md5: str) -> None:
    """Fetch `address` into `file`, with a progress bar; a stopped download goes on where it stopped.

    `file` appears only when it is whole and its MD5 right; until then there is `<file>.part`.

    Raises:
        VerisynthError: without a connection, or where the content is not what was asked for.
    """
    if file.is_file():
        if _md5(file) == md5:
            return
        raise VerisynthError(f"{file} exists, but its md5 is not {md5}; move it away to fetch it anew")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        _fetch(address, part)
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise VerisynthError(
            f"{address} cannot be fetched: {reason}; try again (what has arrived is kept), "
            f"or download it on another machine and put it at {file}"
        ) from error
    found = _md5(part)
    if found != md5:
        part.unlink()
        raise VerisynthError(f"{address} is not what was expected: md5 {found} instead of {md5}; nothing is kept")
    part.rename(file)


def _fetch(address: str, part: Path) -> None:
    present = part.stat().st_size if part.exists() else 0
    request = Request(address, headers={"Range": f"bytes={present}-"} if present else {})  # noqa: S310 - a known address
    try:
        response = urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is whole already; its MD5 decides
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        arrived = present if resumed else 0
        total = arrived + int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        with (
            part.open("ab" if resumed else "wb") as sink,
            progress.bar(total, f"fetching {part.stem}", "B", initial=arrived) as bar,
        ):
            while chunk := response.read(CHUNK_BYTES):
                sink.write(chunk)
                arrived += len(chunk)
                bar.update(len(chunk))
    if total is not None and arrived < total:
        raise ConnectionError(f"the connection ended after {arrived} of {total} bytes")


def _md5(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Download a MedMNIST set, checked by its MD5.")
    parser.add_argument("name", choices=sorted(SETS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=28, choices=(28, 64, 128, 224), help="pixels a side; default 28")
    arguments = parser.parse_args()
    file = arguments.folder / file_name(arguments.name, arguments.side)
    with border("fetch", arguments.name, go_on="the same command; what has arrived is kept"):
        download(url(arguments.name, arguments.side), file, SETS[arguments.name].md5[arguments.side])
    print(f"{file} is there, {file.stat().st_size} bytes, checked; licence {SETS[arguments.name].licence}")


if __name__ == "__main__":
    main()
