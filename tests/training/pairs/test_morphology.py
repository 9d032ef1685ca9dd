import numpy as np
import pytest

from training.pairs import morphology
from training.pairs.morphology import Morphology


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
        assert found.thickness_pixels[0] == pytest.approx(width, rel=0.1)
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


def compared(real: np.ndarray, drawn: np.ndarray, rounds: int = 50) -> dict[str, dict[str, float | None]]:
    """Each mask a group of its own."""
    return morphology.compared(real, np.arange(len(real)), drawn, np.arange(len(drawn)), rounds, seed=0)


def test_the_thickness_of_wide_discs_is_area_by_length() -> None:
    rows, columns = np.mgrid[:64, :64]
    disc = (rows - 32) ** 2 + (columns - 32) ** 2 <= 400
    found = Morphology.of(_masks(disc))
    assert found.thickness_pixels[0] == disc.sum() / found.length_pixels[0]


def test_details_of_one_patient_count_together() -> None:
    """Ten patients of twenty equal masks each are ten observations."""
    widths = np.random.default_rng(0).choice([1, 3, 5], 10).repeat(20)
    masks = _masks(*(_cross(width) for width in widths))
    naive = compared(masks, masks)["area_share"]
    groups = np.arange(10).repeat(20)
    honest = morphology.compared(masks, groups, masks, groups, 50, seed=0)["area_share"]
    assert honest["ratio"] == naive["ratio"] == 1
    assert honest["high"] - honest["low"] > 2 * (naive["high"] - naive["low"])


def test_what_masks_lack_is_none_and_no_invalid_number() -> None:
    thin, empty = _masks(_cross(1)), np.zeros((3, 65, 65), np.uint8)
    assert compared(thin, empty)["thickness_pixels"] == {"real": pytest.approx(1, rel=0.1), "drawn": None}
    assert compared(empty, thin)["thickness_pixels"] == {"real": None, "drawn": pytest.approx(1, rel=0.1)}
    sometimes = np.concatenate([empty, thin])
    assert "ratio" not in compared(sometimes, thin, rounds=200)["length_pixels"]


def test_the_same_masks_compare_as_one_and_thicker_ones_as_more() -> None:
    random = np.random.default_rng(0)
    thin = _masks(*(np.roll(_cross(1), random.integers(-4, 5, 2), (0, 1)) for _ in range(20)))
    thick = _masks(*(np.roll(_cross(3), random.integers(-4, 5, 2), (0, 1)) for _ in range(20)))
    same = compared(thin, thin)
    assert all(one["ratio"] == 1 and one["low"] <= 1 <= one["high"] for one in same.values())
    nothing = compared(np.full_like(thin[:3], 0), thin)
    assert nothing["length_pixels"] == {"real": 0, "drawn": pytest.approx(109, rel=0.1)}
    found = compared(thin, thick)
    assert found["thickness_pixels"]["low"] > 2
    assert found["pieces"]["ratio"] == 1
