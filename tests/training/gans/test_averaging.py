import torch
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from tests.training.gans.small import DCGAN
from training.gans import recipes
from training.gans.averaging import averaged, renormalise


def noise(batches: int = 4) -> list[tuple[Tensor]]:
    stream = torch.Generator().manual_seed(0)
    return [(torch.randn(64, DCGAN.latent_size, generator=stream),) for _ in range(batches)]


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
    generator = recipes.build("dcgan", ImageSpec(32, 1), DCGAN, seed=0).generator
    average = averaged(generator, 100, 4)
    average.update_parameters(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(3.0)
        generator.train()(torch.randn(64, 8))
    average.update_parameters(generator)
    renormalised = renormalise(average.module, noise())
    first, normalisation = renormalised.layers[0], renormalised.layers[1]
    activations = torch.cat([first(latent[:, :, None, None]) for (latent,) in noise()])
    torch.testing.assert_close(normalisation.running_mean, activations.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(normalisation.running_var, activations.var(dim=(0, 2, 3)), rtol=2e-2, atol=1e-6)
    assert not renormalised.training
    assert normalisation.momentum == 0.1


def test_it_equals_torchs_own_update_for_networks_of_one_input() -> None:
    one, other = (recipes.build("dcgan", ImageSpec(32, 1), DCGAN, seed=0).generator for _ in range(2))
    renormalise(one, noise())
    torch.optim.swa_utils.update_bn((latent for (latent,) in noise()), other)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


def test_labels_reach_the_generator() -> None:
    generator = recipes.build("dcgan", ImageSpec(32, 1), DCGAN, seed=0, classes=2).generator
    (latent,) = noise(1)[0]
    renormalise(generator, [(latent, torch.zeros(64, dtype=torch.int64))])
    of_zeros = generator.layers[1].running_mean.clone()
    renormalise(generator, [(latent, torch.ones(64, dtype=torch.int64))])
    assert not torch.allclose(of_zeros, generator.layers[1].running_mean)
