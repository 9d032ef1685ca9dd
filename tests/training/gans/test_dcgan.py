import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contracts.imaging import ImageSpec
from tests.training.gans.small import DCGAN
from training.gans import recipes
from training.gans.dcgan import LABEL_LOSS, VARIETY_LOSS, Dcgan, differences

STREAM = torch.Generator()


def dcgan(size: int, channels: int, classes: int = 0) -> Dcgan:
    gan = recipes.build("dcgan", ImageSpec(size, channels), DCGAN, seed=0, classes=classes)
    assert isinstance(gan, Dcgan)
    return gan


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_and_channel_count_goes_through_both_networks(size: int, channels: int) -> None:
    gan = dcgan(size, channels)
    images = gan.generator(torch.randn(2, 8))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    logits, named = gan.discriminator(images)
    assert (logits.shape, named.shape) == ((2,), (2, 0))


def test_initialisation_is_that_of_the_paper() -> None:
    gan = dcgan(64, 3)
    convolutions = torch.cat(
        [m.weight.detach().flatten() for m in gan.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    )
    scales = torch.cat([m.weight.detach() for m in gan.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(float(convolutions.mean())) < 1e-3
    assert float(convolutions.std()) == pytest.approx(0.02, rel=0.05)
    assert float(scales.mean()) == pytest.approx(1.0, abs=0.01)


def test_batch_norm_stands_everywhere_but_at_the_ends() -> None:
    gan = dcgan(64, 3)
    assert isinstance(gan.generator.head, nn.ConvTranspose2d)
    assert isinstance(gan.discriminator.layers[1], nn.LeakyReLU)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in gan.generator.modules()) == 4
    assert sum(isinstance(m, nn.BatchNorm2d) for m in gan.discriminator.modules()) == 3


def test_losses_are_binary_cross_entropy() -> None:
    gan = dcgan(32, 1).eval()
    real, fake = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    loss, numbers = gan.discriminator_loss(real, fake, None, STREAM)
    (real_logits, _), (fake_logits, _) = gan.discriminator(real), gan.discriminator(fake)
    expected = F.binary_cross_entropy_with_logits(real_logits, torch.ones(4)) + F.binary_cross_entropy_with_logits(
        fake_logits, torch.zeros(4)
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(numbers["real_sign"], real_logits.sign().mean())
    torch.testing.assert_close(numbers["real_probability"], real_logits.sigmoid().mean())
    torch.testing.assert_close(
        gan.generator_loss(real, fake, None, STREAM), F.binary_cross_entropy_with_logits(fake_logits, torch.ones(4))
    )


def test_the_discriminator_loss_sends_no_gradient_to_the_generator() -> None:
    gan = dcgan(32, 1)
    loss, _ = gan.discriminator_loss(torch.rand(2, 1, 32, 32), gan.generator(torch.randn(2, 8)), None, STREAM)
    loss.backward()
    assert all(parameter.grad is None for parameter in gan.generator.parameters())
    assert all(parameter.grad is not None for parameter in gan.discriminator.parameters())


def test_the_label_changes_what_is_painted_and_is_asked_back_of_the_image() -> None:
    gan = dcgan(32, 1, classes=3)
    label = torch.tensor([0, 1, 2, 2])
    images = gan.generator(torch.randn(1, 8).expand(4, -1), label)
    assert torch.equal(images[2], images[3])
    assert not torch.equal(images[0], images[1])
    real = torch.rand(4, 1, 32, 32)
    loss, numbers = gan.discriminator_loss(real, images, label, STREAM)
    loss.backward()
    torch.testing.assert_close(numbers["label_loss"], F.cross_entropy(gan.discriminator(real)[1], label).detach())
    assert all(channel.abs().sum() > 0 for channel in gan.discriminator.head.weight.grad)
    gan.generator_loss(images, images, label, STREAM).backward()
    assert all(row.abs().sum() > 0 for row in gan.generator.embedding.weight.grad)


def test_labels_gain_their_weight_in_the_middle_of_the_training() -> None:
    gan = dcgan(32, 1, classes=2).eval()
    latent, images = torch.randn(1, 8).expand(2, -1), torch.rand(2, 1, 32, 32)
    labels = torch.tensor([0, 1])

    @torch.no_grad()
    def at(share: float) -> tuple[bool, float, float]:
        complete = gan.advance(share)
        painted = gan.generator(latent, labels)
        return (
            complete,
            float((painted[0] - painted[1]).abs().max()),
            float(gan.generator_loss(images, images, labels, STREAM)),
        )

    with torch.no_grad():
        logits, named = gan.discriminator(images)
    alone = float(F.softplus(-logits).mean())
    # No two of these images have the same label: all of the variety is missing.
    label_loss = LABEL_LOSS * float(F.cross_entropy(named, labels)) + VARIETY_LOSS
    assert at(0.1)[:2] == (False, 0.0)
    assert at(0.1)[2] == pytest.approx(alone)
    early, late, end = at(0.4), at(0.55), at(0.6)
    assert early[0] is late[0] is False
    assert end[0] is True
    assert 0 < early[1] < late[1] < end[1]
    assert end[2] == pytest.approx(alone + label_loss)
    assert alone < early[2] < late[2] < end[2]
    assert dcgan(32, 1).advance(0.0)


def variety(images: torch.Tensor, label: torch.Tensor) -> float:
    difference, pairs = differences(images, label)
    return float(difference / pairs)


def test_variety_is_the_mean_difference_of_pairs_of_a_label_without_their_grain() -> None:
    levels = torch.tensor([0.0, 0.5, -0.5, 0.9, 0.1])
    label = torch.tensor([0, 0, 1, 0, 1])
    images = levels[:, None, None, None].expand(-1, 1, 32, 32)
    grain = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16) * torch.tensor([1, -1, 1, -1, 1])[:, None, None]
    expected = (0.5 + 0.9 + 0.4 + 0.6) / 4
    assert variety(images, label) == pytest.approx(expected)
    assert variety(images + 0.3 * grain[:, None], label) == pytest.approx(expected, abs=1e-6)
    assert [float(value) for value in differences(images, torch.arange(5))] == [0, 0]


def test_images_of_a_label_that_differ_too_little_are_driven_apart_until_they_differ_as_real_ones() -> None:
    gan = dcgan(32, 1, classes=2)
    label = torch.tensor([0, 0, 1, 1])
    real = torch.tensor([0.0, 0.4, 0.0, 0.4])[:, None, None, None].expand(-1, 1, 32, 32)
    for scale in (1.0, 3.0):
        _, numbers = gan.discriminator_loss(real * scale, real, label, STREAM)
        gan.adapt(numbers, 4)
    assert float(gan.real_variety) == pytest.approx(0.98 * 0.4 + 0.02 * 1.2)

    def loss(variety_of_fakes: float) -> float:
        with torch.no_grad():
            gan.eval().discriminator.head.weight.zero_()
            return float(gan.generator_loss(real, real / 0.4 * variety_of_fakes, label, STREAM))

    assert loss(0.0) - loss(0.2) == pytest.approx(VARIETY_LOSS * 0.2 / float(gan.real_variety), rel=1e-3)
    assert loss(0.5) == pytest.approx(loss(0.8))
