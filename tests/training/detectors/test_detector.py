from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.imaging import ImageSpec
from tests.training.detectors.traces import smooth_images
from training.detectors import detector
from training.detectors.calibration import Calibration, decide
from training.detectors.typicality import Typicality
from training.reading import ParamsError

SPEC = ImageSpec(32, 3)
IMAGES = smooth_images(5, 32, 3, seed=0)


@pytest.mark.parametrize("kind", detector.KINDS)
def test_a_detector_read_back_judges_the_same(kind: str, tmp_path: Path) -> None:
    scorer = detector.scorer(kind, SPEC, width=4)
    with torch.no_grad():
        for weights in scorer.state_dict().values():
            weights.add_(weights.new_tensor(1) / 50 if weights.is_floating_point() else 0)
    model = detector.Detector(scorer, Typicality(SPEC), Calibration(1.5, -0.5)).eval()
    detector.save(tmp_path / "detector.pt", model, kind, SPEC, width=4)
    loaded = detector.load(tmp_path / "detector.pt")
    for one, other in zip(detector.judge(loaded, IMAGES), detector.judge(model, IMAGES), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_probability_is_the_calibrated_score() -> None:
    model = detector.Detector(
        detector.scorer("residual_network", SPEC, 4), Typicality(SPEC), Calibration(1.5, -0.5)
    ).eval()
    with torch.inference_mode():
        logits, _ = model.scorer(torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255)
    expected = Calibration(1.5, -0.5).probabilities(logits.numpy())
    np.testing.assert_allclose(detector.judge(model, IMAGES)[0], expected, atol=1e-6)


def test_log_odds_are_the_scores_before_calibration() -> None:
    model = detector.Detector(detector.scorer("residual_network", SPEC, 4), Typicality(SPEC), Calibration(2, 1)).eval()
    scores = detector.log_odds(model.scorer, IMAGES)
    np.testing.assert_allclose(
        detector.judge(model, IMAGES)[0], Calibration(2, 1).probabilities(scores), rtol=1e-5, atol=1e-6
    )


def test_a_decision_is_read_back_as_it_was(tmp_path: Path) -> None:
    decision = decide(
        np.linspace(0, 0.9, 30), np.arange(30), np.array([0.7, 0.9]), np.linspace(0, 1, 60), error_share=0.05
    )
    detector.save_decision(tmp_path / "linear_evidence.pt", decision)
    assert detector.load_decision(tmp_path / "linear_evidence.pt") == decision


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match="'forest' is unknown; valid: linear_evidence, residual_network, ensemble"):
        detector.scorer("forest", SPEC, 4)


def test_the_better_kind_is_chosen_and_the_ensemble_wins_ties() -> None:
    best = {"linear_evidence": 0.95, "residual_network": 0.99, "ensemble": 0.96}
    assert detector.choose(best) == "residual_network"
    assert detector.choose(best | {"ensemble": 0.971}) == "ensemble"
    assert detector.choose(best | {"linear_evidence": 0.995}) == "linear_evidence"
