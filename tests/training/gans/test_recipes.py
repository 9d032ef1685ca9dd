from pathlib import Path

import numpy as np
import pytest
import torch

from contracts import latents
from contracts.imaging import ImageSpec, quantise
from tests.training.gans.small import DCGAN, DCGAN_ADA
from training.gans import recipes
from training.gans.recipes import Labels, Trained
from training.reading import ParamsError

IMAGE = ImageSpec(32, 3)
THREE = Labels(["a", "b", "c"], [0.5, 0.0, 0.5])


def trained(labels: Labels = recipes.UNLABELLED) -> Trained:
    generator = recipes.build("dcgan", IMAGE, DCGAN, seed=0, classes=len(labels.names)).generator
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(8)
    return Trained(generator.eval(), "dcgan", IMAGE, DCGAN, labels)


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"'stylegan' is unknown; valid: dcgan, dcgan_ada"):
        recipes.build("stylegan", IMAGE, DCGAN, seed=0)


def test_a_recipe_without_a_setting_it_needs_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match="needs `augmentation_ramp_images`"):
        recipes.build("dcgan_ada", IMAGE, DCGAN, seed=0)
    assert recipes.build("dcgan_ada", IMAGE, DCGAN_ADA, seed=0).augmentation.ramp_images == 80


@pytest.mark.parametrize("labels", [recipes.UNLABELLED, THREE])
def test_a_generator_read_back_makes_the_same_images(labels: Labels, tmp_path: Path) -> None:
    original = trained(labels)
    original.save(tmp_path / "generator.pt")
    loaded = Trained.load(tmp_path / "generator.pt")
    assert (loaded.recipe, loaded.image, loaded.settings, loaded.labels) == ("dcgan", IMAGE, DCGAN, labels)
    assert np.array_equal(loaded.generate(0, 0, 3), original.generate(0, 0, 3))


@pytest.mark.parametrize("labels", [recipes.UNLABELLED, THREE])
def test_an_image_does_not_depend_on_how_many_are_made(labels: Labels) -> None:
    many = trained(labels).generate(seed=5, start=0, count=recipes.SAMPLE_BATCH + 3)
    few = trained(labels).generate(seed=5, start=recipes.SAMPLE_BATCH, count=3)
    assert many.shape == (recipes.SAMPLE_BATCH + 3, 32, 32, 3)
    assert many.dtype == np.uint8
    assert np.abs(many[-3:].astype(int) - few).max() <= 1
    assert not np.array_equal(many[0], many[1])


def test_labels_come_as_often_as_in_training_and_change_the_image() -> None:
    conditional = trained(THREE)
    labels = conditional.labels_of(seed=1, start=0, count=200)
    assert set(labels.tolist()) == {0, 2}
    assert 70 < (labels == 0).sum() < 130
    latent = torch.zeros(2, DCGAN.latent_size)
    one, other = conditional.generator(latent, torch.tensor([0, 1]))
    assert not torch.allclose(one, other)
    assert trained().labels_of(1, 0, 5) is None


def test_the_same_seed_builds_the_same_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, other = (recipes.build("dcgan", IMAGE, DCGAN, seed=3).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("labels", [recipes.UNLABELLED, THREE])
def test_a_walk_begins_and_ends_at_the_samples_of_its_latents(labels: Labels) -> None:
    original = trained(labels)
    way = original.walk(seed=2, walks=3, steps=5)
    assert way.shape == (15, 32, 32, 3)
    drawn = original.labels_of(2, 0, 3)
    for walk in range(3):
        ends = torch.from_numpy(latents.latents(2, 2 * walk, 2, DCGAN.latent_size))
        label = () if drawn is None else (torch.from_numpy(drawn[[walk, walk]]),)
        expected = quantise(original.generator(*(ends, *label)).detach().permute(0, 2, 3, 1).numpy())
        assert np.abs(way[5 * walk].astype(int) - expected[0]).max() <= 1
        assert np.abs(way[5 * walk + 4].astype(int) - expected[1]).max() <= 1
    steps = [np.abs(way[step].astype(int) - way[step + 1]).mean() for step in range(4)]
    assert max(steps) < np.abs(way[0].astype(int) - way[4]).mean()
