import pytest
import torch
from torch import nn

from contracts.imaging import ImageSpec
from tests.training.gans.small import DCGAN_ADA, changed
from training.gans import recipes
from training.gans.dcgan_grain import (
    GRAIN_BLURS,
    GRAIN_SIZE,
    DcganGrain,
    GrainFields,
    GrainGenerator,
    ResizedConvolution,
)
from training.reading import ParamsError

SETTINGS = changed(DCGAN_ADA, latent_size=8 + GRAIN_SIZE)


def generator(classes: int = 0, size: int = 32, channels: int = 3) -> GrainGenerator:
    gan = recipes.build("dcgan_grain", ImageSpec(size, channels), SETTINGS, seed=0, classes=classes)
    assert isinstance(gan, DcganGrain)
    assert isinstance(gan.generator, GrainGenerator)
    return gan.generator


def test_a_latent_without_room_for_content_is_refused() -> None:
    with pytest.raises(ParamsError, match="dcgan_grain needs a latent_size above 64, not 64"):
        recipes.build("dcgan_grain", ImageSpec(32, 3), changed(SETTINGS, latent_size=GRAIN_SIZE), seed=0)


@pytest.mark.parametrize("bias", [False, True])
def test_a_resized_convolution_is_a_convolution_of_what_was_resized(bias: bool) -> None:
    torch.manual_seed(0)
    module = ResizedConvolution(5, 7, bias)
    features = torch.randn(2, 5, 8, 6)
    bordered = nn.functional.pad(nn.functional.interpolate(features, scale_factor=2.0), (1, 1, 1, 1), mode="replicate")
    expected = nn.functional.conv2d(bordered, module.weight.transpose(0, 1).flip(2, 3), module.bias)
    torch.testing.assert_close(module(features), expected)


def test_only_the_first_layer_is_a_plain_transposed_convolution() -> None:
    kinds = [type(module) for module in generator(size=64).modules()]
    assert kinds.count(nn.ConvTranspose2d) == 1
    assert kinds.count(ResizedConvolution) == 4


def test_an_untrained_generator_leaves_no_grid_of_its_own() -> None:
    """Of a constant input, resized convolutions make one value inside; transposed ones alternate."""
    features = torch.ones(1, SETTINGS.width, 16, 16)

    def unevenness(image: torch.Tensor) -> float:
        return float(image[0, 0, 4:-4, 4:-4].detach().std())

    plain = recipes.build("dcgan_ada", ImageSpec(32, 1), DCGAN_ADA, seed=0).generator
    without_noise = generator(channels=1).head(features, torch.zeros(1, len(GRAIN_BLURS), 32, 32))
    assert unevenness(without_noise) < 1e-6 < 1e-3 < unevenness(plain.head(features))


@pytest.mark.parametrize("side", [32, 64, 256])
def test_fields_look_like_blurred_noise(side: int) -> None:
    """Of noise w blurred by [b, 1 - 2 b, b], neighbours share 2 b (1 - 2 b) of their power, the next ones b b."""
    torch.manual_seed(0)
    fields = GrainFields(side)(torch.randn(400, GRAIN_SIZE))
    assert fields.shape == (400, len(GRAIN_BLURS), side, side)
    for field, blur in zip(fields.unbind(1), GRAIN_BLURS, strict=True):
        power = (1 - 2 * blur) ** 2 + 2 * blur**2
        along = {0: 1.0, 1: 2 * blur * (1 - 2 * blur) / power, 2: blur**2 / power, 4: 0.0}
        assert float(field.std()) == pytest.approx(1, abs=0.1)
        assert float(field.std(dim=0).min()) > 0.3
        for shift in ((0, 1), (1, 0), (1, 1), (0, 2), (4, 0)):
            correlation = float((field * field.roll(shift, dims=(1, 2))).mean() / (field**2).mean())
            assert correlation == pytest.approx(along[shift[0]] * along[shift[1]], abs=0.08), (shift, blur)


def test_fields_have_nothing_to_do_with_each_other() -> None:
    torch.manual_seed(0)
    fields = GrainFields(32)(torch.randn(400, GRAIN_SIZE)).transpose(0, 1).flatten(1)
    assert float((torch.corrcoef(fields) - torch.eye(len(GRAIN_BLURS))).abs().max()) < 0.05


def grain(gan: GrainGenerator, content: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What the last latents add, in grey levels; with batch norms of these latents, as in training."""
    with torch.no_grad():
        smooth = gan(torch.cat([content, torch.zeros_like(noise)], dim=1))
        return 127.5 * (gan(torch.cat([content, noise], dim=1)) - smooth)


def test_the_last_latents_change_fine_detail_and_nothing_else() -> None:
    added = grain(generator(), torch.randn(64, 8), torch.randn(64, GRAIN_SIZE))
    coarse = nn.functional.avg_pool2d(added, 8)
    assert 0 < float(coarse.std()) < float(added.std()) / 3


def test_grain_begins_as_faint_light() -> None:
    """About a grey level, the same in all channels, and as smooth as the noise."""
    added = grain(generator(), torch.randn(64, 8), torch.randn(64, GRAIN_SIZE))
    assert 0.1 < float(added.std()) < 4
    light = added.mean(dim=1, keepdim=True)
    assert float((added - light).std()) < float(added.std()) / 10
    neighbours = (added[..., 1:] * added[..., :-1]).mean() / (added**2).mean()
    assert float(neighbours) == pytest.approx(0.53, abs=0.1)


def test_with_labels_it_draws_images_of_them() -> None:
    labelled = generator(classes=3)
    latent = torch.randn(2, SETTINGS.latent_size)
    images = labelled(latent, torch.tensor([0, 1]))
    assert images.shape == (2, 3, 32, 32)
    assert not torch.equal(images, labelled(latent, torch.tensor([1, 0])))
