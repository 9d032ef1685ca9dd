"""What masks look like, in numbers: area, length, thickness, pieces and branching, real beside drawn.

Lengths are those of the skeleton (Zhang and Suen, 1984; scikit-image), in its pixels; thickness is area by length. For
nuclei the pieces and the area tell more.
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
    """Area by length of the skeleton; not a number where there is none."""
    pieces: np.ndarray
    """Connected ones, diagonals included."""
    branch_points: np.ndarray

    @staticmethod
    def of(masks: np.ndarray) -> "Morphology":
        """Of masks uint8 [N, H, W] of 0 and 255."""
        rows = np.array([_of_one(mask > 0) for mask in masks], dtype=np.float64).reshape(-1, len(fields(Morphology)))
        return Morphology(*rows.T)


def compared(
    real: np.ndarray, real_groups: np.ndarray, drawn: np.ndarray, drawn_groups: np.ndarray, rounds: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Of every quantity its mean over `real` and over `drawn` masks uint8 [N, H, W], and their ratio with an interval.

    The 95 % percentile bootstrap interval resamples the groups str [N] of both, so that what is not independent counts
    together. A mean is None where no mask has the quantity; one that real masks have none of in some resample, such as
    branches of discs, has no ratio.
    """
    random = np.random.default_rng(seed)
    one, other = vars(Morphology.of(real)), vars(Morphology.of(drawn))
    real_weights, drawn_weights = (_weights(groups, rounds, random) for groups in (real_groups, drawn_groups))
    report: dict[str, dict[str, float | None]] = {}
    for name in one:
        values, found = _means(one[name], real_weights), _means(other[name], drawn_weights)
        report[name] = {"real": _or_none(values[0]), "drawn": _or_none(found[0])}
        if values.min() > 0 and np.isfinite(found).all():
            ratios = found / values
            low, high = np.quantile(ratios[1:], ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
            report[name] |= {"ratio": float(ratios[0]), "low": float(low), "high": float(high)}
    return report


def _of_one(inside: np.ndarray) -> tuple[float, float, float, float, float]:
    skeleton = skeletonize(inside)
    around = scipy.ndimage.convolve(skeleton.astype(int), NEIGHBOURS, mode="constant")
    _, pieces = scipy.ndimage.label(inside, structure=np.ones((3, 3)))
    _, branches = scipy.ndimage.label(skeleton & (around >= BRANCH_NEIGHBOURS), structure=np.ones((3, 3)))
    length = int(skeleton.sum())
    thickness = float(inside.sum() / length) if length else float("nan")
    return float(inside.mean()), float(length), thickness, float(pieces), float(branches)


def _weights(groups: np.ndarray, rounds: int, random: np.random.Generator) -> np.ndarray:
    """How often each mask counts, int64 [1 + rounds, N]: once, then as often as its group is drawn with replacement."""
    names, members = np.unique(groups, return_inverse=True)
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rounds)
    return np.concatenate([np.ones((1, len(names)), dtype=np.int64), drawn])[:, members]


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means float [rows] of values [N] under weights [rows, N]; values that are no number are left out."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(weights[:, known] @ values[known] / weights[:, known].sum(axis=1))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
