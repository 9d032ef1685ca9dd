from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from prdc import compute_prdc
from torchmetrics.image.fid import _compute_fid

from contracts.errors import VerisynthError
from tests.training.detectors.traces import smooth_images, upsampled
from training.evaluation import fidelity, spaces

RANDOM = np.random.default_rng(0)
TRAIN, REFERENCE = smooth_images(160, 32, 1, seed=0), smooth_images(60, 32, 1, seed=1)
FAKES = upsampled(smooth_images(50, 32, 1, seed=2))


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


def test_sums_do_not_depend_on_the_rows_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = RANDOM.normal(0, 1, (12, 5)), RANDOM.normal(0.5, 1.2, (9, 5))
    whole = fidelity.kernel_distance(one, other, 4)
    monkeypatch.setattr(fidelity, "KERNEL_ROWS", 5)
    parts = fidelity.kernel_distance(one, other, 4)
    assert (parts.value, parts.low) == pytest.approx((whole.value, whole.low))


def test_it_is_unbiased_around_zero_for_equal_distributions() -> None:
    draws = [fidelity.squared_discrepancy(*RANDOM.normal(0, 1, (2, 20, 6))) for _ in range(600)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0


def naive_variance(one: np.ndarray, other: np.ndarray, blocks: list[np.ndarray]) -> float:
    """Delete-a-block variance for blocks of equal size, every estimate computed anew."""
    kept = [np.setdiff1d(np.arange(len(one)), block) for block in blocks]
    without = np.array([slow_squared_discrepancy(one[rows], other) for rows in kept])
    return float((len(blocks) - 1) / len(blocks) * ((without - without.mean()) ** 2).sum())


def test_the_interval_equals_leaving_out_block_after_block() -> None:
    one, other = RANDOM.normal(0, 1, (12, 3)), RANDOM.normal(0.5, 1.2, (8, 3))
    dealt = [np.arange(start, 12, 4) for start in range(4)]
    grouped = [np.arange(start, start + 2) for start in range(0, 8, 2)]
    found = fidelity.kernel_distance(one, other, 4, None, np.array(["a", "b", "c", "d"]).repeat(2))
    reach = 1.96 * np.sqrt(naive_variance(one, other, dealt) + naive_variance(other, one, grouped))
    assert found.value == pytest.approx(slow_squared_discrepancy(one, other))
    assert found.high - found.value == pytest.approx(reach, rel=1e-4)
    assert found.value - found.low == pytest.approx(reach, rel=1e-4)


def test_blocks_of_unequal_size_count_by_their_size() -> None:
    """Of a mean, the jackknife by Busing et al. is its textbook form; here against pseudovalues by hand."""
    values, sizes = RANDOM.normal(0, 1, 12), np.array([6, 4, 2])
    edges = np.cumsum([0, *sizes])
    without = np.array([np.delete(values, np.arange(*edges[block : block + 2])).mean() for block in range(3)])
    block_means = np.array([values[edges[block] : edges[block + 1]].mean() for block in range(3)])
    # Pseudovalues of a mean are its block means.
    expected = np.mean((block_means - values.mean()) ** 2 / (12 / sizes - 1))
    assert fidelity._jackknife_variance(values.mean(), without, sizes) == pytest.approx(expected)


@given(st.lists(st.integers(0, 12), min_size=8, max_size=60), st.integers(2, 8))
def test_groups_stay_whole_and_no_block_is_empty(members: list[int], blocks: int) -> None:
    groups = np.array([str(member) for member in members] + ["x", "y", "z"])
    home = fidelity._dealt(np.zeros((len(groups), 1)), groups, blocks)
    assert all(len(set(home[groups == group])) == 1 for group in set(groups))
    assert sorted(set(home)) == list(range(min(blocks, len(set(groups)))))


def true_discrepancy(shift: float, size: int) -> float:
    """Of two unit normals whose means are `shift` apart, from the differences of their first three moments."""
    square = shift**2
    third = square**3 + 6 * square**2 + (3 * size + 6) * square
    return 3 * square / size + 3 * square**2 / size**2 + third / size**3


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(shift: float) -> None:
    """Conservative without a shift, where the variance is too large by design."""
    random = np.random.default_rng(1)
    truth = true_discrepancy(shift, 8)
    held = 0
    for _ in range(200):
        one, other = random.normal(0, 1, (2, 80, 8))
        one[:, 0] += shift
        found = fidelity.kernel_distance(one, other, blocks=20)
        held += found.low <= truth <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_images_of_one_group_count_together() -> None:
    """Ten patients of eight identical images are ten observations, not eighty."""
    one, other = RANDOM.normal(0, 1, (80, 4)), RANDOM.normal(0.6, 1, (10, 4)).repeat(8, axis=0)
    naive = fidelity.kernel_distance(one, other, 20)
    honest = fidelity.kernel_distance(one, other, 20, None, np.arange(10).repeat(8).astype(str))
    assert naive.value == honest.value
    assert honest.high - honest.low > 1.5 * (naive.high - naive.low)


@pytest.mark.parametrize("groups", [["a"] * 6, ["a"] * 5 + ["b"]])
def test_too_few_independent_images_have_no_interval(groups: list[str]) -> None:
    with pytest.raises(VerisynthError, match="groups are too few for an interval"):
        fidelity.kernel_distance(np.ones((6, 2)), np.ones((6, 2)), 4, np.array(groups))


def test_frechet_distance_equals_scipys_root_and_torchmetrics() -> None:
    one, other = RANDOM.normal(0, 1, (60, 6)) @ RANDOM.normal(0, 1, (6, 6)), RANDOM.normal(0.5, 2, (50, 6))
    covariances = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    found = fidelity.frechet_distance(one, other)
    assert found == pytest.approx(expected)
    moments = [
        torch.from_numpy(moment) for rows in (one, other) for moment in (rows.mean(0), np.cov(rows, rowvar=False))
    ]
    assert found == pytest.approx(float(_compute_fid(*moments)))


def test_frechet_distance_of_collapsed_and_of_equal_sets() -> None:
    rows = RANDOM.normal(0, 1, (30, 4))
    collapsed = rows[:1].repeat(30, axis=0)
    expected = ((rows.mean(0) - rows[0]) ** 2).sum() + np.trace(np.cov(rows.T))
    assert fidelity.frechet_distance(rows, collapsed) == pytest.approx(expected)
    assert fidelity.frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert fidelity.frechet_distance(rows[:, :1], rows[:, :1] + 2) == pytest.approx(4)


def slow_neighbourhoods(real: np.ndarray, fake: np.ndarray, neighbours: int) -> dict[str, float]:
    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.sqrt(((x - y) ** 2).sum()))

    def radius(rows: np.ndarray, own: int) -> float:
        return sorted(distance(rows[own], row) for index, row in enumerate(rows) if index != own)[neighbours - 1]

    real_radii = [radius(real, index) for index in range(len(real))]
    fake_radii = [radius(fake, index) for index in range(len(fake))]
    in_real = [[distance(x, y) <= reach for x, reach in zip(real, real_radii, strict=True)] for y in fake]
    in_fake = [[distance(x, y) <= reach for y, reach in zip(fake, fake_radii, strict=True)] for x in real]
    return {
        "precision": float(np.mean([any(row) for row in in_real])),
        "recall": float(np.mean([any(row) for row in in_fake])),
        "density": float(np.mean([sum(row) / neighbours for row in in_real])),
        "coverage": float(np.mean([any(column) for column in zip(*in_real, strict=True)])),
    }


@pytest.mark.parametrize(("real", "fake", "neighbours"), [(40, 40, 5), (30, 20, 1), (20, 30, 3)])
def test_neighbourhoods_equal_the_papers_package_and_a_slow_clear_reference(
    real: int, fake: int, neighbours: int
) -> None:
    reals, fakes = RANDOM.normal(0, 1, (real, 3)), RANDOM.normal(0.7, 0.8, (fake, 3))
    found = fidelity.neighbourhoods(reals, fakes, neighbours)
    assert found == pytest.approx(slow_neighbourhoods(reals, fakes, neighbours))
    assert found == pytest.approx(compute_prdc(reals, fakes, neighbours))
    assert 0 < found["recall"] < 1


@given(st.integers(0, 2**31))
def test_neighbourhoods_of_duplicates_equal_the_slow_reference(seed: int) -> None:
    """On a coarse lattice most images have twins and most distances are tied."""
    real, fake = np.random.default_rng(seed).integers(0, 3, (2, 12, 2)).astype(float)
    assert fidelity.neighbourhoods(real, fake, 2) == pytest.approx(slow_neighbourhoods(real, fake, 2))


def test_a_collapsed_set_recalls_nothing_and_copies_recall_everything() -> None:
    real = RANDOM.normal(0, 1, (30, 4))
    collapsed = fidelity.neighbourhoods(real, np.full((30, 4), 0.1), 5)
    assert collapsed["recall"] == 0
    assert collapsed["precision"] == 1
    assert collapsed["coverage"] < 1
    assert fidelity.neighbourhoods(real, real.copy(), 5) == {
        "precision": 1,
        "recall": 1,
        "density": pytest.approx(fidelity.neighbourhoods(real, real, 5)["density"]),
        "coverage": 1,
    }


def test_images_without_enough_neighbours_are_refused() -> None:
    few = RANDOM.normal(0, 1, (5, 2))
    with pytest.raises(VerisynthError, match="5 images have 4 neighbours each, not 5"):
        fidelity.neighbourhoods(few, RANDOM.normal(0, 1, (20, 2)), 5)
    assert fidelity.neighbourhoods(few, few, 4)["precision"] == 1


@pytest.fixture(scope="module")
def found_spaces() -> list[spaces.Space]:
    return spaces.weight_free(TRAIN)


def test_a_report_beside_its_floor(found_spaces: list[spaces.Space]) -> None:
    groups = np.arange(30).repeat(2).astype(str)
    fakes = fidelity.report(found_spaces, TRAIN, REFERENCE, groups, FAKES, neighbours=5, blocks=10, seed=0)
    floor = fidelity.floor(found_spaces, TRAIN, None, REFERENCE, groups, len(FAKES), neighbours=5, blocks=10, seed=0)
    again = fidelity.floor(found_spaces, TRAIN, None, REFERENCE, groups, len(FAKES), neighbours=5, blocks=10, seed=0)
    assert again == floor
    assert list(fakes) == list(floor) == ["radiomics", "random_network"]
    for name in floor:
        assert fakes[name].keys() == floor[name].keys()
        assert fakes[name]["images"] == floor[name]["images"] == 50
        for kid in ("kid", "kid_against_train"):
            assert floor[name][kid]["low"] < 0 < floor[name][kid]["high"]
    for kid in ("kid", "kid_against_train"):
        assert fakes["radiomics"][kid]["low"] > floor["radiomics"][kid]["high"]
    assert fakes["radiomics"]["frechet_distance"] > 2 * floor["radiomics"]["frechet_distance"]
    assert fakes["radiomics"]["precision"] < 0.1 < 0.5 < floor["radiomics"]["precision"]


def test_the_floor_keeps_training_images_of_one_group_together(found_spaces: list[spaces.Space]) -> None:
    copied = TRAIN[np.arange(len(TRAIN)) // 12]
    groups = (np.arange(len(copied)) // 12).astype(str)
    alone, together = (
        fidelity.floor(found_spaces, copied, of, REFERENCE, None, 60, neighbours=5, blocks=10, seed=0)
        for of in (None, groups)
    )
    for name in alone:
        one, other = alone[name]["kid"], together[name]["kid"]
        assert other["value"] == pytest.approx(one["value"])
        assert other["high"] - other["low"] > one["high"] - one["low"]


def test_a_report_joins_the_numbers_of_its_parts(found_spaces: list[spaces.Space]) -> None:
    """With as many fakes as reference images nothing is thinned out, so every number can be computed by itself."""
    fakes = np.concatenate([FAKES, smooth_images(10, 32, 1, seed=3)])
    groups = np.arange(12).repeat(5).astype(str)
    space = found_spaces[1]
    found: dict[str, Any] = fidelity.report([space], TRAIN, REFERENCE, groups, fakes, 3, 10, seed=0)[space.name]
    real, fake, train = (space.coordinates(images) for images in (REFERENCE, fakes, TRAIN))
    kid, against_train = (
        fidelity.kernel_distance(fake, real, 10, None, groups),
        fidelity.kernel_distance(fake, train, 10),
    )
    assert found["kid"] == {"value": kid.value, "low": kid.low, "high": kid.high}
    assert found["kid_against_train"]["value"] == against_train.value
    assert found["frechet_distance"] == pytest.approx(fidelity.frechet_distance(real, fake))
    for name, value in fidelity.neighbourhoods(real, fake, 3).items():
        assert found[name] == pytest.approx(value)


@pytest.mark.parametrize("fakes", [FAKES[:20], FAKES[:1].repeat(20, axis=0)], ids=["few", "collapsed"])
def test_twenty_images_and_collapsed_ones_have_finite_numbers(fakes: np.ndarray) -> None:
    train = TRAIN[:20]
    found_spaces = spaces.weight_free(train)
    for numbers in (
        fidelity.report(found_spaces, train, REFERENCE[:20], None, fakes, 5, 20, seed=0),
        fidelity.floor(found_spaces, train, None, REFERENCE[:20], None, len(fakes), 5, 20, seed=0),
    ):
        for of_space in numbers.values():
            flat = [*of_space.pop("kid").values(), *of_space.pop("kid_against_train").values(), *of_space.values()]
            assert np.isfinite(flat).all()
            assert of_space["images"] == 10


def test_the_validator_orders_generators_and_is_the_mean_over_spaces(found_spaces: list[spaces.Space]) -> None:
    distance = fidelity.validator(TRAIN, REFERENCE)
    real = smooth_images(50, 32, 1, seed=4)
    assert abs(distance(real)) < 0.5 < distance(FAKES) < distance(FAKES[:1].repeat(50, axis=0))
    assert distance(FAKES) == pytest.approx(fidelity.mean_kernel_distance(found_spaces, FAKES, REFERENCE))
    single = [fidelity.mean_kernel_distance([space], FAKES, REFERENCE) for space in found_spaces]
    assert distance(FAKES) == pytest.approx(np.mean(single))


def test_the_validator_compares_no_more_images_than_its_limit() -> None:
    limited = fidelity.validator(TRAIN, REFERENCE, limit=20)
    chosen = fidelity.validator(TRAIN, REFERENCE[spaces.evenly_spread(60, 20)])
    assert limited(FAKES) == pytest.approx(chosen(FAKES[spaces.evenly_spread(50, 20)]))
