"""The two real bioimages inside the scikit-image wheel: each is one image, cut into details and split by region."""

import numpy as np
from skimage import data, filters
from skimage.morphology import isotropic_erosion, remove_small_objects

from training.data.items import Collection, Item, Pixels
from training.data.params import SkimageSource

FIELD_OF_VIEW_LEVEL = 20
RIM_PIXELS = 14


def collect(source: SkimageSource) -> Collection:
    """The one item of a bundled image; the retina comes with a vessel mask."""
    if source.image == "retina":
        return Collection([Item("retina.jpg", "retina.jpg", None, _retina)], has_masks=True)
    return Collection([Item("ihc.png", "ihc.png", None, lambda: Pixels(data.immunohistochemistry()))])


def _retina() -> Pixels:
    photograph = data.retina()
    return Pixels(photograph, vessels(photograph))


def vessels(photograph: np.ndarray) -> np.ndarray:
    """Dark ridges of a fundus photograph uint8 [H, W, 3], about 1400 pixels wide: mask uint8 [H, W] of 0 and 255.

    Sato's ridge filter on the green channel, where blood absorbs most. Beside Frangi's and
    Meijering's it drew the most continuous vessels of the bundled image; it misses the finest
    ones and takes the rim of the optic disc for one.
    """
    green = photograph[..., 1].astype(np.float64) / 255
    ridges = filters.sato(green, sigmas=(2, 3, 4), black_ridges=True)
    connected = filters.apply_hysteresis_threshold(ridges, 0.013, 0.026)
    field_of_view = photograph.max(axis=2) > FIELD_OF_VIEW_LEVEL
    # The step from the photograph to its black surround is a ridge to the filter.
    inside = isotropic_erosion(field_of_view, RIM_PIXELS)
    kept = np.asarray(remove_small_objects(connected & inside, max_size=200))
    return kept.astype(np.uint8) * np.uint8(255)
