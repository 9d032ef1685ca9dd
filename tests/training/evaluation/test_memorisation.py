import numpy as np
import pytest

from tests.training.detectors.traces import smooth_images
from training.evaluation import memorisation

TRAIN = smooth_images(90, 32, 3, seed=0)
HELD_OUT = smooth_images(40, 32, 3, seed=1)


def test_distances_are_root_mean_squares_of_the_nearest() -> None:
    found = memorisation.nearest(HELD_OUT, TRAIN, flips=[])
    pairs = np.sqrt(((HELD_OUT[:, None].astype(float) - TRAIN[None]) ** 2).mean(axis=(2, 3, 4)))
    np.testing.assert_array_equal(found.rows, pairs.argmin(1))
    np.testing.assert_allclose(found.distances, pairs.min(1), rtol=1e-3)


@pytest.mark.parametrize(
    ("flips", "axes"), [(["horizontal"], (2,)), (["vertical"], (1,)), (["horizontal", "vertical"], (1, 2))]
)
def test_a_flipped_copy_is_a_copy(flips: list[str], axes: tuple[int, ...]) -> None:
    copies = np.flip(TRAIN[10:20], axes)
    found = memorisation.nearest(copies, TRAIN, flips)
    np.testing.assert_array_equal(found.rows, np.arange(10, 20))
    assert found.distances.max() < 0.5
    assert memorisation.nearest(copies, TRAIN, flips=[]).distances.min() > 5


def test_copies_show_in_the_report_and_fresh_images_do_not() -> None:
    held_out = memorisation.nearest(HELD_OUT, TRAIN, [])
    fresh = memorisation.report(memorisation.nearest(smooth_images(40, 32, 3, seed=2), TRAIN, []), held_out)
    copied = memorisation.report(memorisation.nearest(TRAIN[:40], TRAIN, []), held_out)
    assert fresh["exact_copies"] == 0
    assert fresh["ratio"] == pytest.approx(1, abs=0.1)
    assert fresh["nearer_than_1_percent_of_held_out"] < 0.2
    assert copied["exact_copies"] == 40
    assert copied["nearer_than_1_percent_of_held_out"] == 1
    assert copied["ratio"] < 0.05
