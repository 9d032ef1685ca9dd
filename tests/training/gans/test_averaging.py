import torch
from torch import nn

from contracts.imaging import ImageSpec
from training.gans import dcgan
from training.gans.averaging import NORMALISATION_BATCHES, averaged, renormalise
from training.params import Recipe

SETTINGS = Recipe(8, 4, 4, 2e-4, 0.5, 100, 30, 100, 100)


def test_half_of_the_past_is_forgotten_after_the_half_life() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = averaged(layer, halflife_images=40, batch_size=4)
    average.update_parameters(layer)
    nn.init.ones_(layer.weight)
    for _ in range(10):
        average.update_parameters(layer)
    torch.testing.assert_close(average.module.weight.detach(), torch.tensor([[0.5]]))


def test_batch_norm_statistics_are_those_of_the_averaged_weights() -> None:
    generator = dcgan.build(ImageSpec(32, 1), SETTINGS, seed=0).generator
    average = averaged(generator, 100, 4)
    average.update_parameters(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(3.0)
        generator.train()(torch.randn(64, 8))
    average.update_parameters(generator)
    renormalised = renormalise(average, latent_size=8)
    first = renormalised.layers[0]
    noise = torch.Generator().manual_seed(0)
    activations = torch.cat(
        [first(torch.randn(64, 8, generator=noise)[:, :, None, None]) for _ in range(NORMALISATION_BATCHES)]
    )
    normalisation = renormalised.layers[1]
    torch.testing.assert_close(normalisation.running_mean, activations.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(normalisation.running_var, activations.var(dim=(0, 2, 3)), rtol=2e-2, atol=1e-6)
    assert not renormalised.training


def test_renormalising_twice_gives_the_same_samples() -> None:
    generator = dcgan.build(ImageSpec(32, 1), SETTINGS, seed=0).generator
    average = averaged(generator, 100, 4)
    latent = torch.randn(3, 8)
    with torch.no_grad():
        one = renormalise(average, 8)(latent)
        other = renormalise(average, 8)(latent)
    assert torch.equal(one, other)
