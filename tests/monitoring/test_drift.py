import numpy as np
import pytest

from contracts.statistics import FEATURES, Reference
from monitoring.drift import DriftWindow, population_stability_index
from tests.releases import real_images


def test_the_index_of_equal_histograms_is_nearly_zero() -> None:
    even = np.full(10, 0.1)
    assert population_stability_index(even, even, count=100_000) == pytest.approx(0, abs=1e-3)


def test_the_index_by_hand() -> None:
    found, expected = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    by_hand = (0.2 - 0.5) * np.log(0.2 / 0.5) + (0.8 - 0.5) * np.log(0.8 / 0.5)
    assert population_stability_index(found, expected, count=1_000_000) == pytest.approx(by_hand, rel=1e-3)


def test_an_empty_bin_counts_much_but_not_infinitely() -> None:
    index = population_stability_index(np.array([1.0, 0.0]), np.array([0.0, 1.0]), count=100)
    assert 5 < index < 20


@pytest.fixture
def window() -> DriftWindow:
    return DriftWindow(Reference.of(real_images(400)), size=100)


def test_nothing_is_said_before_enough_was_seen(window: DriftWindow) -> None:
    for image in real_images(19, seed=1):
        window.add(image)
    assert window.drift() == {}
    window.add(real_images(1, seed=2)[0])
    assert window.drift().keys() == set(FEATURES)


def test_images_of_the_same_kind_do_not_drift(window: DriftWindow) -> None:
    for image in real_images(100, seed=1):
        window.add(image)
    assert max(window.drift().values()) < 0.25


def test_brighter_images_drift_in_brightness(window: DriftWindow) -> None:
    for image in real_images(100, seed=1):
        window.add(np.clip(image.astype(int) + 20, 0, 255).astype(np.uint8))
    assert window.drift()["brightness"] > 1
    assert window.drift()["saturation"] < 0.5


def test_the_window_forgets(window: DriftWindow) -> None:
    for image in real_images(100, seed=1):
        window.add(255 - image)
    moved = window.drift()["brightness"]
    for image in real_images(100, seed=2):
        window.add(image)
    assert window.drift()["brightness"] < 0.25 < moved
