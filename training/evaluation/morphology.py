"""What masks look like, in numbers: area, length, thickness, pieces and branching, real beside drawn.

Lengths and thicknesses are those of the skeleton (Zhang and Suen, 1984; scikit-image); for nuclei the pieces and the
area tell more.
"""

from dataclasses import dataclass, fields

import numpy as np
import scipy.ndimage
from skimage.morphology import skeletonize

NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
BRANCH_NEIGHBOURS = 3
"""A pixel of the skeleton with at least so many others around it is part of a branch point."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Morphology:
    """Of every mask, float [N]."""

    area_share: np.ndarray
    """Of the pixels, those inside."""
    length_pixels: np.ndarray
    """Of the skeleton."""
    thickness_pixels: np.ndarray
    """Mean over the skeleton; not a number where the mask is empty."""
    pieces: np.ndarray
    """Connected ones, diagonals included."""
    branch_points: np.ndarray

    @staticmethod
    def of(masks: np.ndarray) -> "Morphology":
        """Of masks uint8 [N, H, W] of 0 and 255."""
        rows = np.array([_of_one(mask > 0) for mask in masks], dtype=np.float64).reshape(-1, len(fields(Morphology)))
        return Morphology(*rows.T)


def compared(real: np.ndarray, drawn: np.ndarray, rounds: int, seed: int) -> dict[str, dict[str, float]]:
    """Of every quantity its mean over `real` and over `drawn` masks uint8 [N, H, W], and their ratio with an interval.

    The 95 % percentile bootstrap interval resamples masks of both. A quantity that real masks have none of, such as
    branches of discs, has no ratio.
    """
    random = np.random.default_rng(seed)
    one, other = Morphology.of(real), Morphology.of(drawn)
    report = {}
    for name in (field.name for field in fields(Morphology)):
        values, found = getattr(one, name), getattr(other, name)
        report[name] = {"real": _mean(values), "drawn": _mean(found)}
        if not _mean(values) > 0:
            continue
        means = np.array(
            [
                (_mean(random.choice(found, len(found))), _mean(random.choice(values, len(values))))
                for _ in range(rounds)
            ]
        )
        kept = means[means[:, 1] > 0]
        low, high = np.nanquantile(kept[:, 0] / kept[:, 1], ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        report[name] |= {"ratio": _mean(found) / _mean(values), "low": float(low), "high": float(high)}
    return report


def _of_one(inside: np.ndarray) -> tuple[float, float, float, float, float]:
    skeleton = skeletonize(inside)
    around = scipy.ndimage.convolve(skeleton.astype(int), NEIGHBOURS, mode="constant")
    depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    _, pieces = scipy.ndimage.label(inside, structure=np.ones((3, 3)))
    _, branches = scipy.ndimage.label(skeleton & (around >= BRANCH_NEIGHBOURS), structure=np.ones((3, 3)))
    thickness = float(2 * depth[skeleton].mean()) - 1 if skeleton.any() else float("nan")
    return float(inside.mean()), float(skeleton.sum()), thickness, float(pieces), float(branches)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
