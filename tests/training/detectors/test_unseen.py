import numpy as np
import torch
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.detectors import detector, linear_evidence, unseen
from training.detectors.ensemble import Ensemble
from training.detectors.examples import REAL, Examples
from training.detectors.ranking import area_under_curve
from training.detectors.typicality import Typicality

SPEC = ImageSpec(32, 1)


class Brightness(nn.Module):
    """Calls bright images synthetic; `offset` and `slope` make another scorer of it that ranks alike."""

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.slope * images.mean(dim=(1, 2, 3)) + self.offset, torch.zeros(len(images), 4, 4)


def _images(count: int, level: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    levels = random.normal(level, 12, size=(count, 1, 1, 1)) + random.normal(0, 8, size=(count, 32, 32, 1))
    return np.clip(levels, 0, 255).astype(np.uint8)


REAL_IMAGES = _images(300, 90, seed=1)
HELD_OUT = Examples(
    np.concatenate([REAL_IMAGES, _images(200, 110, seed=2), _images(200, 150, seed=3)]),
    np.array([REAL] * 300 + ["near"] * 200 + ["far"] * 200),
)
GROUPS = np.array([f"patient {number // 3}" for number in range(300)])
SCORERS = unseen.Scorers(Brightness(1, 50), {"near": Brightness(10, 3), "far": Brightness(40, -100)})
LIGHT = np.random.default_rng(4).normal(0, 20, size=(len(HELD_OUT.images), 1, 1, 1))
CORRUPTED = Examples(np.clip(HELD_OUT.images + LIGHT, 0, 255).astype(np.uint8), HELD_OUT.origins)
"""Lit otherwise."""
TRIAL = unseen.Trial.of(SCORERS, HELD_OUT, CORRUPTED)


def _typicality() -> Typicality:
    typicality = Typicality(SPEC)
    features = linear_evidence.features_of(REAL_IMAGES, typicality.content)
    typicality.take(features, features)
    return typicality


def test_the_area_of_a_tried_scorer_counts_images_as_they_are_and_corrupted() -> None:
    found = TRIAL.aucs
    for recipe in ("near", "far"):
        areas = []
        for images in (HELD_OUT, CORRUPTED):
            chosen = images.only(REAL, recipe)
            areas.append(area_under_curve(chosen.synthetic, chosen.images.mean(axis=(1, 2, 3))))
        assert np.isclose(found[recipe], np.mean(areas), atol=1e-3)
    assert found["far"] > found["near"] > 0.5


def test_probabilities_are_those_of_the_unseen_recipe_whatever_the_scale_of_the_scorer() -> None:
    calibrated, without = TRIAL.calibrate(GROUPS, _typicality(), 0.01)
    images = torch.from_numpy(HELD_OUT.images)
    with torch.inference_mode():
        by_all = calibrated.detector(images)[0].numpy()
        by_other = without["far"].detector(images)[0].numpy()
    assert by_all[HELD_OUT.origins == REAL].mean() < 0.3 < 0.9 < by_all[HELD_OUT.origins == "far"].mean()
    # The scorer without `far` is calibrated where the one without `near` put `near`: unsure sooner, and no less right.
    assert np.argmax(by_other) == np.argmax(by_all)
    assert by_other[HELD_OUT.origins == "near"].mean() > by_all[HELD_OUT.origins == "near"].mean()


def test_corrupted_real_images_move_the_border_away_from_them() -> None:
    alone = unseen.Trial.of(SCORERS, HELD_OUT, HELD_OUT).calibrate(GROUPS, _typicality(), 0.01)[0]
    both = TRIAL.calibrate(GROUPS, _typicality(), 0.01)[0]
    real = torch.from_numpy(CORRUPTED.only(REAL).images)
    with torch.inference_mode():
        alarms, fewer = ((one.detector(real)[0] >= 0.8).float().mean() for one in (alone, both))
    assert fewer < 0.7 * alarms


def test_the_promise_counts_held_out_images_and_their_groups() -> None:
    whole, without = TRIAL.calibrate(GROUPS, _typicality(), 0.01)
    for calibrated in (whole, *without.values()):
        assert (calibrated.decision.held_out_images, calibrated.decision.held_out_groups) == (300, 100)
        with torch.inference_mode():
            real = calibrated.detector(torch.from_numpy(REAL_IMAGES))[0].numpy()
        assert (real >= calibrated.decision.thresholds.synthetic).mean() <= 0.01


def test_a_recipe_has_no_part_in_the_verdicts_of_the_detector_that_never_saw_it() -> None:
    verdicts = TRIAL.calibrate(GROUPS, _typicality(), 0.01)[1]["far"].decision
    darker = np.where((HELD_OUT.origins == "far")[:, None, None, None], 0, HELD_OUT.images)
    changed = unseen.Trial.of(SCORERS, Examples(darker, HELD_OUT.origins), CORRUPTED)
    whole, without = changed.calibrate(GROUPS, _typicality(), 0.01)
    assert without["far"].decision == verdicts
    assert whole.decision != TRIAL.calibrate(GROUPS, _typicality(), 0.01)[0].decision


def test_a_single_recipe_calibrates_its_own_scorer() -> None:
    held_out, corrupted = HELD_OUT.only(REAL, "far"), CORRUPTED.only(REAL, "far")
    scorers = unseen.Scorers(Brightness(1, 0), {"far": SCORERS.without["far"]})
    calibrated, without = unseen.Trial.of(scorers, held_out, corrupted).calibrate(GROUPS, _typicality(), 0.01)
    assert list(without) == ["far"]
    images, far = torch.from_numpy(held_out.images), held_out.origins == "far"
    with torch.inference_mode():
        for found in (calibrated.detector, without["far"].detector):
            probabilities = found(images)[0].numpy()
            assert probabilities[~far].mean() < 0.2 < 0.8 < probabilities[far].mean()
    thresholds = calibrated.decision.thresholds
    assert thresholds.real < thresholds.synthetic


def test_an_ensemble_is_made_of_scorers_that_know_the_same() -> None:
    contrast = unseen.Scorers(Brightness(2, 0), {"near": Brightness(3, 1), "far": Brightness(-5, 2)})
    both = unseen.Scorers.together({"one": SCORERS, "other": contrast}, REAL_IMAGES)
    assert isinstance(both.whole, Ensemble)
    for recipe in ("near", "far"):
        assert list(both.without[recipe].members.values()) == [SCORERS.without[recipe], contrast.without[recipe]]
        real = detector.log_odds(both.without[recipe], REAL_IMAGES)
        assert abs(real.mean()) < 1e-3
