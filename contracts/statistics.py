"""Simple statistics of an image, and their histograms over a set: what input drift is measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = ("brightness", "contrast", "sharpness", "saturation")
BINS = 10


def image_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """Per-image statistics, each float32 [N] in grey levels (0 to 255), of uint8 images [N, H, W, C].

    brightness: mean; contrast: standard deviation; sharpness: mean absolute difference of
    horizontal and vertical neighbours; saturation: mean over pixels of the largest minus the
    smallest channel (0 for grey images).
    """
    # Reductions over whole planes; over a last axis of three, numpy takes ten times as long.
    planes = np.ascontiguousarray(np.moveaxis(images, 3, 0))
    grey = planes.sum(axis=0, dtype=np.float32) / np.float32(len(planes))
    across = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    down = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2))
    return {
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
        "sharpness": (across + down) / 2,
        "saturation": (planes.max(axis=0) - planes.min(axis=0)).mean(axis=(1, 2), dtype=np.float32),
    }


@dataclass(frozen=True)
class Reference:
    """Histograms of the statistics over real images: `edges` and `proportions` per feature."""

    edges: dict[str, np.ndarray]
    proportions: dict[str, np.ndarray]

    @staticmethod
    def of(images: np.ndarray) -> "Reference":
        """Histograms with (at most) decile bins over uint8 images [N, H, W, C]; the outer bins are open."""
        edges, proportions = {}, {}
        for feature, values in image_statistics(images).items():
            inner = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
            edges[feature] = inner.astype(np.float32)
            proportions[feature] = histogram(values, edges[feature])
        return Reference(edges, proportions)

    def write(self, path: Path) -> None:
        arrays: dict[str, Any] = {f"edges_{feature}": self.edges[feature] for feature in FEATURES}
        arrays |= {f"proportions_{feature}": self.proportions[feature] for feature in FEATURES}
        np.savez(path, **arrays)

    @staticmethod
    def read(path: Path) -> "Reference":
        with np.load(path, allow_pickle=False) as arrays:
            return Reference(
                edges={feature: arrays[f"edges_{feature}"] for feature in FEATURES},
                proportions={feature: arrays[f"proportions_{feature}"] for feature in FEATURES},
            )


def histogram(values: np.ndarray, inner_edges: np.ndarray) -> np.ndarray:
    """Share of `values` in each bin, float32 [len(inner_edges) + 1]; the outer bins are open."""
    bins = np.searchsorted(inner_edges, values, side="right")
    counts = np.bincount(bins, minlength=len(inner_edges) + 1)
    return (counts / max(1, len(values))).astype(np.float32)
