import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contracts.imaging import ImageSpec
from training.gans import dcgan
from training.params import Recipe

SETTINGS = Recipe(
    latent_size=10,
    width=4,
    batch_size=4,
    learning_rate=2e-4,
    beta1=0.5,
    averaging_halflife_images=100,
    checkpoint_every_seconds=30,
    grid_every_images=100,
    log_every_images=100,
)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_and_channel_count_goes_through_both_networks(size: int, channels: int) -> None:
    gan = dcgan.build(ImageSpec(size, channels), SETTINGS, seed=0)
    images = gan.generator(torch.randn(2, 10))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    assert gan.discriminator(images).shape == (2,)


def test_initialisation_is_that_of_the_paper() -> None:
    gan = dcgan.build(ImageSpec(64, 3), SETTINGS, seed=0)
    convolutions = torch.cat(
        [m.weight.detach().flatten() for m in gan.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    )
    scales = torch.cat([m.weight.detach() for m in gan.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(float(convolutions.mean())) < 1e-3
    assert float(convolutions.std()) == pytest.approx(0.02, rel=0.05)
    assert float(scales.mean()) == pytest.approx(1.0, abs=0.01)


def test_batch_norm_stands_everywhere_but_at_the_ends() -> None:
    gan = dcgan.build(ImageSpec(64, 3), SETTINGS, seed=0)
    assert isinstance(gan.generator.layers[-1], nn.Tanh)
    assert isinstance(gan.generator.layers[-2], nn.ConvTranspose2d)
    assert isinstance(gan.discriminator.layers[1], nn.LeakyReLU)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in gan.generator.modules()) == 4
    assert sum(isinstance(m, nn.BatchNorm2d) for m in gan.discriminator.modules()) == 3


def test_losses_are_binary_cross_entropy() -> None:
    gan = dcgan.build(ImageSpec(32, 1), SETTINGS, seed=0).eval()
    real, fake = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    loss, numbers = gan.discriminator_loss(real, fake)
    real_logits, fake_logits = gan.discriminator(real), gan.discriminator(fake)
    expected = F.binary_cross_entropy_with_logits(real_logits, torch.ones(4)) + F.binary_cross_entropy_with_logits(
        fake_logits, torch.zeros(4)
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(numbers["real_probability"], real_logits.sigmoid().mean())
    torch.testing.assert_close(gan.generator_loss(fake), F.binary_cross_entropy_with_logits(fake_logits, torch.ones(4)))


def test_the_discriminator_loss_sends_no_gradient_to_the_generator() -> None:
    gan = dcgan.build(ImageSpec(32, 1), SETTINGS, seed=0)
    loss, _ = gan.discriminator_loss(torch.rand(2, 1, 32, 32), gan.generator(torch.randn(2, 10)))
    loss.backward()
    assert all(parameter.grad is None for parameter in gan.generator.parameters())
    assert all(parameter.grad is not None for parameter in gan.discriminator.parameters())


def test_the_same_seed_builds_the_same_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, other = (dcgan.build(ImageSpec(32, 1), SETTINGS, seed=3).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], other[name]) for name in one)
