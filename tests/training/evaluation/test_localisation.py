import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.detectors.traces import smooth_images
from training.evaluation import localisation

DARK = np.full((40, 64, 64, 3), 60, dtype=np.uint8)
BRIGHT = np.full((30, 64, 64, 3), 200, dtype=np.uint8)
NOISY = smooth_images(40, 64, 3, seed=0)


class Brightness(nn.Module):
    """The heatmap is the mean grey level of a cell, times a sign."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cells = F.avg_pool2d(image.permute(0, 3, 1, 2).float().mean(dim=1, keepdim=True), 8)[:, 0]
        return torch.ones(len(image)), torch.ones(len(image)), self.sign * cells


class Edges(nn.Module):
    """Hot where something ends: what pasting itself leaves behind."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grey = image.float().mean(dim=3)[:, None]
        edges = (F.avg_pool2d(grey, 3, stride=1, padding=1, count_include_pad=False) - grey).abs()
        return torch.ones(len(image)), torch.ones(len(image)), F.avg_pool2d(edges, 8)[:, 0]


def measured(model: nn.Module, real: np.ndarray, synthetic: np.ndarray) -> dict[str, Any]:
    return localisation.pointing(model, real, synthetic, seed=0)


def test_a_map_that_points_at_the_region_has_the_whole_area_and_its_negative_none() -> None:
    found = measured(Brightness(), DARK, BRIGHT)
    assert found["pairs"] == 30
    assert found["synthetic_region"] == {"value": 1, "low": 1, "high": 1}
    assert found["real_region"]["value"] == 0.5
    assert found["difference"]["value"] == 0.5
    assert measured(Brightness(-1.0), DARK, BRIGHT)["synthetic_region"]["value"] == 0


def test_a_map_that_knows_nothing_is_at_chance() -> None:
    found = measured(Brightness(), NOISY, smooth_images(40, 64, 3, seed=1))
    for name, chance in (("synthetic_region", 0.5), ("real_region", 0.5), ("difference", 0.0)):
        assert found[name]["low"] < chance < found[name]["high"]


def test_the_baseline_takes_away_what_pasting_itself_heats() -> None:
    """Real and synthetic images are alike, and both are pasted with an edge."""
    levels = np.random.default_rng(0).integers(40, 216, (80, 1, 1, 1))
    images = np.broadcast_to(levels, (80, 64, 64, 3)).astype(np.uint8)
    found = measured(Edges(), images[:40], images[40:])
    assert found["synthetic_region"]["value"] > 0.6
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    expected = found["synthetic_region"]["value"] - found["real_region"]["value"]
    assert found["difference"]["value"] == pytest.approx(expected)


def test_regions_are_half_the_side_anywhere_and_fade_in_over_two_pixels() -> None:
    areas = localisation.regions(300, 64, 64, np.random.default_rng(0))
    assert areas.shape == (300, 64, 64)
    assert ((areas > 0).sum(axis=(1, 2)) == 32 * 32).all()
    assert ((areas == 1).sum(axis=(1, 2)) == 28 * 28).all()
    np.testing.assert_allclose(np.unique(areas), [0, 1 / 3, 2 / 3, 1])
    tops = {int(np.flatnonzero(area.any(axis=1))[0]) for area in areas}
    assert {min(tops), max(tops)} == {0, 32}
    assert len({top % 8 for top in tops}) == 8


def test_a_paste_is_the_donor_inside_and_the_host_outside() -> None:
    pairs = localisation.pasted(DARK, BRIGHT, seed=3)
    for image, area in zip(pairs.with_synthetic, pairs.regions, strict=True):
        assert (image[area == 0] == 60).all()
        assert (image[area == 1] == 200).all()
        assert np.isin(image[(area > 0) & (area < 1)], [107, 153]).all()
    again = localisation.pasted(DARK, BRIGHT, seed=3)
    assert np.array_equal(pairs.with_synthetic, again.with_synthetic)
    assert not np.array_equal(pairs.regions, localisation.pasted(DARK, BRIGHT, seed=4).regions)


def test_no_real_image_is_pasted_into_itself_and_both_kinds_share_host_and_place() -> None:
    levels = np.arange(20, dtype=np.uint8)[:, None, None, None]
    real = np.broadcast_to(levels, (20, 64, 64, 1))
    pairs = localisation.pasted(real, BRIGHT[..., :1], seed=0)
    for synthetic, other, area in zip(pairs.with_synthetic, pairs.with_real, pairs.regions, strict=True):
        assert np.array_equal(synthetic[area == 0], other[area == 0])
        assert not set(other[area == 1].ravel()) & set(other[area == 0].ravel())


@pytest.mark.parametrize("cells", [4, 5, 8, 16])
def test_a_cell_lies_inside_where_at_least_half_of_it_is_pasted(cells: int) -> None:
    areas = localisation.regions(200, 64, 64, np.random.default_rng(0))
    inside = localisation.on_grid(areas, cells, cells)
    assert inside.any(axis=(1, 2)).all()
    assert not inside.all(axis=(1, 2)).any()
    if 64 % cells == 0:
        side = 64 // cells
        shares = areas.reshape(200, cells, side, cells, side).mean(axis=(2, 4))
        clear = np.abs(shares - 0.5) > 1e-5
        assert np.array_equal(inside[clear], (shares > 0.5)[clear])


def test_the_report_is_json_and_the_same_each_time() -> None:
    found = measured(Brightness(), NOISY, BRIGHT)
    assert json.loads(json.dumps(found, allow_nan=False)) == found == measured(Brightness(), NOISY, BRIGHT)
