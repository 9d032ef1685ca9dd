"""How well typicality tells the images that a model knows from strangers.

`strangers` are images that no biologist took: noise, plain colours, and what scikit-image bundles of photographs,
drawings and pages. They need no download.
"""

from collections.abc import Iterable

import numpy as np
from skimage import data
from torch import nn

from contracts.imaging import ImageSpec, fit
from training.detectors.detector import Detector
from training.detectors.linear_evidence import features_of
from training.detectors.ranking import area_under_curve

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "rocket")
PAGES = ("page", "text")
DRAWINGS = ("checkerboard", "horse", "logo")
PATTERNS = 32
"""Images of noise and of plain colours."""
PATTERN_SIDE_PIXELS = 256


def against_strangers(scorer: nn.Module, own: np.ndarray, spec: ImageSpec) -> dict[str, float]:
    """Area under the ROC curve by which typicality tells a model's own images from each kind of `strangers`.

    `scorer` is a detector, or a module from float [N, C, H, W] in [0, 1] to typicality [N]; `own` its held-out real
    images uint8 [N, H, W, C]. Strangers come into the form `spec` as an upload does.
    """
    known = typicality(scorer, own)
    return {
        kind: area(known, typicality(scorer, as_uploaded(found, spec))) for kind, found in strangers(spec.size).items()
    }


def area(known: np.ndarray, strange: np.ndarray) -> float:
    """Area under the ROC curve by which the typicality of known images [N] and of strange ones [M] tells them apart."""
    return area_under_curve(np.arange(len(known) + len(strange)) >= len(known), -np.concatenate([known, strange]))


def as_uploaded(images: Iterable[np.ndarray], spec: ImageSpec) -> np.ndarray:
    """Images uint8 [H, W, C] of any size in the form of a model, uint8 [M, size, size, channels].

    One where the model takes whole images; else as many as there are tiles in it.
    """
    return np.concatenate([fit(image, spec) for image in images])


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
