import numpy as np
import pytest

from tests.training.detectors.traces import smooth_images, upsampled
from training.evaluation import fidelity

RANDOM = np.random.default_rng(0)


def slow_squared_discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(one), len(other)
    within_one = sum(kernel(one[i], one[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_other = sum(kernel(other[i], other[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    between = sum(kernel(x, y) for x in one for y in other) / (n * m)
    return within_one + within_other - 2 * between


def test_squared_discrepancy_equals_a_slow_clear_reference() -> None:
    one, other = RANDOM.normal(0, 1, (12, 5)), RANDOM.normal(0.5, 1.2, (9, 5))
    assert fidelity.squared_discrepancy(one, other) == pytest.approx(slow_squared_discrepancy(one, other))


def test_it_is_unbiased_around_zero_for_equal_distributions() -> None:
    draws = [fidelity.squared_discrepancy(*RANDOM.normal(0, 1, (2, 20, 6))) for _ in range(600)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0


def test_distance_orders_sets_by_likeness() -> None:
    real, held_out = smooth_images(120, 32, 1, seed=0), smooth_images(120, 32, 1, seed=1)
    fake = upsampled(smooth_images(120, 32, 1, seed=2))
    collapsed = held_out[:1].repeat(120, axis=0)
    spaces = fidelity.standardised(*map(fidelity.features, (real, held_out, fake, collapsed)))
    floor, fakes, collapse = (
        fidelity.kernel_distance(spaces[0], other, subsets=20, subset_size=60, seed=0) for other in spaces[1:]
    )
    assert abs(floor.value) < 3 * floor.standard_deviation
    assert floor.value + floor.standard_deviation < fakes.value < collapse.value


def test_features_do_not_depend_on_the_batch_and_grey_equals_its_own_colour() -> None:
    grey = smooth_images(fidelity.BATCH + 2, 32, 1, seed=3)
    whole, tail = fidelity.features(grey), fidelity.features(grey[-2:])
    np.testing.assert_allclose(whole[-2:], tail, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fidelity.features(grey[:3].repeat(3, axis=3)), whole[:3], rtol=1e-4, atol=1e-5)
