"""Masks where a source has none: vessels by a ridge filter, nuclei by threshold and watershed.

They teach the dual GAN what geometry looks like; they are no ground truth, and a card should say where they come from.
"""

import numpy as np
from scipy import ndimage
from skimage import filters, segmentation
from skimage.feature import peak_local_max
from skimage.morphology import isotropic_erosion, remove_small_objects

from contracts.imaging import with_channels
from training.data.items import Pixels, UnusableError
from training.data.params import NucleusMasks, VesselMasks

FIELD_OF_VIEW_LEVEL = 20
RIM_PIXELS = 14


def drawn(pixels: Pixels, how: VesselMasks | NucleusMasks) -> Pixels:
    """An image with a mask drawn for it.

    Raises:
        UnusableError: where nothing is found in it.
    """
    assert pixels.mask is None, "params refuse masks for sources that bring their own"
    inside = vessels(pixels.image, how) if isinstance(how, VesselMasks) else nuclei(pixels.image, how)
    if not inside.any():
        raise UnusableError("mask_empty", f"masks of kind {how.kind} find nothing in it")
    return Pixels(pixels.image, inside.astype(np.uint8) * np.uint8(255))


def vessels(photograph: np.ndarray, how: VesselMasks) -> np.ndarray:
    """Dark ridges of a fundus photograph uint8 [H, W, 1 or 3], bool [H, W].

    Sato's ridge filter on the green channel, where blood absorbs most. Beside Frangi's and Meijering's it drew the most
    continuous vessels of the bundled image; it misses the finest ones and takes the rim of the optic disc for one.
    """
    green = photograph[..., photograph.shape[2] // 2].astype(np.float64) / 255
    ridges = filters.sato(green, sigmas=how.scales_pixels, black_ridges=True)
    connected = filters.apply_hysteresis_threshold(ridges, how.low, how.high)
    field_of_view = photograph.max(axis=2) > FIELD_OF_VIEW_LEVEL
    # The step from the photograph to its black surround is a ridge to the filter.
    # Where there is no surround there is no distance to it either.
    inside = field_of_view if field_of_view.all() else isotropic_erosion(field_of_view, RIM_PIXELS)
    return np.asarray(remove_small_objects(connected & inside, max_size=how.smallest_pixels))


def nuclei(image: np.ndarray, how: NucleusMasks) -> np.ndarray:
    """Bright or dark bodies of uint8 [H, W, 1 or 3], bool [H, W], touching ones parted by a line.

    Otsu's threshold on the smoothed grey image, then a watershed of the distance to the border.
    """
    grey = filters.gaussian(with_channels(image, 1)[..., 0], how.smoothing_pixels)
    if grey.max() == grey.min():
        return np.zeros(grey.shape, dtype=bool)
    threshold = filters.threshold_otsu(grey)
    bodies = remove_small_objects(grey > threshold if how.bright else grey < threshold, max_size=how.smallest_pixels)
    depth = ndimage.distance_transform_edt(bodies)
    centres = peak_local_max(depth, min_distance=how.radius_pixels, labels=bodies.astype(int))
    markers = np.zeros(grey.shape, dtype=int)
    markers[tuple(centres.T)] = np.arange(1, len(centres) + 1)
    return np.asarray(segmentation.watershed(-depth, markers, mask=bodies, watershed_line=True) > 0)
