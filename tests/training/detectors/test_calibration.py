import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from training.detectors.calibration import platt, thresholds

RANDOM = np.random.default_rng(0)


def scores(distance: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    synthetic = np.arange(2 * count) >= count
    return RANDOM.normal(np.where(synthetic, distance, 0.0), 1.0), synthetic


def test_platt_scaling_finds_the_true_odds() -> None:
    """Two unit normals a distance d apart have log-odds d * x - d^2 / 2."""
    logits, synthetic = scores(2.0)
    calibration = platt(logits, synthetic)
    assert calibration.slope == pytest.approx(2.0, abs=0.15)
    assert calibration.offset == pytest.approx(-2.0, abs=0.15)


def test_platt_scaling_equals_logistic_regression_where_smoothing_vanishes() -> None:
    logits, synthetic = scores(1.0, count=20_000)
    reference = LogisticRegression(C=1e9).fit(logits[:, None], synthetic)
    calibration = platt(logits, synthetic)
    assert calibration.slope == pytest.approx(float(reference.coef_[0, 0]), rel=1e-2)
    assert calibration.offset == pytest.approx(float(reference.intercept_[0]), abs=1e-2)


def test_classes_weigh_equally_whatever_their_counts() -> None:
    logits, synthetic = scores(2.0)
    kept = np.concatenate([np.flatnonzero(~synthetic), np.flatnonzero(synthetic)[:300]])
    few = platt(logits[kept], synthetic[kept])
    assert float(few.probabilities(np.array([1.0]))[0]) == pytest.approx(0.5, abs=0.05)


def test_perfectly_separated_classes_stay_finite_and_sure() -> None:
    logits, synthetic = scores(1000.0, count=50)
    probabilities = platt(logits, synthetic).probabilities(logits)
    assert 0.9 < probabilities[synthetic].min() < 1
    assert 0 < probabilities[~synthetic].max() < 0.1


@given(st.integers(0, 2**31), st.floats(0.1, 6), st.floats(0.001, 0.2))
def test_thresholds_keep_their_promise(seed: int, distance: float, error_share: float) -> None:
    random = np.random.default_rng(seed)
    synthetic = np.arange(400) >= 200
    probabilities = 1 / (1 + np.exp(-random.normal(np.where(synthetic, distance, -distance), 1.0)))
    typicality = random.random(400)
    limits = thresholds(probabilities, synthetic, typicality, error_share)
    allowed = error_share + 1 / 200
    assert (probabilities[~synthetic] >= limits.synthetic).mean() <= allowed
    assert (probabilities[synthetic] <= limits.real).mean() <= allowed
    assert limits.real <= 0.2
    assert limits.synthetic >= 0.8
    assert (typicality < limits.typicality).mean() <= allowed


def test_verdicts_follow_the_thresholds() -> None:
    limits = thresholds(np.array([0.1, 0.9]), np.array([False, True]), np.array([0.4, 0.6]), 0.01)
    assert limits.verdict(0.95, 0.5) == "synthetic"
    assert limits.verdict(0.5, 0.5) == "uncertain"
    assert limits.verdict(0.05, 0.5) == "real"
    assert limits.verdict(0.05, 0.0) == "out_of_scope"


def test_unlike_any_is_out_of_scope_even_beside_a_poor_generator() -> None:
    synthetic = np.arange(100) >= 50
    typicality = np.where(np.arange(100) >= 90, 0.0, 0.5)
    limits = thresholds(np.where(synthetic, 0.9, 0.1), synthetic, typicality, error_share=0.01)
    assert limits.verdict(0.5, 0.0) == "out_of_scope"
    assert limits.verdict(0.9, 0.5) == "synthetic"
