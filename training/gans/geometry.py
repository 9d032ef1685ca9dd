"""Masks as networks draw them: truncated signed distances, whose sign is the mask.

A hard mask teaches a generator nothing until a pixel flips, and a blurred one loses lines that are one pixel wide. The
distance to the nearest edge is smooth, tells how thick a vessel is, and is above zero exactly where the mask is.
"""

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

TRUNCATION_PIXELS = 3.0
LARGEST_OUTSIDE = 127
"""The highest level of a pixel outside the mask."""


def distances(masks: np.ndarray) -> np.ndarray:
    """Masks uint8 [N, H, W] of 0 and 255 to levels uint8 [N, H, W]: above 127 inside, 255 where an edge is far."""
    levels = np.empty_like(masks)
    for row, mask in enumerate(np.asarray(masks)):
        inside = mask > 0
        signed = np.zeros(mask.shape)
        if inside.any():
            signed += scipy.ndimage.distance_transform_edt(inside) * inside
        else:
            signed -= TRUNCATION_PIXELS
        if not inside.all():
            signed -= scipy.ndimage.distance_transform_edt(~inside) * ~inside if inside.any() else 0
        else:
            signed[:] = TRUNCATION_PIXELS
        levels[row] = np.rint(127.5 + 127.5 * np.clip(signed / TRUNCATION_PIXELS, -1, 1)).astype(np.uint8)
    return levels


def masks(levels: np.ndarray) -> np.ndarray:
    """Back from levels uint8 to masks of 0 and 255, of the same shape."""
    return np.where(levels > LARGEST_OUTSIDE, np.uint8(255), np.uint8(0))


def hard(drawn: Tensor) -> Tensor:
    """Distances float [N, 1, H, W] in [-1, 1] to masks of -1 and 1; no gradient passes."""
    return torch.where(drawn > 0, torch.ones_like(drawn), -torch.ones_like(drawn)).detach()
