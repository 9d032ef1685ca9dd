"""How much an image looks like the detector's training images at all, whether real or synthetic.

A robust distance over coarse content (layout, colours, edges per octave), fitted to real training images, is read as
a percentile among held-out real images.
Coarse on purpose: a generator's traces must not make its images look like another modality.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.detectors.features import luminance

LAYOUT = 4
BINS = 8
COARSEST_SIDE_PIXELS = 4
"""Edges are measured from half the image's size down to this side."""
LEVEL_FLOOR = 0.03
"""In [0, 1] units: fainter edges and contrasts are noise and compression, which are no other modality."""
COLOUR_FLOOR = 0.1
"""Added to levels before their ratios are taken: the colour of dark pixels is noise."""
SHARE_FLOOR = 0.01
RELATIVE_FLOOR = 0.05

FREEDOM = 3.0
"""Degrees of freedom of Student's distribution: a few strange numbers make a rare image, many another modality."""
SCALE_FLOOR = 0.03
RIDGE = 0.1
"""Added to the variance in every principal direction of the standardised features: where training images hardly vary,
compression and noise do."""

KNOTS = 64
REACH = 2.0
UNLIKE_ANY = 1e-6
"""Typicality at `REACH` times the largest distance of a held-out real image. It falls on beyond, so that what is far
from several models is still nearer to one of them."""


class ContentFeatures(nn.Module):
    """What an image shows, coarsely, as float [N, count] of images float [N, C, H, W] in [0, 1].

    Taken at half the size, since generators leave their traces in the finest octave. Square roots of the histograms of
    every channel and, of colour images, of the logarithmic ratios of red and blue to green; means of 4 x 4 fields;
    logarithms of mean edges per octave, absolute and relative to the contrast; the orientation of the finest edges
    (from the structure tensor, Bigün and Granlund, ICCV 1987). Layout and edges are those of luminance, red - green
    and blue - green.
    """

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.channels = image.channels
        self.octaves = int(math.log2(image.size // 2 // COARSEST_SIDE_PIXELS)) + 1
        histograms = image.channels + (2 if image.channels == 3 else 0)
        self.count = histograms * BINS + image.channels * LAYOUT**2 + 1 + (self.octaves - 1) * 2 * image.channels + 2

    def forward(self, images: Tensor) -> Tensor:
        half = F.avg_pool2d(images, 2)
        planes = luminance(half)[:, None]
        features = [_histogram(half, 0, 1)]
        if self.channels == 3:
            red, green, blue = half.unbind(1)
            planes = torch.cat([planes, torch.stack([red - green, blue - green], dim=1)], dim=1)
            logarithms = torch.log(half + COLOUR_FLOOR)
            features.append(_histogram(logarithms[:, 0::2] - logarithms[:, 1:2], -1, 1))
        features.append(F.avg_pool2d(planes, planes.shape[2] // LAYOUT).flatten(1))
        contrast = torch.sqrt(planes.var(dim=(2, 3)) + LEVEL_FLOOR**2)

        across, down = _edges(planes)
        # Of colours not the finest edges: JPEG halves their resolution.
        features += [torch.log(_mean_edge(across, down)[:, :1] + LEVEL_FLOOR), _orientation(across[:, 0], down[:, 0])]
        for _ in range(self.octaves - 1):
            planes = F.avg_pool2d(planes, 2)
            edge = _mean_edge(*_edges(planes))
            features += [torch.log(edge + LEVEL_FLOOR), torch.log(edge / contrast + RELATIVE_FLOOR)]
        return torch.cat(features, dim=1)


class Typicality(nn.Module):
    """Images float [N, C, H, W] in [0, 1] to typicality [N] in [0, 1], below `UNLIKE_ANY` for unlike any."""

    mean: Tensor
    whitening: Tensor
    distances: Tensor
    percentiles: Tensor
    decay: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.content = ContentFeatures(image)
        self.register_buffer("mean", torch.zeros(self.content.count))
        self.register_buffer("whitening", torch.eye(self.content.count))
        self.register_buffer("distances", torch.linspace(0, 1, KNOTS))
        self.register_buffer("percentiles", torch.linspace(1, 0, KNOTS))
        self.register_buffer("decay", torch.zeros(()))

    def distance(self, content: Tensor) -> Tensor:
        """Distance [N] of content features [N, count]: minus the logarithm of Student's density, up to constants.

        The density is the product of those of the whitened features, with `FREEDOM` degrees of freedom each.
        """
        return torch.log1p(((content - self.mean) @ self.whitening) ** 2 / FREEDOM).sum(1)

    def forward(self, images: Tensor) -> Tensor:
        distance = self.distance(self.content(images))
        beyond = (distance - self.distances[-1]).clamp(min=0)
        percentile = _interpolate(distance, self.distances, self.percentiles)
        # Sums of shares may round to more than one.
        return percentile.clamp(max=1) * torch.exp(-self.decay * beyond)

    def take(self, train: np.ndarray, held_out: np.ndarray) -> None:
        """Fit to content features float [N, count] of real training and real held-out images."""
        train = train.astype(np.float64)
        scale = np.sqrt(train.var(axis=0) + SCALE_FLOOR**2)
        gaussian = LedoitWolf().fit(train / scale)
        values, vectors = np.linalg.eigh(gaussian.covariance_)
        self.mean = torch.from_numpy(gaussian.location_ * scale).float()
        self.whitening = torch.from_numpy(vectors / np.sqrt(values + RIDGE) / scale[:, None]).float()
        distances = self.distance(torch.from_numpy(held_out).float()).double().numpy()
        levels = np.linspace(0, 1, KNOTS)
        knots = np.quantile(distances, levels)
        percentiles = 1 - levels * len(distances) / (len(distances) + 1)
        self.distances = torch.from_numpy(knots).float()
        self.percentiles = torch.from_numpy(percentiles).float()
        decay = math.log(percentiles[-1] / UNLIKE_ANY) / ((REACH - 1) * max(knots[-1], 1.0))
        self.decay = torch.tensor(decay, dtype=torch.float32)


def _histogram(planes: Tensor, low: float, high: float) -> Tensor:
    """Square roots of the shares of [N, C, H, W] in `BINS` bins: [N, C * BINS].

    A level between the centres of two bins counts in part in both, so that noise moves the shares little.
    """
    position = ((planes - low) * ((BINS - 1) / (high - low))).clamp(0, BINS - 1)
    shares = [(1 - (position - part).abs()).clamp(min=0).mean(dim=(2, 3)) for part in range(BINS)]
    return torch.sqrt(torch.cat(shares, dim=1) + SHARE_FLOOR)


def _edges(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Differences across and down at the same places: [N, C, H, W] to twice [N, C, H - 1, W - 1]."""
    corner = planes[:, :, 1:, 1:]
    return corner - planes[:, :, 1:, :-1], corner - planes[:, :, :-1, 1:]


def _mean_edge(across: Tensor, down: Tensor) -> Tensor:
    """Mean magnitude [N, C]."""
    return (across.abs() + down.abs()).mean(dim=(2, 3))


def _orientation(across: Tensor, down: Tensor) -> Tensor:
    """Cosine and sine of twice the main orientation times its coherence: [N, H, W] twice to [N, 2]."""
    energy = (across**2 + down**2).mean(dim=(1, 2)) + LEVEL_FLOOR**2
    parts = [(across**2 - down**2).mean(dim=(1, 2)), 2 * (across * down).mean(dim=(1, 2))]
    return torch.stack(parts, dim=1) / energy[:, None]


def _interpolate(values: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """Piecewise linear reading of `levels` (falling) over `knots` (rising), constant outside."""
    width = (knots[1:] - knots[:-1]).clamp(min=1e-6)
    share = ((values[:, None] - knots[None, :-1]) / width).clamp(0, 1)
    # Summed from the far end, so that the last level is reached exactly.
    return levels[-1] + ((1 - share) * (levels[:-1] - levels[1:])).sum(1)
