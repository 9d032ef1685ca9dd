"""DCGAN with adaptive augmentation whose generator enlarges by nearest neighbours and draws grain from noise.

Transposed convolutions leave a grid where their kernels overlap unevenly; resizing first does not (Odena, Dumoulin,
Olah, "Deconvolution and Checkerboard Artifacts", Distill, 2016). What is enlarged is smooth, though, and photographs
are not: they have a grain that nothing in the picture determines. A generator that has to make it of its features makes
a pattern instead. So grain is noise of its own, as in StyleGAN (Karras, Laine, Aila, CVPR 2019, arXiv 1812.04948): the
generator says how much of it there is where, and of which colour.

A part of the latent is that noise, so that an image remains a function of one short vector. `WhiteField` makes as many
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
GRAIN_KINDS = 4
"""Filters of the noise, each with a strength and a colour of its own."""
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
        """As DCGAN; grain begins as white light of about a grey level."""
        DcganAda.initialise(module)
        if isinstance(module, GrainyHead):
            nn.init.normal_(module.filters.weight, 0.0, 0.1)
            module.filters.weight.data[..., 1, 1] += 1
            nn.init.constant_(module.colours.weight, 0.1)


class GrainGenerator(Generator):
    """Resized convolutions draw from the latents before the last `GRAIN_SIZE`; these are the grain's alone."""

    def __init__(self, image: ImageSpec, latent_size: int, width: int, classes: int) -> None:
        head = GrainyHead(width, image.channels)
        super().__init__(image, latent_size - GRAIN_SIZE, width, classes, resized, head)
        self.field = WhiteField(image.size)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        finest = self.finest(latent[:, :-GRAIN_SIZE], label)
        return torch.tanh(self.head(finest, self.field(latent[:, -GRAIN_SIZE:])))


def resized(wide: int, narrow: int) -> list[nn.Module]:
    """Nearest neighbours, then a plain convolution."""
    return [nn.Upsample(scale_factor=2), nn.Conv2d(wide, narrow, 3, padding=1, padding_mode="replicate", bias=False)]


class WhiteField(nn.Module):
    """Noise float [N, GRAIN_SIZE] to fields [N, 1, side, side] of as much power, no pixel like its neighbour.

    Sums of products of random rows and columns, drawn once: they have the covariance of white noise nearly, and cost
    next to nothing.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        rows, columns = torch.randn(2, GRAIN_SIZE, side)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns / GRAIN_SIZE**0.5)

    def forward(self, noise: Tensor) -> Tensor:
        weighted = (noise[:, :, None] * self.rows).transpose(1, 2)
        return (weighted @ self.columns)[:, None]


class GrainyHead(nn.Module):
    """The finest layer float [N, width, H, W] and white fields [N, 1, 2 H, 2 W] to images, before their tanh."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(width, channels, 3, padding=1, padding_mode="replicate")
        self.strength = nn.Conv2d(width, GRAIN_KINDS, 1, bias=False)
        self.filters = nn.Conv2d(1, GRAIN_KINDS, 3, padding=1, padding_mode="replicate", bias=False)
        self.colours = nn.Conv2d(GRAIN_KINDS, channels, 1, bias=False)

    def forward(self, finest: Tensor, field: Tensor) -> Tensor:
        smooth: Tensor = self.smooth(F.interpolate(finest, scale_factor=2.0))
        strength = F.interpolate(torch.sigmoid(self.strength(finest)), scale_factor=2.0)
        grain: Tensor = self.colours(strength * self.filters(field))
        return smooth + GRAIN_SCALE * grain
