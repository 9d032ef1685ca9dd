"""Do masks belong to their images? Files that are shuffled look right one by one, and teach a generator nothing.

Where a mask ends, its image changes. So an image's gradients follow the edges of its own mask more closely than those
of other masks, in every set that was tried; `docs/data.md` has the numbers.
"""

import numpy as np

from contracts.imaging import with_channels

FEWEST_IMAGES = 20
MOST_IMAGES = 256
LEAST_SHARE = 0.9
"""Of images that follow their own mask: 0.99 and more where masks belong, a half where they are shuffled."""


def doubt(images: np.ndarray, masks: np.ndarray) -> str | None:
    """Why masks uint8 [N, H, W] do not seem to belong to images uint8 [N, H, W, C], in words; None where they do.

    Of at most `MOST_IMAGES`, evenly chosen. Fewer than `FEWEST_IMAGES` are not doubted.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int))
    share = share_of_followers(np.asarray(images[chosen]), np.asarray(masks[chosen]))
    if share is None or share >= LEAST_SHARE:
        return None
    return (
        f"only {share:.0%} of {len(chosen)} images follow the edges of their own mask more closely than those of most "
        "other masks, where 99 % is usual and 50 % is chance: masks may belong to other images; look at some pairs "
        "before you train"
    )


def share_of_followers(images: np.ndarray, masks: np.ndarray) -> float | None:
    """Share of images whose gradients correlate more with the edges of their own mask than with the median other's.

    Images uint8 [N, H, W, C], masks uint8 [N, H, W]; None where fewer than `FEWEST_IMAGES` have edges and gradients.
    """
    grey = np.stack([with_channels(image, 1)[..., 0] for image in images])
    steepness, edges = (_standardised(_steepness(planes)) for planes in (grey, np.where(masks > 0, 255, 0)))
    told = steepness.any(axis=1) & edges.any(axis=1)
    if told.sum() < FEWEST_IMAGES:
        return None
    agreement = steepness[told] @ edges[told].T
    own = np.diag(agreement).copy()
    np.fill_diagonal(agreement, np.nan)
    return float((own > np.nanmedian(agreement, axis=1)).mean())


def _steepness(planes: np.ndarray) -> np.ndarray:
    """Length of the gradient float32 [N, H, W] of [N, H, W], by central differences."""
    down, right = np.gradient(planes.astype(np.float32), axis=(1, 2))
    return np.asarray(np.hypot(down, right))


def _standardised(planes: np.ndarray) -> np.ndarray:
    """Each plane as a vector float32 [N, H * W] of mean 0 and length 1, or of zeros where it is even."""
    flat = planes.reshape(len(planes), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(np.where(length > 1e-3, centred / np.maximum(length, 1e-3), 0))
