"""DCGAN with adaptive discriminator augmentation (Karras et al., NeurIPS 2020, arXiv 2006.06676) for small sets.

A discriminator that sees a few hundred images learns them by heart, and the generator collapses. Here it sees real
and generated images through random changes, each applied with a probability that starts at zero and rises, slowly,
while the discriminator is too sure of real images.
"""

import torch
from torch import Tensor

from contracts.imaging import ImageSpec
from training.gans.augmentation import AdaptiveAugmentation
from training.gans.dcgan import Dcgan
from training.params import Recipe
from training.reading import ParamsError


class DcganAda(Dcgan):
    """The networks and losses of DCGAN behind an augmentation that adapts."""

    def __init__(self, image: ImageSpec, settings: Recipe, classes: int) -> None:
        super().__init__(image, settings, classes)
        if settings.augmentation_ramp_images is None:
            raise ParamsError("recipe dcgan_ada needs `augmentation_ramp_images`, for example 400000")
        self.augmentation = AdaptiveAugmentation(settings.augmentation_ramp_images, settings.augmentation_limit)

    def shown(self, images: Tensor, stream: torch.Generator) -> Tensor:
        """Images after the augmentation."""
        augmented: Tensor = self.augmentation(images, stream)
        return augmented

    def adapt(self, numbers: dict[str, Tensor], images: int) -> None:
        """Move the probability by the sign of the discriminator's verdicts on real images."""
        super().adapt(numbers, images)
        self.augmentation.adapt(numbers["real_sign"], images)
        numbers["augmentation_probability"] = self.augmentation.probability.clone()
