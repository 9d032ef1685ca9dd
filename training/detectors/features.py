"""Evidence of synthesis as numbers: power spectrum, cosine bands, residual statistics, local binary patterns.

Every feature is a torch module over images float [N, C, H, W] in [0, 1], so the code that trains a
detector is the code inside its ONNX graph. Fourier and cosine transforms are matrix products:
exact, exportable, and faster in ONNX Runtime than its own operators.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec

BLOCK = 64
"""Transforms act on blocks of this side (or the image's, if smaller), so their size does not grow with the image."""
COSINE_BANDS = 32
PATTERNS = 10
LOGARITHM_FLOOR = 1e-3
"""In [0, 1] units: smaller values are rounding noise whose logarithm would differ between runtimes."""

LUMINANCE = (0.299, 0.587, 0.114)


class EvidenceFeatures(nn.Module):
    """All features of an image side by side: [N, count]."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.spectrum = PowerSpectrum(image)
        self.cosine = CosineBands(image)
        self.residuals = ResidualStatistics(image.channels)
        self.patterns = LocalBinaryPatterns(image.channels)
        self.parts = (self.spectrum, self.cosine, self.residuals, self.patterns)
        self.count = sum(part.count for part in self.parts)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.parts], dim=1)


class PowerSpectrum(nn.Module):
    """Azimuthal mean of the logarithmic power spectrum of the luminance (Durall et al., CVPR 2020).

    Blocks are freed of their mean and weighted by a Hann window; their power is averaged, then its
    rings. Ring r holds the frequencies that round to r cycles per block; the corners join the last.
    """

    cosines: Tensor
    sines: Tensor
    window: Tensor
    rings: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.block = min(BLOCK, image.size)
        self.count = self.block // 2
        angles = 2 * math.pi * torch.outer(torch.arange(self.block), torch.arange(self.block)).double() / self.block
        window = torch.hann_window(self.block, periodic=True, dtype=torch.float64)
        frequency = torch.fft.fftfreq(self.block, 1 / self.block, dtype=torch.float64)
        radius = torch.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2).round().clamp(max=self.count).long()
        rings = F.one_hot(radius.flatten(), self.count + 1)[:, 1:].double()
        _constant(self, "cosines", angles.cos())
        _constant(self, "sines", angles.sin())
        _constant(self, "window", torch.outer(window, window))
        _constant(self, "rings", rings / rings.sum(0))

    def forward(self, images: Tensor) -> Tensor:
        blocks = _blocks(luminance(images), self.block)
        blocks = (blocks - blocks.mean(dim=(2, 3), keepdim=True)) * self.window
        left, right = self.cosines @ blocks, self.sines @ blocks
        real = left @ self.cosines - right @ self.sines
        imaginary = left @ self.sines + right @ self.cosines
        power = (real**2 + imaginary**2).mean(dim=1)
        return torch.log(power.flatten(1) @ self.rings + LOGARITHM_FLOOR)


class CosineBands(nn.Module):
    """Mean logarithmic magnitude of the luminance's orthonormal DCT-II in bands of equal u + v (Frank et al., 2020)."""

    transform: Tensor
    bands: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.block = min(BLOCK, image.size)
        self.count = COSINE_BANDS
        position = torch.arange(self.block).double()
        transform = torch.cos(math.pi / self.block * torch.outer(position, position + 0.5)) * math.sqrt(2 / self.block)
        transform[0] /= math.sqrt(2)
        band = (position[:, None] + position[None, :]) * self.count / (2 * self.block - 1)
        bands = F.one_hot(band.flatten().long(), self.count).double()
        _constant(self, "transform", transform)
        _constant(self, "bands", bands / bands.sum(0))

    def forward(self, images: Tensor) -> Tensor:
        blocks = _blocks(luminance(images), self.block)
        coefficients = self.transform @ blocks @ self.transform.T
        logarithms = torch.log(coefficients.abs() + LOGARITHM_FLOOR).mean(dim=1)
        return logarithms.flatten(1) @ self.bands


class Residuals(nn.Module):
    """High-pass residuals [N, C * 4, H - 2, W - 2]: what is left of each channel when its content is predicted away.

    Second differences across and down, a 3 x 3 high-pass after the SRM filters (Fridrich and Kodovsky, 2012),
    and the diagonal difference that upsampling by two makes regular (after Tan et al., CVPR 2024).
    """

    kernels: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        kernels = torch.tensor(
            [
                [[0, 0, 0], [1, -2, 1], [0, 0, 0]],
                [[0, 1, 0], [0, -2, 0], [0, 1, 0]],
                [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]],
                [[0, 0, 0], [0, 1, -1], [0, -1, 1]],
            ],
            dtype=torch.float64,
        ) / torch.tensor([2.0, 2.0, 4.0, 2.0], dtype=torch.float64).reshape(4, 1, 1)
        self.count = channels * len(kernels)
        _constant(self, "kernels", kernels[:, None].repeat(channels, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.kernels, groups=self.channels)


class ResidualStatistics(nn.Module):
    """Of each residual: logarithms of mean magnitude and kurtosis, correlations with the neighbours across and down.

    Of colour images also the correlations of the channels' SRM residuals.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residuals = Residuals(channels)
        self.channels = channels
        self.count = 4 * self.residuals.count + (3 if channels == 3 else 0)

    def forward(self, images: Tensor) -> Tensor:
        residuals = self.residuals(images)
        power = (residuals**2).mean(dim=(2, 3)) + LOGARITHM_FLOOR**2
        features = [
            torch.log(residuals.abs().mean(dim=(2, 3)) + LOGARITHM_FLOOR),
            torch.log((residuals**4).mean(dim=(2, 3)) / power**2 + LOGARITHM_FLOOR),
            (residuals[..., 1:] * residuals[..., :-1]).mean(dim=(2, 3)) / power,
            (residuals[..., 1:, :] * residuals[..., :-1, :]).mean(dim=(2, 3)) / power,
        ]
        if self.channels == 3:
            red, green, blue = residuals[:, 2::4].unbind(1)
            for one, other in ((red, green), (green, blue), (blue, red)):
                scale = torch.sqrt(
                    ((one**2).mean(dim=(1, 2)) + LOGARITHM_FLOOR**2)
                    * ((other**2).mean(dim=(1, 2)) + LOGARITHM_FLOOR**2)
                )
                features.append(((one * other).mean(dim=(1, 2)) / scale)[:, None])
        return torch.cat(features, dim=1)


class LocalBinaryPatterns(nn.Module):
    """Histogram of rotation-invariant uniform local binary patterns (Ojala et al., 2002) per channel.

    Eight neighbours on the pixel grid, compared with >=. Bins 0 to 8: that many neighbours are at
    least as bright, in one arc; bin 9: every pattern of several arcs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.count = channels * PATTERNS

    def codes(self, images: Tensor) -> Tensor:
        """Bin of every inner pixel, int32 [N, C, H - 2, W - 2]."""
        height, width = images.shape[2] - 2, images.shape[3] - 2
        centre = images[:, :, 1:-1, 1:-1]
        circle = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
        brighter = [images[:, :, top : top + height, left : left + width] >= centre for top, left in circle]
        # Bits, summed plane by plane: a stack of eight planes of wide integers costs ten times as much.
        count, changes = torch.zeros_like(centre, dtype=torch.int32), torch.zeros_like(centre, dtype=torch.int32)
        for bit, following in zip(brighter, brighter[1:] + brighter[:1], strict=True):
            count, changes = count + bit.int(), changes + (bit ^ following).int()
        return torch.where(changes <= 2, count, torch.full_like(count, PATTERNS - 1))

    def forward(self, images: Tensor) -> Tensor:
        codes = self.codes(images)
        shares = [(codes == pattern).float().mean(dim=(2, 3)) for pattern in range(PATTERNS)]
        return torch.stack(shares, dim=2).flatten(1)


def luminance(images: Tensor) -> Tensor:
    """[N, C, H, W] to [N, H, W] (ITU-R 601)."""
    if images.shape[1] == 1:
        return images[:, 0]
    red, green, blue = LUMINANCE
    return images[:, 0] * red + images[:, 1] * green + images[:, 2] * blue


def _blocks(grey: Tensor, side: int) -> Tensor:
    """[N, H, W] to its disjoint blocks [N, H/side * W/side, side, side]."""
    down, across = grey.shape[1] // side, grey.shape[2] // side
    split = grey.reshape(-1, down, side, across, side).permute(0, 1, 3, 2, 4)
    return split.reshape(-1, down * across, side, side)


def _constant(module: nn.Module, name: str, value: Tensor) -> None:
    module.register_buffer(name, value.float(), persistent=False)
