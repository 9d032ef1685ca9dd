import numpy as np
import pytest
from scipy.stats import entropy

from training.pairs import dispersion


def pairs(count: int, level: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    images = np.clip(random.normal(level, 20, (count, 16, 16, 1)), 0, 255).astype(np.uint8)
    masks = np.where(random.random((count, 16, 16)) < 0.2, 255, 0).astype(np.uint8)
    return dispersion.quantities(images, masks)


def of_values(*sets: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Sets that differ in one quantity alone; their grey levels are all the same."""
    levels = np.array([[1, 2]])
    return [{dispersion.GREY_LEVELS: levels.repeat(len(values), axis=0), "quantity": values} for values in sets]


def test_divergence_is_that_of_the_smoothed_histograms() -> None:
    real, other = np.array([1, 2, 1]), np.array([0, 1, 4])
    assert dispersion.divergence(real, other) == pytest.approx(entropy((real + 0.5) / 5.5, (other + 0.5) / 6.5))
    assert dispersion.divergence(real, real) == 0


def test_grey_levels_are_counted_by_image_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    masks = np.full((7, 8, 8), 255, np.uint8)
    monkeypatch.setattr(dispersion, "BATCH", 3)
    found = dispersion.quantities(images, masks)[dispersion.GREY_LEVELS]
    expected = [np.histogram(image, bins=32, range=(0, 256))[0] for image in images]
    np.testing.assert_array_equal(found, expected)


def test_values_that_are_no_number_are_left_out() -> None:
    real = np.array([1.0, np.nan, 2.0])
    assert dispersion.report(*of_values(real, real, real), seed=0)["quantity"] == {"synthetic": 0, "floor": 0}


def test_values_beyond_all_real_ones_are_not_taken_for_the_outermost() -> None:
    """A tenth of both sets lies above the real deciles, but that of the synthetic one far beyond any real value."""
    real = np.random.default_rng(0).permutation(np.linspace(0, 100, 400))
    far = np.where(real > 90, real * 50, real)
    found = dispersion.report(*of_values(real, real[::-1], far), seed=0)["quantity"]
    assert found["floor"] == 0
    assert found["synthetic"] > 0.3


def test_counts_that_real_images_never_have_are_told_from_those_they_have() -> None:
    real, other = np.array([1.0, 3.0]).repeat(100), np.array([2.0, 3.0]).repeat(100)
    found = dispersion.report(*of_values(real, real, other), seed=0)["quantity"]
    assert found["floor"] == 0
    assert found["synthetic"] > 2


def test_few_held_out_images_do_not_look_farther_than_many_of_the_same_kind() -> None:
    random = np.random.default_rng(0)
    train, held_out, synthetic = (random.normal(size=count) for count in (4000, 60, 4000))
    found = dispersion.report(*of_values(train, held_out, synthetic), seed=0)["quantity"]
    assert found["synthetic"] == pytest.approx(found["floor"], rel=0.5)
    assert found["floor"] > 0.01


def test_darker_images_diverge_in_grey_levels_and_brightness_and_not_in_their_masks() -> None:
    train, test, dark = pairs(80, 120, 0), pairs(80, 120, 1), pairs(80, 60, 2)
    found = dispersion.report(train, test, dark, seed=0)
    for name in ("grey levels", "brightness"):
        assert found[name]["synthetic"] > max(1, 10 * found[name]["floor"])
    assert found["mask area share"]["synthetic"] < 0.5


def test_diversity_is_the_mean_difference_of_two_images() -> None:
    images = np.stack([np.full((4, 4), level, np.uint8) for level in (0, 100)])
    assert dispersion.diversity(images, seed=0) == 100
    assert dispersion.varied(same=np.full((5, 4, 4), 7, np.uint8)) == {"same": 0.0}
