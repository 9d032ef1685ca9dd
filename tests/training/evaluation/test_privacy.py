import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from tests.training.detectors.traces import smooth_images
from training.detectors import corruptions
from training.evaluation import privacy
from training.pixels import tensor

TRAIN = smooth_images(300, 32, 3, seed=0)
HELD_OUT = smooth_images(120, 32, 3, seed=1)
FRESH = smooth_images(200, 32, 3, seed=2)
TRAIN_GROUPS = np.array([f"patient {row // 5}" for row in range(len(TRAIN))])
HELD_OUT_GROUPS = np.array([f"held-out patient {row // 5}" for row in range(len(HELD_OUT))])
BOTH = ["horizontal", "vertical"]


def root_mean_squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Every pair's difference [N, M], the long way."""
    return np.stack([np.sqrt(((image.astype(float) - other) ** 2).mean(axis=(1, 2, 3))) for image in one])


def brighter(pixels: np.ndarray, levels: int) -> np.ndarray:
    return np.clip(pixels.astype(int) + levels, 0, 255).astype(np.uint8)


COPIES: dict[str, corruptions.Corruption] = {
    "exact": lambda pixels: pixels,
    "flipped": lambda pixels: pixels[:, ::-1],
    "turned": lambda pixels: pixels[::-1, ::-1],
    "noisy": partial(corruptions.noise, deviation=2.0, seed=0),
    "brighter": partial(brighter, levels=3),
    "much brighter": partial(brighter, levels=10),
    "jpeg": partial(corruptions.jpeg, quality=75),
}


@pytest.fixture(scope="module")
def near() -> float:
    """The distance below which an image can be a near-duplicate."""
    return privacy.near_duplicate_distance(privacy.nearest(HELD_OUT, TRAIN, BOTH))


def report(fakes: np.ndarray) -> tuple[dict[str, Any], privacy.Neighbours]:
    return privacy.report(fakes, TRAIN, HELD_OUT, TRAIN_GROUPS, HELD_OUT_GROUPS, BOTH, rounds=200, seed=0)


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    return report(FRESH)[0]


@pytest.fixture(scope="module")
def copied() -> dict[str, Any]:
    """Of a generator that adds a little noise to its training images."""
    return report(np.stack([corruptions.noise(image, 2.0, seed) for seed, image in enumerate(TRAIN)]))[0]


def test_distances_are_root_mean_squares_of_the_nearest_in_blocks_too() -> None:
    images = np.concatenate([HELD_OUT, FRESH])
    assert len(images) > privacy.BLOCK
    assert len(TRAIN) > privacy.BLOCK
    found = privacy.nearest(images, TRAIN, flips=[])
    pairs = root_mean_squares(images, TRAIN)
    np.testing.assert_array_equal(found.rows, pairs.argmin(1))
    np.testing.assert_allclose(found.distances, pairs.min(1), rtol=1e-3)


def test_ratios_are_of_the_nearest_to_the_mean_of_fifty_at_equal_brightness() -> None:
    centred, train = (images - images.mean(axis=(1, 2), keepdims=True) for images in (HELD_OUT, TRAIN))
    pairs = np.sort(root_mean_squares(centred, train), axis=1)
    found = privacy.nearest(HELD_OUT, TRAIN, flips=[])
    np.testing.assert_allclose(found.shape_distances, pairs[:, 0], rtol=1e-3)
    np.testing.assert_allclose(found.ratios, pairs[:, 0] / pairs[:, :50].mean(1), rtol=1e-3)
    assert privacy.near_duplicate_distance(found) == pytest.approx(np.median(pairs[:, 0]) * 2 / 3, rel=1e-3)


@pytest.mark.parametrize(
    ("flips", "axes"), [(["horizontal"], (2,)), (["vertical"], (1,)), (["horizontal", "vertical"], (1, 2))]
)
def test_a_flipped_copy_is_a_copy(flips: list[str], axes: tuple[int, ...]) -> None:
    copies = np.flip(TRAIN[10:20], axes)
    found = privacy.nearest(copies, TRAIN, flips)
    np.testing.assert_array_equal(found.rows, np.arange(10, 20))
    assert found.exact_copies.sum() == 10
    assert privacy.nearest(copies, TRAIN, flips=[]).distances.min() > 5


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
def test_an_image_is_its_own_nearest_and_no_other_is_nearer_than_it_says(seed: int, channels: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (6, 8, 8, channels), dtype=np.uint8)
    assert privacy.nearest(images, images, flips=[]).distances.max() < privacy.EXACT_DISTANCE
    plain, flipped = privacy.nearest(images[:3], images[3:], []), privacy.nearest(images[:3], images[3:], BOTH)
    assert (flipped.distances <= plain.distances).all()


def test_large_images_are_averaged_down_to_64_pixels() -> None:
    large = smooth_images(12, 128, 1, seed=3)
    halves = F.avg_pool2d(tensor(large).double(), 2).permute(0, 2, 3, 1).numpy()
    found = privacy.nearest(large[:4], large[4:], flips=[])
    np.testing.assert_allclose(found.distances, root_mean_squares(halves[:4], halves[4:]).min(1), rtol=1e-3)


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_all_and_alone(kind: str, near: float) -> None:
    planted = np.stack([COPIES[kind](image) for image in TRAIN[::10]])
    found = privacy.nearest(np.concatenate([planted, FRESH]), TRAIN, BOTH)
    assert found.near_duplicates(near).sum() == len(planted)
    np.testing.assert_array_equal(found.rows[: len(planted)], np.arange(0, len(TRAIN), 10))
    assert found.exact_copies.sum() == (len(planted) if kind in ("exact", "flipped", "turned") else 0)


def test_an_image_like_all_is_a_copy_of_none(near: float) -> None:
    usual = TRAIN.mean(axis=0, keepdims=True).round().astype(np.uint8)
    found = privacy.nearest(usual, TRAIN, BOTH)
    assert found.distances[0] < np.quantile(privacy.nearest(HELD_OUT, TRAIN, BOTH).distances, 0.01)
    assert found.near_duplicates(near).sum() == 0


def test_an_image_far_from_all_is_no_copy_of_the_nearest(near: float) -> None:
    odd = smooth_images(1, 32, 3, seed=4).clip(0, 128) // 2
    odd[:, :, 16:] = 255
    odder = odd.copy()
    odder[:, :16, 16:24] = 128
    found = privacy.nearest(odd, np.concatenate([TRAIN, odder]), [])
    assert found.ratios[0] < privacy.NEAR_DUPLICATE_RATIO
    assert found.near_duplicates(near).sum() == 0


def test_blank_images_among_blank_ones_are_no_copies(near: float) -> None:
    blank = np.full((60, 32, 32, 3), 7, np.uint8)
    blank[np.arange(60), np.arange(60) // 2, 16] = 8
    found = privacy.nearest(blank[:5], np.concatenate([TRAIN, blank]), BOTH)
    assert (found.exact_copies.sum(), found.near_duplicates(near).sum()) == (0, 0)


def test_nearest_of_other_groups_leaves_out_the_own_group() -> None:
    pairs = root_mean_squares(TRAIN, TRAIN)
    pairs[TRAIN_GROUPS[:, None] == TRAIN_GROUPS] = np.inf
    rows = np.arange(1, len(TRAIN), 3)
    found = privacy.nearest_of_other_groups(TRAIN, TRAIN_GROUPS, rows, [])
    np.testing.assert_allclose(found[rows], pairs.min(1)[rows], rtol=1e-3)
    assert np.isnan(np.delete(found, rows)).all()


def test_one_group_is_refused_with_its_name() -> None:
    alone = np.full(len(TRAIN), "slide.png")
    with pytest.raises(privacy.PrivacyError, match=r"300 training images are of one group, 'slide\.png'"):
        privacy.nearest_of_other_groups(TRAIN, alone, np.arange(3), [])
    with pytest.raises(privacy.PrivacyError, match="attacked are of one group"):
        privacy.membership_inference(FRESH, TRAIN, HELD_OUT, alone, HELD_OUT_GROUPS, [], 10, 0)


def test_authenticity_by_hand() -> None:
    neighbours = privacy.nearest(HELD_OUT[:4], TRAIN, [])
    neighbours = replace(neighbours, rows=np.array([0, 0, 1, 2]), distances=np.array([1.0, 3.0, 3.0, 3.0]))
    assert privacy.authenticity(neighbours, np.array([2.0, 4.0, 2.5])) == 0.5


def test_membership_area_is_that_of_mann_and_whitney() -> None:
    fakes, train = TRAIN[::4], TRAIN[:120]
    found = privacy.membership_inference(
        fakes, train, HELD_OUT, TRAIN_GROUPS[:120], HELD_OUT_GROUPS, [], rounds=20, seed=0
    )
    members, others = (root_mean_squares(images, fakes).min(1) for images in (train, HELD_OUT))
    reference = mannwhitneyu(others, members).statistic / (len(members) * len(others))
    assert found["auc"]["value"] == pytest.approx(reference, abs=1e-6)


def test_intervals_resample_groups_not_images() -> None:
    """Ten images each time ten times: as groups they tell no more than ten images."""
    train, held_out = TRAIN[:12].repeat(10, axis=0), HELD_OUT[:12].repeat(10, axis=0)
    apart = np.arange(120).astype(str)
    together = (np.arange(120) // 10).astype(str)

    def width(groups: np.ndarray) -> float:
        area = privacy.membership_inference(FRESH, train, held_out, groups, groups, [], 200, 0)["auc"]
        return area["high"] - area["low"]

    assert width(together) > 2 * width(apart)


def test_nine_of_ten_intervals_hold_guessing_where_nothing_leaks() -> None:
    train_groups, held_out_groups = np.arange(150) // 5, np.arange(75) // 5
    inside = {"auc": 0, "control_auc": 0}
    for seed in range(40):
        train, held_out, fakes = np.split(smooth_images(300, 16, 1, seed=100 + seed), (150, 225))
        found = privacy.membership_inference(
            fakes, train, held_out, train_groups.astype(str), held_out_groups.astype(str), [], rounds=50, seed=seed
        )
        for name, area in found.items():
            inside[name] += area["low"] < 0.5 < area["high"]
    assert all(count >= 32 for count in inside.values()), inside


def test_fresh_images_give_nobody_away(fresh: dict[str, Any]) -> None:
    membership, nearest = fresh["membership_inference"], fresh["nearest_training_neighbour"]
    assert (fresh["samples"], fresh["exact_copies"], fresh["near_duplicates"]) == (200, 0, 0)
    assert fresh["held_out_near_duplicates"] == 0
    assert membership["auc"]["low"] < 0.5 < membership["auc"]["high"]
    assert fresh["authenticity"]["fake"] == pytest.approx(fresh["authenticity"]["held_out"], abs=0.1)
    assert nearest["ratio"] == pytest.approx(1, abs=0.05)
    assert nearest["nearer_than_1_percent_of_held_out"] < 0.05
    assert all(check.passed for check in privacy.checks(fresh, 0, 0.6))


def test_copies_give_their_originals_away(copied: dict[str, Any]) -> None:
    membership, nearest = copied["membership_inference"], copied["nearest_training_neighbour"]
    assert (copied["exact_copies"], copied["near_duplicates"]) == (0, 300)
    assert membership["auc"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert membership["control_auc"]["value"] == pytest.approx(0.5, abs=0.15)
    assert copied["authenticity"]["fake"] == 0
    assert nearest["ratio"] < 0.2
    assert nearest["nearer_than_1_percent_of_held_out"] == 1


def test_the_report_is_json_and_the_same_each_time(fresh: dict[str, Any]) -> None:
    again, neighbours = report(FRESH)
    assert json.dumps(again) == json.dumps(fresh)
    assert len(neighbours.rows) == len(FRESH)


def test_checks_say_the_numbers(copied: dict[str, Any], fresh: dict[str, Any]) -> None:
    found = {check.name: check for check in privacy.checks(copied | {"exact_copies": 2}, 5, 0.6)}
    assert list(found) == ["exact_copies", "near_duplicates", "membership_inference", "authenticity"]
    assert not any(check.passed for check in found.values())
    assert found["exact_copies"].detail == "2 of 300 samples are exact copies of training images; 0 may be."
    assert "300 of 300 samples" in found["near_duplicates"].detail
    assert "an AUC of 1.000 (1.000 to 1.000), an interval without guessing" in found["membership_inference"].detail
    assert "an interval with guessing" in privacy.checks(fresh, 0, 0.6)[2].detail
    below = fresh | {"membership_inference": {"auc": {"value": 0.3, "low": 0.2, "high": 0.4}}}
    assert "an interval without guessing" in privacy.checks(below, 0, 0.6)[2].detail
    assert found["authenticity"].detail.startswith("0.000 of the samples are authentic")


def test_the_limits_themselves_pass(fresh: dict[str, Any]) -> None:
    limits = fresh | {
        "near_duplicates": 5,
        "membership_inference": {"auc": {"value": 0.7, "low": 0.6, "high": 0.8}},
        "authenticity": {"fake": 0.5, "held_out": 0.6},
    }
    assert [check.passed for check in privacy.checks(limits, 5, 0.6)] == [True] * 4
    assert [check.passed for check in privacy.checks(limits, 4, 0.59)] == [True, False, False, True]


def test_as_many_samples_as_held_out_images_may_look_like_copies(fresh: dict[str, Any]) -> None:
    held_out = fresh["held_out_images"]
    empty_fields = fresh | {"held_out_near_duplicates": 1, "held_out_exact_copies": 1}
    allowed = -(-fresh["samples"] // held_out)
    for count, passed in ((allowed, True), (allowed + 1, False)):
        found = privacy.checks(empty_fields | {"near_duplicates": count, "exact_copies": count}, 0, 0.6)
        assert [check.passed for check in found[:2]] == [passed, passed]
