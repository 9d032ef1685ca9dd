"""From a source to a prepared dataset: read, cut, leave out, split, check, write."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contracts.errors import ImageError, VerisynthError
from contracts.imaging import BACKGROUND_LEVEL, foreground, with_channels
from training import progress
from training.data import masks, pairing, prepared
from training.data.items import Collection, Item, LeftOut, Pixels, UnusableError
from training.data.params import Prepare
from training.data.prepared import DatasetInfo, Row, Spool
from training.data.sources import collect
from training.data.split import by_patient, by_region, check_overlap
from training.data.tiles import Box, boxes, detail, whole

NAMES_SHOWN = 5
HELD_OUT_PART = 8
"""Validation and test need each such a part of `minimum_images`: six of 50, so that each image has five neighbours."""
DARK_LEVEL = 64
DARK_SHARE = 0.001
"""Where fewer pixels than this share reach `DARK_LEVEL`, levels were lost: dark fields of nuclei have more."""


@dataclass
class Cuttings:
    """What has been cut from the items so far; `given[i]` is the split that row `i` brings, or None."""

    rows: list[Row] = field(default_factory=list)
    given: list[str | None] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    """Items by what had to be done to them."""
    places: dict[str, str] = field(default_factory=dict)
    """First place of every pixel hash."""


def prepare(name: str, wanted: Prepare, origin: str, licence: str, folder: Path) -> DatasetInfo:
    """Prepare a dataset into `folder`, which is replaced only when the new one is complete.

    One image that cannot be used is left out by name.

    Raises:
        VerisynthError: for sources that cannot be used, too few images, and splits that overlap.
    """
    collection = collect(wanted.source)
    with prepared.staged(folder) as staging:
        spool = Spool(staging, wanted.image, collection.has_masks or wanted.masks is not None)
        try:
            cuttings = cut(collection, wanted, spool)
            if len(cuttings.rows) < wanted.minimum_images:
                raise VerisynthError(
                    f"{len(cuttings.rows)} images can be used, but minimum_images is {wanted.minimum_images}; "
                    f"left out: {summary(cuttings.left_out)}"
                )
            splits, how = assign(cuttings, wanted)
            for split in prepared.SPLITS:
                count, fewest = splits.count(split), max(1, wanted.minimum_images // HELD_OUT_PART)
                if count < fewest:
                    raise VerisynthError(
                        f"{count} images are in {split}, and at least {fewest} are needed: "
                        f"give more patients or other shares; split {how}"
                    )
            check_overlap(cuttings.rows, splits)
            kind, converted = wanted.source.kind, dict(cuttings.converted)
            card = prepared.Card(name, wanted.image, kind, origin, licence, how, converted, _doubts(collection, spool))
            info = prepared.write(staging, card, cuttings.rows, splits, spool, cuttings.left_out)
        finally:
            spool.discard()
    return info


def cut(collection: Collection, wanted: Prepare, spool: Spool) -> Cuttings:
    """Decode every item once and append what can be used to the spool, the first of exact duplicates only."""
    cuttings = Cuttings(left_out=list(collection.left_out))
    alone = len(collection.items) == 1
    with progress.bar(len(collection.items), "reading images", "files") as bar:
        for item in collection.items:
            bar.update()
            try:
                pixels = item.read()
                _check_side(pixels, wanted)
                if wanted.masks is not None:
                    pixels = masks.drawn(pixels, wanted.masks)
            except ImageError as error:
                cuttings.left_out.append(LeftOut(item.name, error.code, str(error)))
                continue
            cuttings.converted.update(_conversions(pixels, wanted))
            for split, box, piece in _pieces(item, pixels, wanted, alone, cuttings.left_out):
                sha256 = hashlib.sha256(piece.image.tobytes()).hexdigest()
                row = Row(item.name, item.patient, item.label, sha256, box)
                first = cuttings.places.setdefault(sha256, row.place)
                if first != row.place:
                    cuttings.left_out.append(LeftOut(row.place, "duplicate", f"duplicate of {first}"))
                    continue
                spool.append(piece)
                cuttings.rows.append(row)
                cuttings.given.append(split)
    return cuttings


def _doubts(collection: Collection, spool: Spool) -> list[str]:
    """What is to be looked at before anybody trusts the dataset, in words."""
    brought = spool.masks() if collection.has_masks else None
    found = [_darkness(spool.images()), None if brought is None else pairing.doubt(spool.images(), brought)]
    return [doubt for doubt in found if doubt is not None]


def _darkness(images: np.ndarray) -> str | None:
    """Whether images uint8 [N, H, W, C] look as those of 12 bits do that were stored in 16."""
    levels = np.zeros(256, np.int64)
    for image in images:
        levels += np.bincount(image.ravel(), minlength=256)
    if levels[DARK_LEVEL:].sum() >= DARK_SHARE * levels.sum():
        return None
    used = np.flatnonzero(levels)
    return (
        f"nearly all pixels lie below grey level {DARK_LEVEL} of 255 (levels found: {len(used)}, the highest "
        f"{used[-1]}): images of fewer bits than their files have are scaled by the file's bits and lose levels; "
        "scale them to the whole range before you train"
    )


def _check_side(pixels: Pixels, wanted: Prepare) -> None:
    height, width = pixels.image.shape[:2]
    if wanted.tiles is not None and min(height, width) < wanted.tiles.side:
        raise UnusableError("image_too_small", f"it is {width}x{height}, smaller than tiles.side {wanted.tiles.side}")
    if wanted.tiles is None and min(height, width) * 2 < wanted.size:
        raise UnusableError(
            "image_too_small",
            f"it is {width}x{height}, less than half of size {wanted.size}: details would be invented",
        )


def _conversions(pixels: Pixels, wanted: Prepare) -> Iterator[str]:
    height, width, channels = pixels.image.shape
    if channels != wanted.channels:
        yield "grey to colour" if channels == 1 else "colour to grey"
    side = min(height, width) if wanted.tiles is None else wanted.tiles.side
    if side < wanted.size:
        yield f"enlarged to {wanted.size} pixels"


def _pieces(
    item: Item, pixels: Pixels, wanted: Prepare, alone: bool, left_out: list[LeftOut]
) -> Iterator[tuple[str | None, Box | None, Pixels]]:
    if wanted.tiles is None:
        yield item.split, None, whole(pixels, wanted)
        return
    height, width = pixels.image.shape[:2]
    regions: Sequence[tuple[str | None, Box]] = [(item.split, Box(0, 0, width, height))]
    if alone:
        regions = by_region(width, height, wanted.tiles.side, wanted.split)
    placed = [
        (split, box) for split, region in regions for box in boxes(region, wanted.tiles.side, wanted.tiles.stride)
    ]
    grey = with_channels(pixels.image, 1)
    filled = [(split, box) for split, box in placed if foreground(box.cut(grey)) >= wanted.tiles.minimum_foreground]
    if len(filled) < len(placed):
        background = len(placed) - len(filled)
        detail_text = (
            f"{background} of {len(placed)} details have less than {wanted.tiles.minimum_foreground} "
            f"of their pixels above grey level {BACKGROUND_LEVEL}"
        )
        left_out.append(LeftOut(item.name, "little_foreground", detail_text, images=background))
    for split, box in filled:
        yield split, box, detail(pixels, box, wanted)


def assign(cuttings: Cuttings, wanted: Prepare) -> tuple[list[str], str]:
    """The split of every row, and in words how it was made."""
    given = [split for split in cuttings.given if split is not None]
    if len(given) == len(cuttings.rows):
        by_place = any(row.box is not None for row in cuttings.rows)
        return given, (
            "by region of the one image: training bands alternate with held-out bands of validation and test cells; "
            "no detail crosses a border"
            if by_place
            else "as the source gives it"
        )
    assert not given
    shares = wanted.split
    how = (
        f"by patient, stratified by label, {shares.validation:g} validation and {shares.test:g} test, "
        f"seed {shares.seed}; no patient is in two splits"
    )
    return by_patient(cuttings.rows, shares), how


def summary(left_out: Sequence[LeftOut]) -> str:
    """What was left out, by reason, with the first few names."""
    reasons: dict[str, list[LeftOut]] = {}
    for left in left_out:
        reasons.setdefault(left.reason, []).append(left)
    parts = []
    for reason, members in sorted(reasons.items()):
        names = ", ".join(left.name for left in members[:NAMES_SHOWN])
        more = ", ..." if len(members) > NAMES_SHOWN else ""
        parts.append(f"{sum(left.images for left in members)} {reason} ({names}{more})")
    return "; ".join(parts) or "none"
