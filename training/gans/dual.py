"""The dual GAN: stage I draws geometry from noise, stage II paints the photograph (Guibas et al., arXiv 1709.01872).

Images travel with the distances of their mask (`geometry.py`) as one more channel. Stage I is the GAN of `dcgan_ada` on
these alone. Stage II is after pix2pix (Isola et al., CVPR 2017, arXiv 1611.07004): a U-Net from mask to photograph
before a discriminator of patches that sees mask and photograph together, and the distance of that discriminator's own
features (after Wang et al., CVPR 2018, arXiv 1711.11585). It learns from real masks and their photographs, and also
paints stage I's masks before the same discriminator, so that what it will be asked for is nothing new.

What a mask does not determine is left to noise: stage II reads a part of the latent, and the L1 loss compares coarse
structure about the mean of each channel, so that a tone of its own costs an image nothing.
"""

import itertools
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.gans.dcgan import Dcgan, channels_by_depth
from training.gans.dcgan_ada import DcganAda, LightAndColour
from training.gans.gan import Gan
from training.gans.geometry import hard
from training.params import Recipe
from training.reading import ParamsError

NOISE_SIZE = 32
"""Of the latent, what stage II reads; stage I reads the rest."""
L1_WEIGHT = 5.0
COARSE_PIXELS = 4
"""The L1 loss compares means of squares of this side."""
FEATURE_WEIGHT = 5.0
PATCH_LAYERS = 3


class Dual(Gan):
    """Both stages in one loop; images are float [N, C + 1, H, W], the distances last.

    Fakes are [2 N, C + 1, H, W]: pairs that both stages drew, then real masks that stage II painted. Both losses judge
    the same ones: painting is the dearest part of a step.
    """

    draws_masks = True

    def __init__(self, image: ImageSpec, settings: Recipe, classes: int) -> None:
        super().__init__()
        if classes:
            raise ParamsError("recipe dual draws no labels: set `conditional` to false")
        if settings.latent_size <= NOISE_SIZE:
            raise ParamsError(f"recipe dual needs a latent_size above {NOISE_SIZE}, not {settings.latent_size}")
        self.channels = image.channels
        first = DcganAda(ImageSpec(image.size, 1), replace(settings, latent_size=settings.latent_size - NOISE_SIZE), 0)
        self.first = first
        painter = Painter(image, settings.width)
        patches = PatchDiscriminator(image.channels + 1, settings.width)
        for network in (painter, patches):
            network.apply(Dcgan.initialise)
        self.generator: DualGenerator = DualGenerator(first.generator, painter)
        self.patches = patches
        self.discriminator = nn.ModuleList([first.discriminator, patches])

    def drawn(self, real: Tensor, latent: Tensor, label: Tensor | None, stream: torch.Generator) -> Tensor:
        """Pairs that are all drawn, and as many real masks that are painted."""
        distances = real[:, self.channels :]
        noise = torch.randn(len(real), NOISE_SIZE, generator=stream, device=real.device)
        painted = torch.cat([self.generator.painter(hard(distances), noise), distances], dim=1)
        return torch.cat([super().drawn(real, latent, label, stream), painted])

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, label: Tensor | None, stream: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage I's on distances, and of patches: real pairs against real masks painted and drawn masks painted."""
        fake, painted = fake.detach().chunk(2)
        loss, numbers = self.first.discriminator_loss(real[:, self.channels :], fake[:, self.channels :], label, stream)
        judged = [self._judge(self._pairs(images), stream)[-1] for images in (real, painted, fake)]
        patch_loss = F.softplus(-judged[0]).mean() + sum(F.softplus(one).mean() for one in judged[1:]) / 2
        numbers["patch_loss"] = patch_loss.detach()
        return loss + patch_loss, numbers

    def generator_loss(self, real: Tensor, fake: Tensor, label: Tensor | None, stream: torch.Generator) -> Tensor:
        """Stage I's; and stage II's: patches that look real, features and coarse structure of what is painted."""
        fake, painted = fake.chunk(2)
        loss = self.first.generator_loss(real[:, self.channels :], fake[:, self.channels :], label, stream)
        state = stream.get_state()
        *found, painted_logits = self._judge(self._pairs(painted), stream)
        stream.set_state(state)
        with torch.no_grad():
            *wanted, _ = self._judge(self._pairs(real), stream)
        drawn_logits = self._judge(self._pairs(fake), stream)[-1]
        adversarial = (F.softplus(-painted_logits).mean() + F.softplus(-drawn_logits).mean()) / 2
        features = torch.stack([F.l1_loss(one, other) for one, other in zip(found, wanted, strict=True)]).mean()
        coarse = F.l1_loss(self._coarse(painted), self._coarse(real))
        return loss + adversarial + FEATURE_WEIGHT * features + L1_WEIGHT * coarse

    def adapt(self, numbers: dict[str, Tensor], images: int) -> None:
        """Stage I's augmentation adapts."""
        self.first.adapt(numbers, images)

    def _pairs(self, images: Tensor) -> Tensor:
        """Photographs with their hard masks; no gradient reaches what drew these."""
        return torch.cat([images[:, : self.channels], hard(images[:, self.channels :])], dim=1)

    def _judge(self, pairs: Tensor, stream: torch.Generator) -> list[Tensor]:
        judged: list[Tensor] = self.patches(self.first.shown(pairs, stream))
        return judged

    def _coarse(self, images: Tensor) -> Tensor:
        means = F.avg_pool2d(images[:, : self.channels], COARSE_PIXELS)
        return means - means.mean(dim=(2, 3), keepdim=True)


class DualGenerator(nn.Module):
    """Latents float [N, latent_size] to photographs and the distances of their masks, float [N, C + 1, H, W]."""

    def __init__(self, geometry: nn.Module, painter: nn.Module) -> None:
        super().__init__()
        self.geometry, self.painter = geometry, painter

    def forward(self, latent: Tensor) -> Tensor:
        drawn = self.geometry(latent[:, NOISE_SIZE:])
        return torch.cat([self.painter(hard(drawn), latent[:, :NOISE_SIZE]), drawn], dim=1)


class Painter(nn.Module):
    """Masks float [N, 1, H, W] of -1 and 1 and noise float [N, NOISE_SIZE] to photographs float [N, C, H, W]."""

    def __init__(self, image: ImageSpec, width: int) -> None:
        super().__init__()
        channels = channels_by_depth(image.size, width)
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for narrow, wide in itertools.pairwise([1, *channels])
        )
        self.noise = nn.ModuleList(nn.Linear(NOISE_SIZE, wide, bias=False) for wide in channels[-2::-1])
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(wide if index == 0 else 2 * wide, narrow, 4, 2, 1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(inplace=True),
            )
            for index, (wide, narrow) in enumerate(itertools.pairwise(channels[::-1]))
        )
        self.head = LightAndColour(2 * channels[0], image.channels)

    def forward(self, masks: Tensor, noise: Tensor) -> Tensor:
        levels, found = [], masks
        for layer in self.down:
            found = layer(found)
            levels.append(found)
        for index, layer in enumerate(self.up):
            found = layer(found) + self.noise[index](noise)[:, :, None, None]
            found = torch.cat([found, levels[-2 - index]], dim=1)
        return torch.tanh(self.head(found))


class PatchDiscriminator(nn.Module):
    """Pairs float [N, C + 1, H, W] to features, layer by layer, and logits [N, 1, h, w], positive for real patches."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**level for level in range(PATCH_LAYERS))]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=index == 0),
                nn.Identity() if index == 0 else nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2),
            )
            for index, (narrow, wide) in enumerate(itertools.pairwise(widths))
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, pairs: Tensor) -> list[Tensor]:
        found = [pairs]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return [*found[1:], self.head(found[-1]).float()]
