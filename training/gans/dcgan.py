"""DCGAN (Radford, Metz, Chintala, ICLR 2016, arXiv 1511.06434): networks, initialisation and losses.

Strided convolutions down, transposed convolutions up, batch normalisation everywhere but at the
generator's output and the discriminator's input, ReLU in the generator, LeakyReLU(0.2) in the
discriminator, tanh at the end, weights from normal(0, 0.02), the non-saturating GAN loss.

With labels, the generator reads an embedding beside the latent, and the discriminator learns to name
the label of real images, which the generator is asked to let it name (Odena et al., ICML 2017). A
generator that reads labels collapses to one image of each on small sets, for the labels alone are variety
enough. So labels enter late (after Shahbazi et al., ICLR 2022, arXiv 2201.06578), and the images of a label
must differ as much as real ones do (after Yang et al., ICLR 2019, arXiv 1901.09024).
"""

import itertools
import math
from collections.abc import Callable

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
LABEL_LOSS = 0.2
"""Weight of naming the label beside looking real, in the generator's loss."""
VARIETY_LOSS = 4.0
"""Weight of the share that is missing of the real images' variety."""
VARIETY_SIDE = 16
"""Variety is judged at this size: grain is none."""
MEMORY = 0.98
"""Share of the real images' variety that is kept from one step to the next: a batch holds few pairs of a label."""


class Dcgan(Gan):
    """Generator, discriminator and their losses for square images of 32 to 256 pixels; conditional with `classes`."""

    real_variety: Tensor

    def __init__(self, image: ImageSpec, settings: Recipe, classes: int) -> None:
        super().__init__()
        self.register_buffer("real_variety", torch.zeros(()))
        self.generator: Generator = self.make_generator(image, settings, classes)
        self.discriminator: Discriminator = Discriminator(image, settings.width, classes)
        self.apply(self.initialise)

    @staticmethod
    def make_generator(image: ImageSpec, settings: Recipe, classes: int) -> "Generator":
        """The generator, before its weights are drawn."""
        head = nn.ConvTranspose2d(settings.width, image.channels, 4, 2, 1)
        return Generator(image, settings.latent_size, settings.width, classes, transposed, head)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """The paper's weights: normal(0, 0.02), those of batch norms about 1."""
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)

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

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, label: Tensor | None, stream: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Binary cross-entropy of real images against detached fakes, the batches apart; of real labels, as a sum."""
        real_logits, named = self.discriminator(self.shown(real, stream))
        fake_logits, _ = self.discriminator(self.shown(fake.detach(), stream))
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        numbers = {
            "real_probability": real_logits.detach().sigmoid().mean(),
            "fake_probability": fake_logits.detach().sigmoid().mean(),
            "real_sign": real_logits.detach().sign().mean(),
        }
        if label is not None:
            label_loss = F.cross_entropy(named, label)
            loss, numbers["label_loss"] = loss + label_loss, label_loss.detach()
            numbers["real_difference"], numbers["real_pairs"] = differences(real, label)
        return loss, numbers

    def generator_loss(
        self,
        real: Tensor,  # noqa: ARG002 - for recipes that paint what is there
        fake: Tensor,
        label: Tensor | None,
        stream: torch.Generator,
    ) -> Tensor:
        """The non-saturating loss of fakes; of labelled ones also that of their labels and of their variety."""
        logits, named = self.discriminator(self.shown(fake, stream))
        loss = F.softplus(-logits).mean()
        if label is None:
            return loss
        difference, pairs = differences(fake, label)
        missing = F.relu(1 - difference / pairs.clamp(min=1) / (self.real_variety + 1e-6))
        label_loss = LABEL_LOSS * F.cross_entropy(named, label) + VARIETY_LOSS * missing
        return loss + self.generator.label_weight * label_loss

    def adapt(self, numbers: dict[str, Tensor], images: int) -> None:  # noqa: ARG002
        """Keep in mind how much real images of a label differ."""
        if "real_pairs" in numbers:
            pairs, known = numbers["real_pairs"], self.real_variety
            found = numbers["real_difference"] / torch.where(pairs > 0, pairs, torch.ones_like(pairs))
            kept = torch.where(known > 0, torch.lerp(found, known, MEMORY), found)
            known.copy_(torch.where(pairs > 0, kept, known))


def differences(images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over pairs of images of the same label of their mean absolute difference, in [-1, 1] units, and the pairs.

    Their ratio is the variety of float [N, C, H, W]; apart, they can be averaged over processes.
    """
    coarse = F.avg_pool2d(images.float(), images.shape[2] // VARIETY_SIDE).flatten(1)
    pairs = (label[:, None] == label).triu(1).float()
    difference = (coarse[:, None] - coarse).abs().mean(dim=2)
    return (difference * pairs).sum(), pairs.sum()


class Generator(nn.Module):
    """Latents float [N, latent_size] and labels int64 [N] to images float [N, C, H, W] in [-1, 1].

    `octave` makes the layers that double a side, of so many channels to so many; `head` makes images, before their
    tanh, of the finest of them.
    """

    label_weight: Tensor

    def __init__(
        self,
        image: ImageSpec,
        latent_size: int,
        width: int,
        classes: int,
        octave: Callable[[int, int], list[nn.Module]],
        head: nn.Module,
    ) -> None:
        super().__init__()
        channels = channels_by_depth(image.size, width)[::-1]
        self.embedding = nn.Embedding(classes, EMBEDDING_SIZE) if classes else None
        self.register_buffer("label_weight", torch.ones(()))
        inputs = latent_size + (EMBEDDING_SIZE if classes else 0)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(inputs, channels[0], 4, 1, 0, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        ]
        for wide, narrow in itertools.pairwise(channels):
            layers += [*octave(wide, narrow), nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.head = head

    def finest(self, latent: Tensor, label: Tensor | None) -> Tensor:
        """The features float [N, width, H / 2, W / 2] that the head reads."""
        if self.embedding is not None:
            latent = torch.cat([latent, self.embedding(label) * self.label_weight], dim=1)
        features: Tensor = self.layers(latent[:, :, None, None])
        return features

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.tanh(self.head(self.finest(latent, label)))


def transposed(wide: int, narrow: int) -> list[nn.Module]:
    """The paper's way to double a side."""
    return [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False)]


class Discriminator(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to logits float32: [N], positive for real, and [N, classes] of labels."""

    def __init__(self, image: ImageSpec, width: int, classes: int = 0) -> None:
        super().__init__()
        channels = channels_by_depth(image.size, width)
        layers: list[nn.Module] = [nn.Conv2d(image.channels, channels[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for narrow, wide in itertools.pairwise(channels):
            layers += [
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels[-1], 1 + classes, 4, 1, 0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.head(self.layers(images)).flatten(1).float()
        return outputs[:, 0], outputs[:, 1:]


def channels_by_depth(size: int, width: int) -> list[int]:
    """Channels from the finest layer (half the image's size) to the coarsest (4 x 4)."""
    depth = int(math.log2(size)) - 2
    return [width * min(2**level, WIDEST) for level in range(depth)]
