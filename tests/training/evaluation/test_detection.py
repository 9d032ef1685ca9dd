import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from training.data.prepared import Row
from training.data.tiles import Box
from training.detectors.ranking import area_under_curve
from training.evaluation import detection

RANDOM = np.random.default_rng(0)
SYNTHETIC = np.arange(4000) >= 2000
PROBABILITIES = 1 / (1 + np.exp(-RANDOM.normal(np.where(SYNTHETIC, 1.0, -1.0), 1.0)))
"""Two unit normals two apart: AUC 0.921, equal error rate 0.159, 0.372 found at 1 % false positives."""


def test_the_convention_synthetic_is_positive() -> None:
    synthetic, sure = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9])
    assert detection.equal_error_rate(synthetic, sure) == 0
    assert detection.true_positive_rate_at(0.01, synthetic, sure) == 1


def test_numbers_equal_those_of_two_normals() -> None:
    assert detection.equal_error_rate(SYNTHETIC, PROBABILITIES) == pytest.approx(0.159, abs=0.015)
    assert detection.true_positive_rate_at(0.01, SYNTHETIC, PROBABILITIES) == pytest.approx(0.372, abs=0.06)


def test_calibration_numbers_do_not_move_with_the_counts_of_the_classes() -> None:
    odds = 2 * np.log(PROBABILITIES / (1 - PROBABILITIES))
    true = 1 / (1 + np.exp(-odds))
    few = np.concatenate([np.arange(2000), np.arange(2000, 2200)])
    assert detection.calibration_error(SYNTHETIC[few], true[few]) < 0.05
    full, thinned = detection.brier_score(SYNTHETIC, true), detection.brier_score(SYNTHETIC[few], true[few])
    assert thinned == pytest.approx(full, abs=0.02)


def test_brier_score_equals_scikit_learns() -> None:
    assert detection.brier_score(SYNTHETIC, PROBABILITIES) == pytest.approx(brier_score_loss(SYNTHETIC, PROBABILITIES))


def test_calibration_error_by_hand() -> None:
    synthetic = np.array([False, True, False, True])
    probabilities = np.array([0.25, 0.25, 0.95, 0.95])
    assert detection.calibration_error(synthetic, probabilities) == pytest.approx(0.5 * 0.25 + 0.5 * 0.45)


def test_true_odds_are_calibrated_and_exaggerated_ones_are_not() -> None:
    odds = 2 * np.log(PROBABILITIES / (1 - PROBABILITIES))
    true, exaggerated = 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(-4 * odds))
    assert detection.calibration_error(SYNTHETIC, true) < 0.025
    assert detection.calibration_error(SYNTHETIC, exaggerated) > 0.05


@given(st.integers(0, 2**31))
def test_chance_is_chance(seed: int) -> None:
    probabilities = np.random.default_rng(seed).random(4000)
    assert area_under_curve(SYNTHETIC, probabilities) == pytest.approx(0.5, abs=0.06)
    assert detection.equal_error_rate(SYNTHETIC, probabilities) == pytest.approx(0.5, abs=0.06)


def test_intervals_hold_the_value_and_shrink_with_more_images() -> None:
    patients = np.arange(4000).astype(str)
    many = detection.with_intervals(SYNTHETIC, PROBABILITIES, patients, rounds=200, seed=0)
    few_rows = np.arange(0, 4000, 20)
    few = detection.with_intervals(SYNTHETIC[few_rows], PROBABILITIES[few_rows], patients[few_rows], rounds=200, seed=0)
    for name in detection.METRICS:
        assert many[name]["low"] <= many[name]["high"]
    auc, wide = many["auc"], few["auc"]
    assert auc["low"] < auc["value"] < auc["high"]
    assert wide["high"] - wide["low"] > 3 * (auc["high"] - auc["low"])


def test_details_of_one_patient_count_together() -> None:
    """Fifty patients of forty identical details are fifty observations, not two thousand."""
    per_patient = RANDOM.normal(-1.0, 1.0, 50).repeat(40)
    probabilities = 1 / (1 + np.exp(-np.concatenate([per_patient, RANDOM.normal(1.0, 1.0, 2000)])))
    own = np.arange(4000).astype(str)
    shared = np.concatenate([np.arange(50).repeat(40), np.full(2000, 99)]).astype(str)
    naive = detection.with_intervals(SYNTHETIC, probabilities, own, rounds=200, seed=0)["auc"]
    honest = detection.with_intervals(SYNTHETIC, probabilities, shared, rounds=200, seed=0)["auc"]
    assert honest["high"] - honest["low"] > 2 * (naive["high"] - naive["low"])


def test_operating_points_keep_their_false_positive_rates() -> None:
    for point, allowed in zip(
        detection.operating_points(SYNTHETIC, PROBABILITIES), detection.FALSE_POSITIVE_RATES, strict=True
    ):
        positive = point["threshold"] <= PROBABILITIES
        assert positive[~SYNTHETIC].mean() == pytest.approx(point["false_positive_rate"])
        assert positive[SYNTHETIC].mean() == pytest.approx(point["true_positive_rate"])
        assert point["false_positive_rate"] <= allowed


def test_a_point_that_no_threshold_reaches_is_left_out() -> None:
    synthetic = np.array([False] * 50 + [True] * 50)
    probabilities = np.where(synthetic, 1.0, 0.2)
    probabilities[0] = 1.0
    (point,) = detection.operating_points(synthetic, probabilities)
    assert point == {"threshold": 1.0, "false_positive_rate": 0.02, "true_positive_rate": 1.0}
    probabilities[0] = 0.99
    assert [point["false_positive_rate"] for point in detection.operating_points(synthetic, probabilities)][:2] == [
        0,
        0,
    ]


def row(patient: str, left: int | None = None) -> Row:
    box = None if left is None else Box(left, 0, 32, 32)
    return Row("image.png", patient, None, "0" * 64, box)


def test_patients_are_resampled_where_there_are_enough_and_places_where_not() -> None:
    unit, groups = detection.independent_groups([row(str(patient % 3), 8 * patient) for patient in range(12)])
    assert (unit, len(set(groups))) == ("patients", 3)
    unit, groups = detection.independent_groups([row("one", left) for left in (0, 8, 16, 40, 64)])
    assert unit == "places"
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups)) == 3
    unit, groups = detection.independent_groups([row("one"), row("two")])
    assert (unit, len(set(groups))) == ("images", 2)
