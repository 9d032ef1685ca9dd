"""DCGAN with adaptive discriminator augmentation (Karras et al., NeurIPS 2020, arXiv 2006.06676) for small sets.

A discriminator that sees a few hundred images learns them by heart, and the generator collapses. Here it sees real
and generated images through random changes, each applied with a probability that starts at zero and rises, slowly,
while the discriminator is too sure of real images.

The generator's last layer is split as cameras and JPEG split an image: colours at half the size, enlarged smoothly, and
one plane of light at full size that is added to all of them. The fine detail of real images is that of light, the same
in all channels; a transposed convolution per channel draws a grid of coloured dots instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.gans.augmentation import AdaptiveAugmentation
from training.gans.dcgan import Dcgan, Generator, transposed
from training.params import Recipe
from training.reading import ParamsError


class DcganAda(Dcgan):
    """The networks and losses of DCGAN, with another last layer, behind an augmentation that adapts."""

    def __init__(self, image: ImageSpec, settings: Recipe, classes: int) -> None:
        super().__init__(image, settings, classes)
        if settings.augmentation_ramp_images is None:
            raise ParamsError("a recipe that augments needs `augmentation_ramp_images`, for example 400000")
        self.augmentation = AdaptiveAugmentation(settings.augmentation_ramp_images, settings.augmentation_limit)

    @staticmethod
    def make_generator(image: ImageSpec, settings: Recipe, classes: int) -> Generator:
        """DCGAN's, with light and colour apart."""
        head = LightAndColour(settings.width, image.channels)
        return Generator(image, settings.latent_size, settings.width, classes, transposed, head)

    def shown(self, images: Tensor, stream: torch.Generator) -> Tensor:
        """Images after the augmentation."""
        augmented: Tensor = self.augmentation(images, stream)
        return augmented

    def adapt(self, numbers: dict[str, Tensor], images: int) -> None:
        """Move the probability by the sign of the discriminator's verdicts on real images."""
        super().adapt(numbers, images)
        self.augmentation.adapt(numbers["real_sign"], images)
        numbers["augmentation_probability"] = self.augmentation.probability.clone()


class LightAndColour(nn.Module):
    """The finest layer float [N, width, H, W] to images [N, channels, 2 H, 2 W], before their tanh."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.light = nn.ConvTranspose2d(width, 1, 4, 2, 1)
        self.colour = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, finest: Tensor) -> Tensor:
        light: Tensor = self.light(finest)
        return light + F.interpolate(self.colour(finest), scale_factor=2.0, mode="bilinear")
