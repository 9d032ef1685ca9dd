"""DCGAN (Radford, Metz, Chintala, ICLR 2016, arXiv 1511.06434): networks, initialisation and losses.

Strided convolutions down, transposed convolutions up, batch normalisation everywhere but at the
generator's output and the discriminator's input, ReLU in the generator, LeakyReLU(0.2) in the
discriminator, tanh at the end, weights from normal(0, 0.02), the non-saturating GAN loss.

With labels, the generator reads an embedding beside the latent, and the discriminator has a second
head whose logit is a projection onto another (Miyato and Koyama, ICLR 2018). On small sets such a pair
makes every label collapse to one image. So training begins without labels, they gain their weight in
the middle of it, and the first head goes on judging images alone (Shahbazi et al., ICLR 2022, arXiv 2201.06578).
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
EMBEDDING_SIZE = 32
CONDITIONING = (0.3, 0.6)
"""Shares of the training between which the weight of labels rises from 0 to 1."""


class Dcgan(Gan):
    """Generator, discriminator and their losses for square images of 32 to 256 pixels; conditional with `classes`."""

    def __init__(self, image: ImageSpec, settings: Recipe, classes: int) -> None:
        super().__init__()
        self.generator: Generator = Generator(image, settings.latent_size, settings.width, classes)
        self.discriminator: Discriminator = Discriminator(image, settings.width, classes)
        self.apply(_initialise)

    def shown(self, images: Tensor, stream: torch.Generator) -> Tensor:  # noqa: ARG002 - for recipes built on this one
        """Images as the discriminator gets to see them."""
        return images

    def advance(self, share: float) -> bool:
        """The weight of labels follows its schedule."""
        if self.generator.embedding is None:
            return True
        start, end = CONDITIONING
        weight = min(1.0, max(0.0, (share - start) / (end - start)))
        self.generator.label_weight.fill_(weight)
        return weight == 1.0

    def weighted(self, losses: Tensor) -> Tensor:
        """The mean of losses [heads, N], the head that reads labels with their present weight."""
        alone, *labelled = losses.float().mean(dim=1)
        weighted: Tensor = alone + self.generator.label_weight * labelled[0] if labelled else alone
        return weighted

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, label: Tensor | None, stream: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Binary cross-entropy of real images against detached fakes; real and fake batches apart."""
        real_logits = self.discriminator(self.shown(real, stream), label).float()
        fake_logits = self.discriminator(self.shown(fake.detach(), stream), label).float()
        loss = self.weighted(F.softplus(-real_logits)) + self.weighted(F.softplus(fake_logits))
        return loss, {
            "real_probability": real_logits[0].detach().sigmoid().mean(),
            "fake_probability": fake_logits[0].detach().sigmoid().mean(),
            "real_sign": real_logits[0].detach().sign().mean(),
        }

    def generator_loss(self, fake: Tensor, label: Tensor | None, stream: torch.Generator) -> Tensor:
        """The non-saturating loss of fakes."""
        return self.weighted(F.softplus(-self.discriminator(self.shown(fake, stream), label).float()))


class Generator(nn.Module):
    """Latents float [N, latent_size] and labels int64 [N] to images float [N, C, H, W] in [-1, 1]."""

    label_weight: Tensor

    def __init__(self, image: ImageSpec, latent_size: int, width: int, classes: int = 0) -> None:
        super().__init__()
        channels = _channels(image.size, width)[::-1]
        self.embedding = nn.Embedding(classes, EMBEDDING_SIZE) if classes else None
        self.register_buffer("label_weight", torch.ones(()))
        inputs = latent_size + (EMBEDDING_SIZE if classes else 0)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(inputs, channels[0], 4, 1, 0, bias=False),
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

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            latent = torch.cat([latent, self.embedding(label) * self.label_weight], dim=1)
        images: Tensor = self.layers(latent[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] and labels int64 [N] to logits [heads, N], positive for real.

    The first head judges images alone; the second, where there are labels, the image as one of its label.
    """

    def __init__(self, image: ImageSpec, width: int, classes: int = 0) -> None:
        super().__init__()
        channels = _channels(image.size, width)
        layers: list[nn.Module] = [nn.Conv2d(image.channels, channels[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for narrow, wide in itertools.pairwise(channels):
            layers += [
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.heads = nn.Conv2d(channels[-1], 2 if classes else 1, 4, 1, 0)
        self.projection = nn.Embedding(classes, channels[-1]) if classes else None

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        content = self.layers(images)
        alone, *labelled = self.heads(content).flatten(1).unbind(1)
        if self.projection is None:
            return torch.stack([alone])
        fitting = (self.projection(label) * content.mean(dim=(2, 3))).sum(dim=1)
        return torch.stack([alone, labelled[0] + fitting])


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
    elif isinstance(module, Discriminator) and module.projection is not None:
        nn.init.normal_(module.projection.weight, 0.0, 0.02)
