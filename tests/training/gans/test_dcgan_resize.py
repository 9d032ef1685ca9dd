import torch
from torch import nn

from contracts.imaging import ImageSpec
from tests.training.gans.small import DCGAN_ADA
from training.gans import recipes
from training.gans.dcgan_resize import DcganResize


def build(classes: int = 0, size: int = 32) -> DcganResize:
    gan = recipes.build("dcgan_resize", ImageSpec(size, 3), DCGAN_ADA, seed=0, classes=classes)
    assert isinstance(gan, DcganResize)
    return gan


def test_only_the_first_layer_is_a_transposed_convolution() -> None:
    kinds = [type(module) for module in build(size=64).generator.modules()]
    assert kinds.count(nn.ConvTranspose2d) == 1
    assert kinds.count(nn.Upsample) == 4


def test_an_untrained_generator_leaves_no_grid_of_its_own() -> None:
    """Of a constant input, resized convolutions make one value inside; transposed ones alternate."""

    def unevenness(recipe: str) -> float:
        gan = recipes.build(recipe, ImageSpec(32, 1), DCGAN_ADA, seed=0)
        last = [module for module in gan.generator.layers if not isinstance(module, nn.Tanh)]
        count = -1 if recipe == "dcgan_ada" else -2
        layers = nn.Sequential(*last[count:])
        image = layers(torch.ones(1, DCGAN_ADA.width, 16, 16))[0, 0, 4:-4, 4:-4]
        return float(image.std())

    assert unevenness("dcgan_resize") < 1e-6 < 1e-3 < unevenness("dcgan_ada")


def test_with_labels_it_draws_images_of_them() -> None:
    gan = build(classes=3)
    latent = torch.randn(2, DCGAN_ADA.latent_size)
    images = gan.generator(latent, torch.tensor([0, 1]))
    assert images.shape == (2, 3, 32, 32)
    assert not torch.equal(images, gan.generator(latent, torch.tensor([1, 0])))
