from pathlib import Path

import numpy as np
import pytest

from contracts.imaging import ImageSpec
from training.gans import recipes
from training.gans.averaging import averaged, renormalise
from training.params import Recipe
from training.reading import ParamsError

SETTINGS = Recipe(8, 4, 4, 2e-4, 0.5, 100, 30, 100, 100)
IMAGE = ImageSpec(32, 3)


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"'stylegan' is unknown; valid: dcgan"):
        recipes.build("stylegan", IMAGE, SETTINGS, seed=0)


def test_a_generator_read_back_makes_the_same_images(tmp_path: Path) -> None:
    generator = recipes.build("dcgan", IMAGE, SETTINGS, seed=0).generator.eval()
    recipes.save_generator(tmp_path / "generator.pt", generator, "dcgan", IMAGE, SETTINGS)
    loaded, recipe, settings = recipes.load_generator(tmp_path / "generator.pt")
    assert (recipe, settings) == ("dcgan", SETTINGS)
    assert np.array_equal(recipes.generate(loaded, 8, 0, 0, 3), recipes.generate(generator, 8, 0, 0, 3))


def test_an_image_does_not_depend_on_how_many_are_made() -> None:
    generator = renormalise(averaged(recipes.build("dcgan", IMAGE, SETTINGS, seed=0).generator, 1, 1), 8)
    many = recipes.generate(generator, 8, seed=5, start=0, count=recipes.SAMPLE_BATCH + 3)
    few = recipes.generate(generator, 8, seed=5, start=recipes.SAMPLE_BATCH, count=3)
    assert many.shape == (recipes.SAMPLE_BATCH + 3, 32, 32, 3)
    assert many.dtype == np.uint8
    assert np.abs(many[-3:].astype(int) - few).max() <= 1
    assert not np.array_equal(many[0], many[1])
