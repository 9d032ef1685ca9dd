"""What an image looks like as numbers: colour layout, histograms, co-occurrence texture; the descriptors of the study.

Like the evidence of `features.py` they are torch modules over images float [N, C, H, W] in [0, 1]. The detectors that
are served do not read them: what an image shows is no trace of how it was made.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.detectors.features import CosineBands, LocalBinaryPatterns, PowerSpectrum, ResidualStatistics, luminance

LAYOUT = 8
LAYOUT_COEFFICIENTS = 10
"""Kept of every channel's 64, lowest frequencies first."""
COLOUR_BINS = 8
INTENSITY_BINS = 16
GREY_LEVELS = 8
DISTANCES = (1, 2, 4)
CHROMA_BLUE = (-0.168736, -0.331264, 0.5)
CHROMA_RED = (0.5, -0.418688, -0.081312)


class ColourLayout(nn.Module):
    """Colour layout after MPEG-7 (Kasutani and Yamada, ICIP 2001): each channel's 8 x 8 means, cosine-transformed.

    Luminance and, of colour images, both chrominances (ITU-R 601); the ten lowest coefficients in zigzag order.
    """

    transform: Tensor
    order: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.channels = image.channels
        self.count = image.channels * LAYOUT_COEFFICIENTS
        position = torch.arange(LAYOUT).double()
        transform = torch.cos(math.pi / LAYOUT * torch.outer(position, position + 0.5)) * math.sqrt(2 / LAYOUT)
        transform[0] /= math.sqrt(2)
        zigzag = sorted(
            ((row, column) for row in range(LAYOUT) for column in range(LAYOUT)),
            key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
        )
        self.register_buffer("transform", transform.float(), persistent=False)
        order = torch.tensor([row * LAYOUT + column for row, column in zigzag[:LAYOUT_COEFFICIENTS]])
        self.register_buffer("order", order, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        grey = luminance(images)
        planes = [grey]
        if self.channels == 3:
            planes += [_weighted(images, CHROMA_BLUE), _weighted(images, CHROMA_RED)]
        means = F.avg_pool2d(torch.stack(planes, dim=1), images.shape[2] // LAYOUT)
        coefficients = (self.transform @ means @ self.transform.T).flatten(2)
        return coefficients[:, :, self.order].flatten(1)


class Histogram(nn.Module):
    """Share of pixels in each of `bins` equal parts of [0, 1], of every channel or of the luminance alone."""

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.count = channels * bins

    def forward(self, images: Tensor) -> Tensor:
        level = (images * self.bins).long().clamp(max=self.bins - 1)
        shares = [(level == part).float().mean(dim=(2, 3)) for part in range(self.bins)]
        return torch.stack(shares, dim=2).flatten(1)


class ColourHistogram(Histogram):
    """Histogram of every channel."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__(image.channels, COLOUR_BINS)


class IntensityHistogram(Histogram):
    """Histogram of the luminance."""

    def __init__(self, image: ImageSpec) -> None:  # noqa: ARG002 - every descriptor is made of an image's form
        super().__init__(1, INTENSITY_BINS)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(luminance(images)[:, None])


class CoOccurrence(nn.Module):
    """Texture after Haralick et al. (IEEE SMC, 1973) of the luminance in eight levels.

    Of the symmetric co-occurrence matrices of right and down neighbours together, at 1, 2 and 4 pixels: contrast,
    dissimilarity, homogeneity, energy, and correlation (0 where there is one level only).
    """

    weights: Tensor

    def __init__(self, image: ImageSpec) -> None:  # noqa: ARG002
        super().__init__()
        self.count = 5 * len(DISTANCES)
        level = torch.arange(GREY_LEVELS).double()
        gap = (level[:, None] - level[None, :]).flatten()
        one = level[:, None].expand(GREY_LEVELS, GREY_LEVELS).flatten()
        other = level[None, :].expand(GREY_LEVELS, GREY_LEVELS).flatten()
        weights = torch.stack([gap**2, gap.abs(), 1 / (1 + gap**2), one, one**2, one * other], dim=1)
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        level = (luminance(images) * GREY_LEVELS).long().clamp(max=GREY_LEVELS - 1)
        member = F.one_hot(level, GREY_LEVELS).float()
        features = []
        for distance in DISTANCES:
            across = _pairs(member[:, :, :-distance], member[:, :, distance:])
            down = _pairs(member[:, :-distance], member[:, distance:])
            shares = across + down + (across + down).transpose(1, 2)
            shares = (shares / shares.sum(dim=(1, 2), keepdim=True)).flatten(1)
            contrast, dissimilarity, homogeneity, mean, square, product = (shares @ self.weights).unbind(1)
            variance, covariance = square - mean**2, product - mean**2
            single = variance < 1e-5
            correlation = torch.where(single, torch.zeros_like(mean), covariance / (variance + single.float()))
            energy = torch.sqrt((shares**2).sum(1))
            features += [contrast, dissimilarity, homogeneity, energy, correlation]
        return torch.stack(features, dim=1)


class Descriptors(nn.Module):
    """All descriptors and all evidence of an image side by side: [N, count]."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {
                "colour_layout": ColourLayout(image),
                "colour_histogram": ColourHistogram(image),
                "intensity_histogram": IntensityHistogram(image),
                "co_occurrence": CoOccurrence(image),
                "local_binary_patterns": LocalBinaryPatterns(image.channels),
                "power_spectrum": PowerSpectrum(image),
                "cosine_bands": CosineBands(image),
                "residual_statistics": ResidualStatistics(image.channels),
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.parts.values()], dim=1)


def _pairs(one: Tensor, other: Tensor) -> Tensor:
    """How often each pair of levels occurs: [N, H, W, L] twice to [N, L, L]."""
    return one.flatten(1, 2).transpose(1, 2) @ other.flatten(1, 2)


def _weighted(images: Tensor, weights: tuple[float, float, float]) -> Tensor:
    red, green, blue = weights
    return images[:, 0] * red + images[:, 1] * green + images[:, 2] * blue
