"""How far statistics of synthetic pairs lie from those of real ones, and how varied both sets are.

Guibas et al. (arXiv 1709.01872) compare real and synthetic sets by the Kullback-Leibler divergence of their histograms.
Here every quantity has one: grey levels, the image statistics that drift is measured on, and what `morphology` finds of
masks. Beside each stands the floor: real held-out images in the place of synthetic ones.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from contracts.statistics import image_statistics
from training.evaluation.morphology import Morphology

LEVEL_BINS = 32
VALUE_BINS = 10
SMOOTHING = 0.5
"""Counts added to every bin (Jeffreys), so that an empty one is unlikely and not impossible."""
DISTANT_PAIRS = 2000


@dataclass(frozen=True)
class Quantities:
    """What is compared, by name: `levels` float [pixels], all others float [images]."""

    values: dict[str, np.ndarray]

    @staticmethod
    def of(images: np.ndarray, masks: np.ndarray) -> "Quantities":
        """Of images uint8 [N, H, W, C] and masks uint8 [N, H, W] of 0 and 255."""
        found = {f"mask {name.replace('_', ' ')}": values for name, values in vars(Morphology.of(masks)).items()}
        return Quantities({"grey levels": np.asarray(images).ravel()} | image_statistics(np.asarray(images)) | found)


@dataclass(frozen=True)
class Dispersion:
    """Of one quantity, the divergence in nats of training images from others."""

    synthetic: float
    floor: float
    """The same from held-out real images."""


def report(train: Quantities, test: Quantities, synthetic: Quantities) -> dict[str, dict[str, float]]:
    """`Dispersion` of every quantity, as plain numbers."""
    return {
        name: asdict(
            Dispersion(
                divergence(values, synthetic.values[name], _edges(name, values)),
                divergence(values, test.values[name], _edges(name, values)),
            )
        )
        for name, values in train.values.items()
    }


def divergence(real: np.ndarray, other: np.ndarray, inner_edges: np.ndarray) -> float:
    """Kullback-Leibler divergence of `real` from `other` in nats, over bins between `inner_edges`, the outer ones open.

    Half a count is added to every bin; values that are no number, such as the thickness of no vessel, are left out.
    """
    shares = []
    for values in (real, other):
        bins = np.searchsorted(inner_edges, values[np.isfinite(values)], side="right")
        counts = np.bincount(bins, minlength=len(inner_edges) + 1) + SMOOTHING
        shares.append(counts / counts.sum())
    return float((shares[0] * np.log(shares[0] / shares[1])).sum())


def diversity(images: np.ndarray, seed: int) -> float:
    """Mean root mean square difference in grey levels of pairs of images uint8 [N, ...] drawn at random."""
    random = np.random.default_rng(seed)
    first = random.integers(len(images), size=DISTANT_PAIRS)
    second = (first + random.integers(1, len(images), size=DISTANT_PAIRS)) % len(images)
    flat = np.asarray(images).reshape(len(images), -1)
    return float(
        np.mean(
            [
                np.sqrt(np.mean((flat[one].astype(np.float32) - flat[other]) ** 2))
                for one, other in zip(first, second, strict=True)
            ]
        )
    )


def varied(**images: np.ndarray) -> dict[str, float]:
    """`diversity` of several sets, by name."""
    return {name: diversity(found, seed=0) for name, found in images.items()}


def _edges(name: str, values: np.ndarray) -> np.ndarray:
    """Even bins for grey levels; for all else deciles of the training images, each once."""
    if name == "grey levels":
        return np.linspace(0, 256, LEVEL_BINS + 1)[1:-1]
    finite: Any = values[np.isfinite(values)]
    return np.unique(np.quantile(finite, np.linspace(0, 1, VALUE_BINS + 1)[1:-1]))
