"""Does the heatmap point at the evidence? Synthetic regions in real images, and what the heat makes of them.

The pasting itself could be what heats up, so the same region of another real image is pasted in the same place of the
same image, and both are compared. This is the pointing game of Zhang et al. (IJCV 2018) with an area under the curve in
place of the one hottest point.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.detectors.ranking import area_under_curve
from training.evaluation.detection import CONFIDENCE

MOST_PAIRS = 100
SIDE_SHARE = 0.5
"""Side of the region as a share of the image's."""
FEATHER = 2
"""Pixels over which the region fades in, inside its edge."""
BOOTSTRAP_ROUNDS = 1000
BATCH = 50


@dataclass(frozen=True)
class Pasted:
    """Real images with one region each of another image, and where it is."""

    with_synthetic: np.ndarray
    """uint8 [N, H, W, C]: the region is of a synthetic image."""
    with_real: np.ndarray
    """uint8 [N, H, W, C]: the same images and places, the region of another real image."""
    regions: np.ndarray
    """float32 [N, H, W] in [0, 1]: how much of a pixel is pasted."""


def pasted(real: np.ndarray, synthetic: np.ndarray, seed: int) -> Pasted:
    """At most 100 pairs drawn from real and synthetic images uint8 [N, H, W, C], at least two real ones."""
    random = np.random.default_rng(seed)
    assert len(real) >= 2
    count = min(MOST_PAIRS, len(real), len(synthetic))
    order = random.permutation(len(real))
    hosts, others = real[order[:count]], real[np.roll(order, 1)[:count]]
    donors = synthetic[random.permutation(len(synthetic))[:count]]
    areas = regions(count, real.shape[1], real.shape[2], random)
    return Pasted(paste(hosts, donors, areas), paste(hosts, others, areas), areas)


def regions(count: int, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Squares of half the shorter side at random places, faded in over two pixels; float32 [count, height, width]."""
    side = int(min(height, width) * SIDE_SHARE)
    starts = random.integers((height - side + 1, width - side + 1), size=(count, 2))
    down, across = (_faded(starts[:, axis], side, length) for axis, length in enumerate((height, width)))
    return np.asarray(np.minimum(down[:, :, None], across[:, None, :]))


def paste(hosts: np.ndarray, donors: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Donors laid over hosts, both uint8 [N, H, W, C], as far as areas float [N, H, W] say."""
    share = areas[..., None]
    mixed: np.ndarray = np.rint(share * donors + (1 - share) * hosts)
    return mixed.astype(np.uint8)


@torch.inference_mode()
def heat(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Heatmaps float32 [N, h, w] of uint8 images [N, H, W, C]."""
    parts = [
        model(torch.from_numpy(np.array(images[start : start + BATCH])))[2] for start in range(0, len(images), BATCH)
    ]
    return torch.cat(parts).numpy()


def pointing(model: nn.Module, real: np.ndarray, synthetic: np.ndarray, seed: int) -> dict[str, Any]:
    """How well the heat of a cell tells whether it lies in the pasted region; images uint8 [N, H, W, C].

    The AUC of the cells of an image, averaged over the images: 0.5 is chance, 1 is all heat in the region. Once with
    synthetic regions, once with real ones, and the difference image by image, each with a 95 % percentile bootstrap
    interval that takes pairs as independent.
    """
    pairs = pasted(real, synthetic, seed)
    areas = pairs.regions
    found = {
        "synthetic_region": _areas_under_curve(heat(model, pairs.with_synthetic), areas),
        "real_region": _areas_under_curve(heat(model, pairs.with_real), areas),
    }
    found["difference"] = found["synthetic_region"] - found["real_region"]
    random = np.random.default_rng(seed)
    draws = random.integers(len(areas), size=(BOOTSTRAP_ROUNDS, len(areas)))
    return {"pairs": len(areas)} | {name: _mean(values, draws) for name, values in found.items()}


def on_grid(areas: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cells bool [N, height, width] of which at least half is pasted, of areas float [N, H, W]."""
    shares = F.adaptive_avg_pool2d(torch.from_numpy(areas)[:, None], (height, width))[:, 0]
    return np.asarray(shares.numpy() >= 0.5)


def _faded(starts: np.ndarray, side: int, length: int) -> np.ndarray:
    """A region's share of each row or column, float32 [N, length]."""
    inward = np.arange(length)[None] - starts[:, None]
    share: np.ndarray = np.clip(np.minimum(inward + 1, side - inward) / (FEATHER + 1), 0, 1)
    return share.astype(np.float32)


def _areas_under_curve(maps: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Of the cells of each heatmap [N, h, w], float [N]."""
    inside = on_grid(areas, *maps.shape[1:])
    return np.array([area_under_curve(one.ravel(), cells.ravel()) for one, cells in zip(inside, maps, strict=True)])


def _mean(values: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(values[draws].mean(axis=1), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}
