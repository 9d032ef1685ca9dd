"""The form of a prepared dataset on disk: written once by the `prepare` stage, memory-mapped by all later ones.

    data/prepared/<name>/
        dataset.json                           what it is: image spec, labels, counts, split, licence, content hash
        left_out.csv                           what was not used and why
        train/  validation/  test/
            images.npy                         uint8 [N, H, W, C]
            masks.npy                          uint8 [N, H, W] of 0 and 255, where the source has masks
            index.csv                          row, label, patient, source, sha256, left, top, side

The same input gives the same bytes: there are no time stamps and no machine's paths in it.
"""

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec
from training import progress
from training.data.items import LeftOut, Pixels
from training.data.tiles import Box

SPLITS = ("train", "validation", "test")
DATASET = "dataset.json"
LEFT_OUT = "left_out.csv"
INDEX = "index.csv"
IMAGES = "images.npy"
MASKS = "masks.npy"
INDEX_COLUMNS = ("row", "label", "patient", "source", "sha256", "left", "top", "side")


@dataclass(frozen=True)
class Row:
    """Where one prepared image comes from."""

    source: str
    """Name of the item it was cut from."""
    patient: str
    label: str | None
    sha256: str
    """Of the prepared pixels: equal for exact duplicates."""
    box: Box | None = None
    """The detail's place in the source image; None where the image was taken whole."""

    @property
    def place(self) -> str:
        """The source, with the place in it."""
        return self.source if self.box is None else f"{self.source} at left {self.box.left}, top {self.box.top}"


@dataclass(frozen=True)
class Card:
    """What is known of a dataset beyond its pixels."""

    name: str
    image: ImageSpec
    source: str
    origin: str
    licence: str
    split: str
    """How the split was made, in words."""
    converted: dict[str, int] = field(default_factory=dict)
    """Source images by what had to be done to them: channels made or lost, or enlarged."""
    warnings: list[str] = field(default_factory=list)
    """What is to be looked at before anybody trusts the dataset, in words."""


@dataclass(frozen=True)
class DatasetInfo:
    """`dataset.json`."""

    name: str
    image: ImageSpec
    labels: list[str]
    """Sorted; empty where the images have none."""
    has_masks: bool
    counts: dict[str, int]
    """Images per split."""
    patients: dict[str, int]
    """Patients per split."""
    split: str
    source: str
    origin: str
    licence: str
    converted: dict[str, int]
    """Source images by what had to be done to them: channels made or lost, or enlarged."""
    left_out: dict[str, int]
    """Images by the reason for which they are not used."""
    content_hash: str
    """SHA-256 over pixels, masks, labels, patients and splits."""
    warnings: list[str] = field(default_factory=list)
    """What is to be looked at before anybody trusts the dataset, in words."""


@dataclass(frozen=True)
class PreparedSplit:
    """One part of a prepared dataset; the arrays are read-only memory maps."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    masks: np.ndarray | None
    """uint8 [N, H, W] of 0 and 255; None where the source has no masks."""
    labels: np.ndarray
    """int64 [N]: positions in `DatasetInfo.labels`, -1 where an image has none."""
    rows: list[Row]

    @property
    def patients(self) -> list[str]:
        return [row.patient for row in self.rows]


class Spool:
    """Prepared pixels on their way to disk, in one growing file: memory holds one image at a time."""

    def __init__(self, folder: Path, image: ImageSpec, has_masks: bool) -> None:
        self._shape = (image.size, image.size, image.channels)
        self._images = (folder / "images.spool").open("w+b")
        self._masks = (folder / "masks.spool").open("w+b") if has_masks else None

    def append(self, pixels: Pixels) -> None:
        """Add an image uint8 [size, size, channels] and its mask."""
        assert pixels.image.shape == self._shape
        assert pixels.image.dtype == np.uint8
        self._images.write(pixels.image.tobytes())
        if self._masks is not None:
            assert pixels.mask is not None
            assert pixels.mask.shape == self._shape[:2]
            self._masks.write(pixels.mask.tobytes())

    def images(self) -> np.ndarray:
        """All images, uint8 [N, H, W, C], memory-mapped."""
        self._images.flush()
        return np.memmap(self._images, dtype=np.uint8, mode="r").reshape(-1, *self._shape)

    def masks(self) -> np.ndarray | None:
        """All masks, uint8 [N, H, W], memory-mapped; None where there are none."""
        if self._masks is None:
            return None
        self._masks.flush()
        return np.memmap(self._masks, dtype=np.uint8, mode="r").reshape(-1, *self._shape[:2])

    def discard(self) -> None:
        """Close and delete the files."""
        for file in (self._images, self._masks):
            if file is not None:
                file.close()
                Path(file.name).unlink()


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into; it takes that name only when the block ends well."""
    staging = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write(
    folder: Path, card: Card, rows: Sequence[Row], splits: Sequence[str], spool: Spool, left_out: Sequence[LeftOut]
) -> DatasetInfo:
    """Write a dataset: row `i` of the spool is described by `rows[i]` and goes to `splits[i]`."""
    images, masks = spool.images(), spool.masks()
    content = hashlib.sha256(json.dumps([asdict(card.image), masks is not None]).encode())
    members = {split: [index for index, home in enumerate(splits) if home == split] for split in SPLITS}
    with progress.bar(len(rows), f"writing arrays of {card.name}", "images") as bar:
        for split, indices in members.items():
            (folder / split).mkdir()
            _write_array(folder / split / IMAGES, images, indices, bar)
            if masks is not None:
                _write_array(folder / split / MASKS, masks, indices)
                for index in indices:
                    content.update(masks[index].tobytes())
            _write_index(folder / split / INDEX, [rows[index] for index in indices])
            content.update((folder / split / INDEX).read_bytes())
    _write_left_out(folder / LEFT_OUT, left_out)
    reasons: Counter[str] = Counter()
    for left in left_out:
        reasons[left.reason] += left.images
    info = DatasetInfo(
        name=card.name,
        image=card.image,
        labels=sorted({row.label for row in rows if row.label is not None}),
        has_masks=masks is not None,
        counts={split: len(indices) for split, indices in members.items()},
        patients={split: len({rows[index].patient for index in indices}) for split, indices in members.items()},
        split=card.split,
        source=card.source,
        origin=card.origin,
        licence=card.licence,
        converted=dict(sorted(card.converted.items())),
        left_out=dict(sorted(reasons.items())),
        content_hash=content.hexdigest(),
        warnings=card.warnings,
    )
    text = json.dumps(asdict(info), indent=2, ensure_ascii=False)
    (folder / DATASET).write_text(text + "\n", encoding="utf-8")
    return info


def _write_array(path: Path, source: np.ndarray, indices: list[int], bar: Any = None) -> None:
    shape = (len(indices), *source.shape[1:])
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for row, index in enumerate(indices):
        array[row] = source[index]
        if bar is not None:
            bar.update()
    array.flush()


def _write_index(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(INDEX_COLUMNS)
        for number, row in enumerate(rows):
            box = ("", "", "") if row.box is None else (row.box.left, row.box.top, row.box.width)
            label = "" if row.label is None else row.label
            table.writerow([number, label, row.patient, row.source, row.sha256, *box])


def _write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("source", "reason", "images", "detail"))
        table.writerows((left.name, left.reason, left.images, left.detail) for left in left_out)


def read_left_out(folder: Path) -> list[LeftOut]:
    """What `left_out.csv` of a prepared dataset names.

    Raises:
        VerisynthError: where the stage has not run.
    """
    try:
        with (folder / LEFT_OUT).open(encoding="utf-8", newline="") as file:
            return [
                LeftOut(cells["source"], cells["reason"], cells["detail"], int(cells["images"]))
                for cells in csv.DictReader(file)
            ]
    except FileNotFoundError as error:
        raise _not_prepared(folder) from error


def read_dataset(folder: Path) -> DatasetInfo:
    """What a prepared dataset is.

    Raises:
        VerisynthError: where the stage has not run.
    """
    try:
        document = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        return DatasetInfo(**document | {"image": ImageSpec(**document["image"])})
    except FileNotFoundError as error:
        raise _not_prepared(folder) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VerisynthError(f"{folder / DATASET} cannot be read: {error}; {_again(folder)}") from error


def load(folder: Path, split: str) -> PreparedSplit:
    """One part of a prepared dataset: `train`, `validation` or `test`.

    Raises:
        VerisynthError: where the stage has not run, or its files do not fit together.
    """
    info = read_dataset(folder)
    if split not in SPLITS:
        raise VerisynthError(f"split {split!r} is unknown; valid: {', '.join(SPLITS)}")
    part = folder / split
    try:
        images = np.load(part / IMAGES, mmap_mode="r", allow_pickle=False)
        masks = np.load(part / MASKS, mmap_mode="r", allow_pickle=False) if info.has_masks else None
        rows = _read_index(part / INDEX)
    except FileNotFoundError as error:
        raise _not_prepared(folder) from error
    except (OSError, ValueError, KeyError) as error:
        raise VerisynthError(f"{part} cannot be read: {error}; {_again(folder)}") from error
    if not len(images) == len(rows) == info.counts[split]:
        raise VerisynthError(
            f"{part} holds {len(images)} images, {len(rows)} rows of the index and {info.counts[split]} by "
            f"{DATASET}; {_again(folder)}"
        )
    positions = {label: position for position, label in enumerate(info.labels)}
    labels = np.array([-1 if row.label is None else positions[row.label] for row in rows], dtype=np.int64)
    return PreparedSplit(images, masks, labels, rows)


def _read_index(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                source=cells["source"],
                patient=cells["patient"],
                label=cells["label"] or None,
                sha256=cells["sha256"],
                box=_box(cells),
            )
            for cells in csv.DictReader(file)
        ]


def _box(cells: dict[str, str]) -> Box | None:
    if not cells["side"]:
        return None
    return Box(int(cells["left"]), int(cells["top"]), int(cells["side"]), int(cells["side"]))


def _not_prepared(folder: Path) -> VerisynthError:
    return VerisynthError(f"{folder} holds no prepared dataset; {_again(folder)}")


def _again(folder: Path) -> str:
    return f"run `python -m training.stages.prepare {folder.name}`"
