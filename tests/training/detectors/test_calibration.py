import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from training.detectors.calibration import FARTHEST_DEVIATIONS, Scale, decide, platt

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


def test_real_images_are_called_synthetic_no_more_often_than_promised() -> None:
    """On average over many calibrations and as many new images, which is what split conformal prediction promises."""
    random = np.random.default_rng(0)
    unseen, typicality = np.full(10, 0.99), np.ones(10)
    for count, error_share in ((40, 0.1), (200, 0.01), (19, 0.05)):
        alarms = []
        for _ in range(500):
            decision = decide(random.beta(5, 1, count), np.arange(count), unseen, typicality, error_share)
            alarms.append((random.beta(5, 1, 100) >= decision.thresholds.synthetic).mean())
        assert decision.false_alarm_share <= error_share
        deviation = np.std(alarms) / np.sqrt(len(alarms))
        assert np.mean(alarms) <= decision.false_alarm_share + 3 * deviation
        # Nor is the promise an idle one.
        assert np.mean(alarms) >= decision.false_alarm_share - 3 * deviation


def test_a_calibration_moves_to_a_scorer_that_counts_otherwise() -> None:
    """Another scorer with the same ranking, shifted and stretched, gives the same probabilities."""
    logits, synthetic = scores(2.0)
    other = 3 * logits + 7
    learned, used = Scale.of(logits[~synthetic]), Scale.of(other[~synthetic])
    calibration = platt(learned(logits), synthetic)
    expected = calibration.of(learned).probabilities(logits)
    np.testing.assert_allclose(calibration.of(used).probabilities(other), expected, atol=1e-6)
    within = np.abs(learned(logits)) < FARTHEST_DEVIATIONS
    np.testing.assert_allclose(expected[within], calibration.probabilities(learned(logits))[within], atol=1e-9)
    assert np.abs(calibration.of(learned).probabilities(other) - expected).max() > 0.2


@pytest.mark.parametrize("known", [4, 15, 60])
def test_a_generator_that_is_easily_told_leaves_the_border_near_real_images(known: float) -> None:
    """However far off the known one lies, an unknown one five deviations away is called what it is."""
    random = np.random.default_rng(0)
    synthetic = np.arange(800) >= 400
    learned_from, unknown = (random.normal(np.where(synthetic, middle, 0.0), 1.0) for middle in (known, 5.0))
    scale = Scale.of(learned_from[~synthetic])
    calibration = platt(scale(learned_from), synthetic).of(scale)
    found = calibration.probabilities(unknown)
    assert found[synthetic].mean() > 0.95
    assert found[~synthetic].mean() < 0.05


def test_where_real_images_saturate_the_promise_says_how_many_are_called_synthetic() -> None:
    real = np.where(np.arange(200) < 20, 1.0, 0.1)
    decision = decide(real, np.arange(200), np.array([0.99]), np.ones(3), error_share=0.01)
    assert decision.thresholds.synthetic == 1.0
    assert decision.false_alarm_share == pytest.approx(21 / 201)


def test_few_images_promise_what_they_can() -> None:
    real = np.linspace(0.81, 0.9, 9)
    decision = decide(real, np.arange(9) // 3, np.array([0.99]), np.ones(3), error_share=0.01)
    assert decision.thresholds.synthetic > real.max()
    assert decision.false_alarm_share == pytest.approx(0.1)
    assert (decision.held_out_images, decision.held_out_groups) == (9, 3)


def test_scores_that_rank_the_wrong_way_round_make_unsure_and_turn_nothing_over() -> None:
    logits, synthetic = scores(2.0)
    calibration = platt(-logits, synthetic)
    assert calibration.slope > 0
    assert np.abs(calibration.probabilities(logits) - 0.5).max() < 0.05


@given(st.integers(0, 2**31), st.floats(0.1, 6), st.floats(0.001, 0.2))
def test_thresholds_keep_their_shares_on_held_out_images(seed: int, distance: float, error_share: float) -> None:
    random = np.random.default_rng(seed)
    real, unseen = (1 / (1 + np.exp(-random.normal(centre, 1.0, 200))) for centre in (-distance, distance))
    typicality = random.random(400)
    limits = decide(real, np.arange(200), unseen, typicality, error_share).thresholds
    allowed = error_share + 1 / 200
    assert (real >= limits.synthetic).mean() <= allowed
    assert (unseen <= limits.real).mean() <= allowed
    assert limits.real <= 0.2
    assert limits.synthetic >= 0.8
    assert (typicality < limits.typicality).mean() <= allowed


def test_verdicts_follow_the_thresholds() -> None:
    limits = decide(np.array([0.1]), np.arange(1), np.array([0.9]), np.array([0.4, 0.6]), 0.01).thresholds
    assert limits.verdict(0.95, 0.5) == "synthetic"
    assert limits.verdict(0.5, 0.5) == "uncertain"
    assert limits.verdict(0.05, 0.5) == "real"
    assert limits.verdict(0.05, 0.0) == "out_of_scope"


def test_unlike_any_is_out_of_scope_even_beside_a_poor_generator() -> None:
    typicality = np.where(np.arange(100) >= 90, 0.0, 0.5)
    limits = decide(np.full(50, 0.1), np.arange(50), np.full(50, 0.9), typicality, error_share=0.01).thresholds
    assert limits.verdict(0.5, 0.0) == "out_of_scope"
    assert limits.verdict(0.9, 0.5) == "synthetic"
