"""DCGAN with adaptive augmentation whose generator enlarges by nearest neighbours before plain convolutions.

Transposed convolutions leave a grid where their kernels overlap unevenly; resizing first does not (Odena, Dumoulin,
Olah, "Deconvolution and Checkerboard Artifacts", Distill, 2016). Its traces are of another kind than those of the other
recipes, which is what a detector that is to hold on unknown generators should learn from, and be tried on.
"""

import itertools

from torch import nn

from contracts.imaging import ImageSpec
from training.gans.dcgan import Generator, channels_by_depth
from training.gans.dcgan_ada import DcganAda
from training.params import Recipe


class DcganResize(DcganAda):
    """The discriminator, losses and augmentation of `dcgan_ada` with a generator of resized convolutions."""

    def __init__(self, image: ImageSpec, settings: Recipe, classes: int) -> None:
        super().__init__(image, settings, classes)
        self.generator.layers = _layers(self.generator, image, settings.width)
        self.generator.apply(self.initialise)


def _layers(generator: Generator, image: ImageSpec, width: int) -> nn.Sequential:
    """The first layer as it was, to 4 x 4, then one enlargement and convolution per octave."""
    channels = channels_by_depth(image.size, width)[::-1]
    layers: list[nn.Module] = [*generator.layers[:3].children()]
    for wide, narrow in itertools.pairwise(channels):
        layers += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(wide, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
        ]
    layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels[-1], image.channels, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)
