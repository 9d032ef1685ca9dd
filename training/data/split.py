"""Who trains and who is held out: by patient, or by region where there is one image; never by detail."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from contracts.errors import VerisynthError
from training.data.params import Split
from training.data.prepared import SPLITS, Row
from training.data.tiles import Box

MAXIMUM_BANDS = 4


def by_patient(rows: Sequence[Row], shares: Split) -> list[str]:
    """The split of every row: patients whole, each label's images divided by `shares` as far as possible.

    Patients are dealt out from the one with most images to the one with fewest, equals in an
    order drawn from `shares.seed`, each to the split that lacks most of its labels' images.
    The same rows and seed give the same split.

    Raises:
        VerisynthError: for fewer than three patients.
    """
    patients: dict[str, Counter[str | None]] = {}
    for row in rows:
        patients.setdefault(row.patient, Counter())[row.label] += 1
    if len(patients) < len(SPLITS):
        raise VerisynthError(
            f"{len(patients)} patients cannot be split: training, validation and test need at least one each "
            "(a single image with `tiles` is split by region instead)"
        )
    share = {"train": 1 - shares.validation - shares.test, "validation": shares.validation, "test": shares.test}
    in_all = Counter(row.label for row in rows)
    held: dict[str, Counter[str | None]] = {split: Counter() for split in SPLITS}
    home: dict[str, str] = {}
    for patient in _dealing_order(patients, shares.seed):
        images = patients[patient]

        def lack(split: str, images: Counter[str | None] = images) -> tuple[float, float]:
            of_labels = sum(
                count * (1 - held[split][label] / (share[split] * in_all[label])) for label, count in images.items()
            )
            return of_labels, 1 - held[split].total() / (share[split] * len(rows))

        home[patient] = max(SPLITS, key=lack)
        held[home[patient]].update(images)
    return [home[row.patient] for row in rows]


def _dealing_order(patients: dict[str, Counter[str | None]], seed: int) -> list[str]:
    names = sorted(patients)
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    return sorted(shuffled, key=lambda name: -patients[name].total())


def by_region(width: int, height: int, side: int, shares: Split) -> list[tuple[str, Box]]:
    """Disjoint regions of one image, each with its split; together they cover it.

    Bands of training alternate with held-out bands, and these are divided into alternating cells
    of validation and test: every split sees several places of the image. There are as many bands
    and cells as leave each twice the `side` of a detail, so that details are not lost to borders.
    The regions depend on the shares alone, not on the seed.

    Raises:
        VerisynthError: where a region would be smaller than a detail.
    """
    if width > height:
        upright = by_region(height, width, side, shares)
        return [(split, Box(box.top, box.left, box.height, box.width)) for split, box in upright]
    held_out = shares.validation + shares.test
    bands = _repeats(height, side, lambda count: min((1 - held_out) / (count + 1), held_out / count))
    rarer = min(shares.validation, shares.test) / held_out
    cells = _repeats(width, side, lambda count: rarer / count)
    train = (1 - held_out) / (bands + 1)
    rows = _edges(height, [train] + [held_out / bands, train] * bands)
    cell_shares = [shares.validation / held_out / cells, shares.test / held_out / cells]
    regions = []
    for band, (top, bottom) in enumerate(pairwise(rows)):
        if band % 2 == 0:
            regions.append(("train", Box(0, top, width, bottom - top)))
            continue
        # The order turns round from band to band, so that no split keeps to one side of the image.
        order = 1 if band % 4 == 1 else -1
        columns = _edges(width, cell_shares[::order] * cells)
        for cell, (left, right) in enumerate(pairwise(columns)):
            split = ("validation", "test")[::order][cell % 2]
            regions.append((split, Box(left, top, right - left, bottom - top)))
    smallest = min(min(box.width, box.height) for _, box in regions)
    if smallest < side:
        raise VerisynthError(
            f"one image of {width}x{height} cannot be split by region: a region would be {smallest} pixels narrow, "
            f"less than tiles.side {side}; use a smaller side, larger shares, or more images"
        )
    return regions


def _repeats(length: int, side: int, share: Callable[[int], float]) -> int:
    fitting = [count for count in range(1, MAXIMUM_BANDS + 1) if share(count) * length >= 2 * side]
    return max(fitting, default=1)


def _edges(length: int, shares: list[float]) -> list[int]:
    return [0, *(round(edge) for edge in np.cumsum(shares) / sum(shares) * length)]


def check_overlap(rows: Sequence[Row], splits: Sequence[str]) -> None:
    """Refuse a split that lets training see what is held out.

    Raises:
        VerisynthError: naming the patient, the identical pixels or the overlapping details that stand in two splits.
    """
    _check_patients(rows, splits)
    _check_pixels(rows, splits)
    _check_boxes(rows, splits)


def _check_patients(rows: Sequence[Row], splits: Sequence[str]) -> None:
    homes: dict[str, tuple[Row, str]] = {}
    for row, split in zip(rows, splits, strict=True):
        first, home = homes.setdefault(row.patient, (row, split))
        one_image_by_region = row.box is not None and first.box is not None and row.source == first.source
        if split != home and not one_image_by_region:
            raise VerisynthError(
                f"patient {row.patient!r} stands in two splits: {first.source} in {home}, {row.source} in {split}"
            )


def _check_pixels(rows: Sequence[Row], splits: Sequence[str]) -> None:
    homes: dict[str, tuple[Row, str]] = {}
    for row, split in zip(rows, splits, strict=True):
        first, home = homes.setdefault(row.sha256, (row, split))
        if split != home:
            raise VerisynthError(
                f"the same pixels stand in two splits: {first.place} in {home}, {row.place} in {split}"
            )


def _check_boxes(rows: Sequence[Row], splits: Sequence[str]) -> None:
    places: dict[str, list[tuple[Box, str]]] = {}
    for row, split in zip(rows, splits, strict=True):
        if row.box is not None:
            places.setdefault(row.source, []).append((row.box, split))
    for source, placed in places.items():
        if len({split for _, split in placed}) > 1:
            _check_painted(source, placed)


def _check_painted(source: str, placed: list[tuple[Box, str]]) -> None:
    height = max(box.top + box.height for box, _ in placed)
    width = max(box.left + box.width for box, _ in placed)
    owner = np.zeros((height, width), dtype=np.uint8)
    for box, split in placed:
        number = 1 + SPLITS.index(split)
        painted = box.cut(owner)
        others = painted[(painted != 0) & (painted != number)]
        if others.size:
            raise VerisynthError(
                f"details of {source} overlap across splits: the one at left {box.left}, top {box.top} in {split} "
                f"shares {others.size} pixels with {SPLITS[int(others[0]) - 1]}"
            )
        painted[:] = number
