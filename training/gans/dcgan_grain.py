"""DCGAN with adaptive augmentation whose generator enlarges by nearest neighbours and draws grain from noise.

Transposed convolutions leave a grid where their kernels overlap unevenly; resizing first does not (Odena, Dumoulin,
Olah, "Deconvolution and Checkerboard Artifacts", Distill, 2016). What is enlarged is smooth, though, and photographs
are not: they have a grain that nothing in the picture determines. A generator that has to make it of its features makes
a pattern instead. So grain is noise of its own, as in StyleGAN (Karras, Laine, Aila, CVPR 2019, arXiv 1812.04948): the
generator says how much of it there is where, and of which colour.

A part of the latent is that noise, so that an image remains a function of one short vector. `GrainFields` makes as many
pixels of it as an image has.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.gans.dcgan import Generator
from training.gans.dcgan_ada import DcganAda
from training.params import Recipe
from training.reading import ParamsError

GRAIN_SIZE = 64
"""Of the latent, the last ones, what grain is made of."""
GRAIN_BLURS = (0.15, 0.15, 0.25, 0.25)
"""For each kind of grain, the share of a pixel's noise that each neighbour in its row gets, then each in its column.
Cameras, compression and resizing leave no white noise behind."""
GRAIN_SCALE = 0.05
"""Grain is easily learned, and a discriminator that is busy with it forgets shapes: so it changes slowly."""


class DcganGrain(DcganAda):
    """The discriminator, losses and augmentation of `dcgan_ada` before a generator that draws grain."""

    @staticmethod
    def make_generator(image: ImageSpec, settings: Recipe, classes: int) -> Generator:
        """Resized convolutions, and grain."""
        if settings.latent_size <= GRAIN_SIZE:
            raise ParamsError(f"recipe dcgan_grain needs a latent_size above {GRAIN_SIZE}, not {settings.latent_size}")
        return GrainGenerator(image, settings.latent_size, settings.width, classes)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """As DCGAN; grain begins as light of about a grey level."""
        DcganAda.initialise(module)
        if isinstance(module, GrainyHead):
            nn.init.constant_(module.colours.weight, 0.1)


class GrainGenerator(Generator):
    """Resized convolutions draw from the latents before the last `GRAIN_SIZE`; these are the grain's alone."""

    def __init__(self, image: ImageSpec, latent_size: int, width: int, classes: int) -> None:
        head = GrainyHead(width, image.channels)
        super().__init__(image, latent_size - GRAIN_SIZE, width, classes, resized, head)
        self.fields = GrainFields(image.size)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        finest = self.finest(latent[:, :-GRAIN_SIZE], label)
        return torch.tanh(self.head(finest, self.fields(latent[:, -GRAIN_SIZE:])))


def resized(wide: int, narrow: int) -> list[nn.Module]:
    """The way to double a side that leaves no grid."""
    return [ResizedConvolution(wide, narrow, bias=False)]


class ResizedConvolution(nn.ConvTranspose2d):
    """Features float [N, in, H, W] to [N, out, 2 H, 2 W]: nearest neighbours, borders repeated, convolved by 3 x 3.

    Just that is done by a transposed convolution whose kernel of 4 x 4 is the one of 3 x 3 on the four places of a
    doubled pixel, added up. It reads four features for each pixel, not nine.
    """

    def __init__(self, wide: int, narrow: int, bias: bool = True) -> None:
        super().__init__(wide, narrow, 3, bias=bias)

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: ARG002
        rows = F.pad(self.weight, (0, 0, 0, 1)) + F.pad(self.weight, (0, 0, 1, 0))
        kernel = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
        bordered = F.pad(features, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(bordered, kernel, self.bias, stride=2, padding=3)


class GrainFields(nn.Module):
    """Noise float [N, GRAIN_SIZE] to fields float [N, kinds, side, side] of unit power, blurred as `GRAIN_BLURS` says.

    Sums of products of random rows and columns, drawn once: they have the covariance of such noise nearly, and cost
    next to nothing.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        lines = torch.randn(2, len(GRAIN_BLURS), GRAIN_SIZE, side)
        share = torch.tensor(GRAIN_BLURS)[:, None, None]
        lines = (1 - 2 * share) * lines + share * (lines.roll(1, -1) + lines.roll(-1, -1))
        rows, columns = lines / ((1 - 2 * share) ** 2 + 2 * share**2).sqrt()
        self.register_buffer("rows", rows.transpose(1, 2).contiguous())
        self.register_buffer("columns", columns / GRAIN_SIZE**0.5)

    def forward(self, noise: Tensor) -> Tensor:
        return (self.rows * noise[:, None, None]) @ self.columns


class GrainyHead(nn.Module):
    """The finest layer float [N, width, H, W] and fields [N, kinds, 2 H, 2 W] to images, before their tanh."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.smooth = ResizedConvolution(width, channels)
        self.strength = nn.Conv2d(width, len(GRAIN_BLURS), 1, bias=False)
        self.colours = nn.Conv2d(len(GRAIN_BLURS), channels, 1, bias=False)

    def forward(self, finest: Tensor, fields: Tensor) -> Tensor:
        smooth: Tensor = self.smooth(finest)
        strength = F.interpolate(torch.sigmoid(self.strength(finest)), scale_factor=2.0)
        grain: Tensor = self.colours(strength * fields)
        return smooth + GRAIN_SCALE * grain
