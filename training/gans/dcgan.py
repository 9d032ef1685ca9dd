"""DCGAN (Radford, Metz, Chintala, ICLR 2016, arXiv 1511.06434): networks, initialisation and losses.

Strided convolutions down, transposed convolutions up, batch normalisation everywhere but at the
generator's output and the discriminator's input, ReLU in the generator, LeakyReLU(0.2) in the
discriminator, tanh at the end, weights from normal(0, 0.02), the non-saturating GAN loss.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.gans.gan import Gan
from training.params import Recipe

WIDEST = 8
"""Deeper layers double the channels up to this multiple of `width`, as in the paper's 64 px networks."""


class Dcgan(Gan):
    """Generator, discriminator and their losses for square images of 32 to 256 pixels."""

    def __init__(self, image: ImageSpec, settings: Recipe) -> None:
        super().__init__()
        self.generator = Generator(image, settings.latent_size, settings.width)
        self.discriminator = Discriminator(image, settings.width)
        self.apply(_initialise)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Binary cross-entropy of real images [N, C, H, W] against detached fakes; real and fake batches apart."""
        real_logits = self.discriminator(real).float()
        fake_logits = self.discriminator(fake.detach()).float()
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        return loss, {
            "real_probability": real_logits.detach().sigmoid().mean(),
            "fake_probability": fake_logits.detach().sigmoid().mean(),
        }

    def generator_loss(self, fake: Tensor) -> Tensor:
        """The non-saturating loss of fakes [N, C, H, W]."""
        return F.softplus(-self.discriminator(fake).float()).mean()


class Generator(nn.Module):
    """Latents float [N, latent_size] to images float [N, C, H, W] in [-1, 1]."""

    def __init__(self, image: ImageSpec, latent_size: int, width: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        channels = _channels(image.size, width)[::-1]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_size, channels[0], 4, 1, 0, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        ]
        for wide, narrow in itertools.pairwise(channels):
            layers += [
                nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(channels[-1], image.channels, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        images: Tensor = self.layers(latent[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to logits [N], positive for real."""

    def __init__(self, image: ImageSpec, width: int) -> None:
        super().__init__()
        channels = _channels(image.size, width)
        layers: list[nn.Module] = [nn.Conv2d(image.channels, channels[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for narrow, wide in itertools.pairwise(channels):
            layers += [
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(channels[-1], 1, 4, 1, 0))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.flatten()


def _channels(size: int, width: int) -> list[int]:
    """Channels from the finest layer (half the image's size) to the coarsest (4 x 4)."""
    depth = int(math.log2(size)) - 2
    return [width * min(2**level, WIDEST) for level in range(depth)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def build(image: ImageSpec, settings: Recipe, seed: int) -> Dcgan:
    """A freshly initialised DCGAN; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dcgan(image, settings)
