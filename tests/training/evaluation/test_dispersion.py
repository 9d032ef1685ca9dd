import numpy as np
import pytest
from scipy.stats import entropy

from training.evaluation import dispersion
from training.evaluation.dispersion import Quantities


def pairs(count: int, level: int, seed: int) -> Quantities:
    random = np.random.default_rng(seed)
    images = np.clip(random.normal(level, 20, (count, 16, 16, 1)), 0, 255).astype(np.uint8)
    masks = np.where(random.random((count, 16, 16)) < 0.2, 255, 0).astype(np.uint8)
    return Quantities.of(images, masks)


def test_divergence_is_that_of_the_smoothed_histograms() -> None:
    real, other = np.array([0.0, 1, 1, 2]), np.array([1.0, 2, 2, 2, 2])
    expected = entropy(np.array([1.5, 2.5, 1.5]) / 5.5, np.array([0.5, 1.5, 4.5]) / 6.5)
    assert dispersion.divergence(real, other, np.array([0.5, 1.5])) == pytest.approx(expected)
    assert dispersion.divergence(real, real, np.array([0.5, 1.5])) == 0


def test_values_that_are_no_number_are_left_out() -> None:
    real = np.array([1.0, np.nan, 2.0])
    assert dispersion.divergence(real, np.array([1.0, 2.0]), np.array([1.5])) == 0


def test_darker_images_diverge_in_grey_levels_and_brightness_and_not_in_their_masks() -> None:
    train, test, dark = pairs(80, 120, 0), pairs(80, 120, 1), pairs(80, 60, 2)
    found = dispersion.report(train, test, dark)
    for name in ("grey levels", "brightness"):
        assert found[name]["synthetic"] > 1 > 10 * found[name]["floor"] or found[name]["synthetic"] > 1
    assert found["mask area share"]["synthetic"] < 0.5


def test_diversity_is_the_mean_difference_of_two_images() -> None:
    images = np.stack([np.full((4, 4), level, np.uint8) for level in (0, 100)])
    assert dispersion.diversity(images, seed=0) == 100
    assert dispersion.varied(same=np.full((5, 4, 4), 7, np.uint8)) == {"same": 0.0}
