import torch

from contracts.imaging import ImageSpec
from tests.training.gans.small import DCGAN, DCGAN_ADA
from training.gans import recipes
from training.gans.dcgan_ada import DcganAda


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ada() -> DcganAda:
    gan = recipes.build("dcgan_ada", ImageSpec(32, 1), DCGAN_ADA, seed=0)
    assert isinstance(gan, DcganAda)
    return gan


def test_it_starts_as_plain_dcgan_on_images_moved_a_little() -> None:
    plain, own = recipes.build("dcgan", ImageSpec(32, 1), DCGAN, seed=0), ada()
    own.discriminator.load_state_dict(plain.discriminator.state_dict())
    real, fake = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    draws = stream()
    moved = [own.augmentation(images, draws) for images in (real, fake)]
    assert not torch.equal(moved[0], real)
    torch.testing.assert_close(
        own.discriminator_loss(real, fake, None, stream())[0], plain.discriminator_loss(*moved, None, stream())[0]
    )


def test_a_sure_discriminator_makes_it_augment_what_both_losses_see() -> None:
    gan = ada()
    real, fake = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    before = gan.discriminator_loss(real, fake, None, stream())[0], gan.generator_loss(real, fake, None, stream())
    numbers = {"real_sign": torch.tensor(1.0)}
    for _ in range(30):
        gan.adapt(numbers, images=8)
    assert float(numbers["augmentation_probability"]) == float(gan.augmentation.probability) > 0.5
    after = gan.discriminator_loss(real, fake, None, stream())[0], gan.generator_loss(real, fake, None, stream())
    assert not torch.isclose(before[0], after[0])
    assert not torch.isclose(before[1], after[1])


def test_the_finest_detail_is_the_same_in_all_channels() -> None:
    """Colour has half the size: what it adds to the light is smooth, at least within pairs of pixels."""
    gan = recipes.build("dcgan_ada", ImageSpec(32, 3), DCGAN_ADA, seed=0)
    with torch.no_grad():
        images = torch.atanh(gan.generator(torch.randn(4, DCGAN_ADA.latent_size)).double())
    colours = images - images.mean(dim=1, keepdim=True)
    alternating = (torch.arange(32) % 2 * 2 - 1).double()

    def grid(planes: torch.Tensor) -> float:
        return float((planes @ alternating).abs().mean() / planes.std())

    assert grid(images.mean(dim=1)) > 3 * grid(colours)
