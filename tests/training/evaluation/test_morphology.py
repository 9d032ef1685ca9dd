import numpy as np
import pytest

from training.evaluation import morphology
from training.evaluation.morphology import Morphology


def _masks(*drawings: np.ndarray) -> np.ndarray:
    return np.stack(drawings).astype(np.uint8) * 255


def _cross(width: int) -> np.ndarray:
    inside = np.zeros((65, 65), dtype=bool)
    half = width // 2
    inside[32 - half : 33 + half, 5:60] = True
    inside[5:60, 32 - half : 33 + half] = True
    return inside


def test_a_cross_of_lines_has_one_piece_one_branch_and_the_length_of_both() -> None:
    for width in (1, 3, 5):
        found = Morphology.of(_masks(_cross(width)))
        assert found.pieces[0] == 1
        assert found.branch_points[0] == 1
        assert found.thickness_pixels[0] == pytest.approx(width, abs=0.7)
        assert found.length_pixels[0] == pytest.approx(109, rel=0.1)
        assert found.area_share[0] == _cross(width).mean()


def test_discs_are_counted_and_an_empty_mask_has_no_thickness() -> None:
    rows, columns = np.mgrid[:64, :64]
    discs = np.zeros((64, 64), dtype=bool)
    for top, left in ((12, 12), (12, 44), (44, 28)):
        discs |= (rows - top) ** 2 + (columns - left) ** 2 <= 36
    found = Morphology.of(_masks(discs, np.zeros((64, 64), dtype=bool)))
    np.testing.assert_array_equal(found.pieces, [3, 0])
    np.testing.assert_array_equal(found.branch_points, [0, 0])
    assert np.isnan(found.thickness_pixels[1])


def test_the_same_masks_compare_as_one_and_thicker_ones_as_more() -> None:
    random = np.random.default_rng(0)
    thin = _masks(*(np.roll(_cross(1), random.integers(-4, 5, 2), (0, 1)) for _ in range(20)))
    thick = _masks(*(np.roll(_cross(3), random.integers(-4, 5, 2), (0, 1)) for _ in range(20)))
    same = morphology.compared(thin, thin, rounds=50, seed=0)
    assert all(one["ratio"] == 1 and one["low"] <= 1 <= one["high"] for one in same.values())
    nothing = morphology.compared(np.full_like(thin[:3], 0), thin, rounds=5, seed=0)
    assert nothing["length_pixels"] == {"real": 0, "drawn": pytest.approx(109, rel=0.1)}
    found = morphology.compared(thin, thick, rounds=50, seed=0)
    assert found["thickness_pixels"]["low"] > 2
    assert found["pieces"]["ratio"] == 1
