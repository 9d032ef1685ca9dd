from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.study.results import results
from training.study import figures


@pytest.mark.parametrize("recipes", [["dcgan"], ["dcgan", "dcgan_ada"]])
def test_the_figure_has_panels_for_every_recipe_and_the_same_bytes_each_time(
    recipes: list[str], tmp_path: Path
) -> None:
    rows = [row for recipe in recipes for row in results((0.7, 0.9), (0.99, 1.0), recipe)]
    one, again = tmp_path / "one.png", tmp_path / "deeper" / "again.png"
    figures.detectability("blood", rows, one)
    figures.detectability("blood", rows, again)
    assert one.read_bytes() == again.read_bytes()
    pixels = np.asarray(Image.open(one).convert("L"))
    assert pixels.shape[1] > 350 * len(recipes)
    assert pixels.std() > 5
