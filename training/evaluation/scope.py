"""How well typicality tells the images that a model knows from all others: sets of other kinds, and strangers.

`strangers` are images that no biologist took: noise, plain colours, and what scikit-image bundles of photographs,
drawings and pages. They need no download.
"""

from collections.abc import Mapping

import numpy as np
from skimage import data
from torch import nn

from contracts.imaging import ImageSpec, fit
from training.detectors.detector import Detector
from training.detectors.linear_evidence import features_of
from training.evaluation.detection import area_under_curve

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "rocket")
PAGES = ("page", "text")
DRAWINGS = ("checkerboard", "horse", "logo")
PATTERNS = 32
"""Images of noise and of plain colours."""
PATTERN_SIDE_PIXELS = 256
MAXIMUM_IMAGES = 256
"""Of another set; a larger one is thinned evenly."""


def pairs(
    scorers: Mapping[str, nn.Module], images: Mapping[str, np.ndarray], specs: Mapping[str, ImageSpec]
) -> dict[str, dict[str, float]]:
    """Area under the ROC curve by which each set's typicality tells its own images from every other set's.

    `scorers` maps names to detectors, or to modules from float [N, C, H, W] in [0, 1] to typicality [N];
    `images` to held-out real images uint8 [N, H, W, C]; `specs` to what each scorer takes. Returns
    areas[own][other]; other images come into the scorer's form as an upload does.
    """
    return {
        own: {
            other: _area(scorer, images[own], list(_thinned(found)), specs[own])
            for other, found in images.items()
            if other != own
        }
        for own, scorer in scorers.items()
    }


def against_strangers(scorer: nn.Module, own: np.ndarray, spec: ImageSpec) -> dict[str, float]:
    """The area under the ROC curve against each kind of `strangers`; `scorer` and `own` as in `pairs`."""
    return {kind: _area(scorer, own, found, spec) for kind, found in strangers(spec.size).items()}


def strangers(tile_side: int) -> dict[str, list[np.ndarray]]:
    """Images of nothing that a model is trained on, each uint8 [H, W, 1 or 3] of a size of its own, by kind.

    `noise`, `plain`, and of each of `photographs`, `pages` and `drawings` the whole images and tiles of them
    (`photograph_tiles`, ...) of `tile_side` and twice `tile_side` pixels. The same images at every call.
    """
    random = np.random.default_rng(0)
    side = PATTERN_SIDE_PIXELS
    kinds = {
        "noise": list(random.integers(0, 256, (PATTERNS, tile_side, tile_side, 3), dtype=np.uint8)),
        "plain": [
            np.tile(colour, (side, side, 1)) for colour in random.integers(0, 256, (PATTERNS, 3), dtype=np.uint8)
        ],
    }
    for kind, names in (("photograph", PHOTOGRAPHS), ("page", PAGES), ("drawing", DRAWINGS)):
        whole = [_bundled(name) for name in names]
        kinds[f"{kind}s"] = whole
        kinds[f"{kind}_tiles"] = [
            tile for image in whole for factor in (1, 2) for tile in _tiles(image, factor * tile_side)
        ]
    return {kind: found for kind, found in kinds.items() if found}


def typicality(scorer: nn.Module, images: np.ndarray) -> np.ndarray:
    """Typicality float [N] of uint8 images [N, H, W, C] in the scorer's form."""
    module = scorer.typicality if isinstance(scorer, Detector) else scorer
    return features_of(images, module)


def _area(scorer: nn.Module, own: np.ndarray, others: list[np.ndarray], spec: ImageSpec) -> float:
    converted = np.concatenate([fit(image, spec) for image in others])
    known, strange = typicality(scorer, own), typicality(scorer, converted)
    is_strange = np.arange(len(known) + len(strange)) >= len(known)
    return area_under_curve(is_strange, -np.concatenate([known, strange]))


def _thinned(images: np.ndarray) -> np.ndarray:
    rows = np.linspace(0, len(images) - 1, min(len(images), MAXIMUM_IMAGES)).round().astype(int)
    thinned: np.ndarray = images[rows]
    return thinned


def _bundled(name: str) -> np.ndarray:
    """One of scikit-image's images as uint8 [H, W, 1 or 3]."""
    pixels = np.asarray(getattr(data, name)())
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    return pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]


def _tiles(image: np.ndarray, side: int) -> list[np.ndarray]:
    """The tiles that an upload of this size is judged by; none where the image is smaller than one."""
    if min(image.shape[:2]) < side:
        return []
    return list(fit(image, ImageSpec(side, image.shape[2], tile_side=side)))
