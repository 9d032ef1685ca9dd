"""How much an image looks like the detector's training images at all, whether real or synthetic.

A Gaussian over coarse content (colour layout, spread, energy per octave), fitted to real training
images; an image's Mahalanobis distance is read as a percentile among held-out real images.
Coarse on purpose: a generator's traces must not make its images look like another modality.
"""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from contracts.imaging import ImageSpec

LAYOUT = 4
OCTAVES = 4
KNOTS = 64
REACH = 3.0
"""Typicality ends at 0 at this multiple of the largest distance of a held-out real image."""


class ContentFeatures(nn.Module):
    """Of every channel: mean of 4 x 4 fields, standard deviation, logarithmic energy in four octaves."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.count = image.channels * (LAYOUT**2 + 1 + OCTAVES)

    def forward(self, images: Tensor) -> Tensor:
        side = images.shape[2]
        layout = F.avg_pool2d(images, side // LAYOUT).flatten(1)
        spread = images.std(dim=(2, 3))
        octaves, coarse = [], images
        for _ in range(OCTAVES - 1):
            coarser = F.avg_pool2d(coarse, 2)
            octaves.append(torch.log((coarse - F.interpolate(coarser, scale_factor=2.0)).abs().mean(dim=(2, 3)) + 1e-2))
            coarse = coarser
        octaves.append(torch.log(coarse.std(dim=(2, 3)) + 1e-2))
        return torch.cat([layout, spread, *octaves], dim=1)


class Typicality(nn.Module):
    """Images float [N, C, H, W] in [0, 1] to typicality [N] in [0, 1], 0 for unlike any."""

    mean: Tensor
    whitening: Tensor
    distances: Tensor
    percentiles: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.content = ContentFeatures(image)
        self.register_buffer("mean", torch.zeros(self.content.count))
        self.register_buffer("whitening", torch.eye(self.content.count))
        self.register_buffer("distances", torch.linspace(0, 1, KNOTS))
        self.register_buffer("percentiles", torch.linspace(1, 0, KNOTS))

    def distance(self, content: Tensor) -> Tensor:
        """Mahalanobis distance [N] of content features [N, count]."""
        return torch.sqrt((((content - self.mean) @ self.whitening) ** 2).sum(1))

    def forward(self, images: Tensor) -> Tensor:
        distance = self.distance(self.content(images))
        return _interpolate(distance, self.distances, self.percentiles)

    def take(self, train: np.ndarray, held_out: np.ndarray) -> None:
        """Fit to content features float [N, count] of real training and real held-out images."""
        gaussian = LedoitWolf().fit(train)
        values, vectors = np.linalg.eigh(gaussian.covariance_)
        self.mean = torch.from_numpy(gaussian.location_).float()
        self.whitening = torch.from_numpy(vectors / np.sqrt(values)).float()
        distances = np.sort(self.distance(torch.from_numpy(held_out).float()).numpy())
        levels = np.linspace(0, 1, KNOTS - 1)
        knots = np.quantile(distances, levels)
        percentiles = 1 - levels * len(distances) / (len(distances) + 1)
        self.distances = torch.from_numpy(np.append(knots, REACH * knots[-1])).float()
        self.percentiles = torch.from_numpy(np.append(percentiles, 0.0)).float()


def _interpolate(values: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """Piecewise linear reading of `levels` (falling) over `knots` (rising), constant outside."""
    width = (knots[1:] - knots[:-1]).clamp(min=1e-6)
    share = ((values[:, None] - knots[None, :-1]) / width).clamp(0, 1)
    # Summed from the far end, so that the last level is reached exactly.
    return levels[-1] + ((1 - share) * (levels[:-1] - levels[1:])).sum(1)
