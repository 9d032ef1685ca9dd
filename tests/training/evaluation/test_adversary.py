import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from contracts.manifest import Thresholds
from tests.training.detectors.traces import smooth_images
from training.detectors import detector
from training.detectors.calibration import Calibration
from training.detectors.detector import Detector
from training.detectors.typicality import Typicality
from training.evaluation import adversary

SPEC = ImageSpec(32, 3)
IMAGES = smooth_images(8, 32, 3, seed=0)
LIMITS = Thresholds(real=0.2, synthetic=0.8, typicality=0.0)


class Weighted(nn.Module):
    """Log-odds are a weighted sum of pixels: the best attack is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return (images * self.weights).sum(dim=(1, 2, 3)), torch.zeros(len(images), 4, 4)


class Wavy(Weighted):
    """Log-odds that rise and fall on the way of an attack; those of images that are only judged are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.judged: list[Tensor] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, heatmap = super().forward(images)
        waves = torch.sin(logits)
        if not torch.is_grad_enabled():
            self.judged.append(waves)
        return waves, heatmap


def whole(scorer: nn.Module, slope: float = 1.0) -> Detector:
    return Detector(scorer, Typicality(SPEC), Calibration(slope, 0.0)).eval()


def convolutional() -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return whole(detector.scorer("residual_network", SPEC, width=4))


def linear() -> Detector:
    scorer = detector.scorer("linear_evidence", SPEC, width=4)
    scorer.weights = torch.randn(len(scorer.weights), generator=torch.Generator().manual_seed(0))
    return whole(scorer)


def log_odds(model: Detector, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits, _ = model.scorer(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return (model.slope * logits + model.offset).numpy()


@pytest.mark.parametrize("attack", [adversary.fgsm, adversary.pgd])
@pytest.mark.parametrize(("as_synthetic", "slope"), [(True, 1.0), (False, 1.0), (True, -0.5)])
def test_the_best_attack_on_a_weighted_sum_is_found(attack: adversary.Attack, as_synthetic: bool, slope: float) -> None:
    model = whole(Weighted(), slope)
    weights = model.scorer.weights.detach().permute(1, 2, 0).numpy()
    towards = np.sign(weights) * (1 if as_synthetic else -1) * np.sign(slope)
    best = np.clip(IMAGES + 2 * towards, 0, 255)
    assert np.array_equal(attack(model, IMAGES, as_synthetic, 2), best)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from(adversary.EPSILONS), st.booleans())
def test_attacked_images_stay_within_epsilon_of_any_image(seed: int, epsilon: int, as_synthetic: bool) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    model = convolutional()
    for attack in (adversary.fgsm, adversary.pgd):
        attacked = attack(model, images, as_synthetic, epsilon)
        assert attacked.dtype == np.uint8
        assert attacked.shape == images.shape
        assert 0 < np.abs(attacked.astype(int) - images).max() <= epsilon


@pytest.mark.parametrize("make", [convolutional, linear])
@pytest.mark.parametrize("as_synthetic", [True, False])
def test_ten_judged_steps_beat_one_that_beats_chance_and_never_do_worse_than_none(
    make: Callable[[], Detector], as_synthetic: bool
) -> None:
    model = make()

    def odds(images: np.ndarray) -> np.ndarray:
        return log_odds(model, images) * (1 if as_synthetic else -1)

    chance = np.clip(IMAGES + 2 * np.random.default_rng(0).choice([-1, 1], IMAGES.shape), 0, 255).astype(np.uint8)
    one, ten = (attack(model, IMAGES, as_synthetic, 2) for attack in (adversary.fgsm, adversary.pgd))
    assert odds(ten).mean() > odds(one).mean() > odds(chance).mean()
    assert odds(ten).mean() > odds(IMAGES).mean()
    assert (odds(ten) >= odds(IMAGES)).all()


@pytest.mark.parametrize("as_synthetic", [True, False])
def test_the_best_of_all_judged_steps_is_kept(as_synthetic: bool) -> None:
    scorer, sign = Wavy(), 1 if as_synthetic else -1
    attacked = adversary.pgd(whole(scorer), IMAGES, as_synthetic, 2)
    judged = sign * torch.stack(scorer.judged).numpy()
    assert len(judged) == 1 + adversary.STEPS
    assert (judged.argmax(axis=0) < adversary.STEPS).any()
    np.testing.assert_allclose(sign * log_odds(whole(Wavy()), attacked), judged.max(axis=0), atol=1e-4)


def test_an_attack_is_seeded_and_leaves_the_detector_and_other_random_numbers_alone() -> None:
    model = convolutional()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, again, other = (adversary.pgd(model, IMAGES, True, 2, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


def test_the_report_says_what_attacks_cost() -> None:
    """Every pixel counts the same: real and synthetic images are three grey levels apart."""
    scorer = Weighted()
    with torch.no_grad():
        scorer.weights.fill_(255 / scorer.weights.numel())
    model = Detector(scorer, Typicality(SPEC), Calibration(2.0, -2 * 101.5)).eval()
    real, synthetic = (np.full((130, 32, 32, 3), level, dtype=np.uint8) for level in (100, 103))
    report = adversary.measure(model, real, synthetic, LIMITS, seed=0)
    assert report["images"] == {"real": 50, "synthetic": 50}
    assert report["clean"]["auc"] == 1
    assert report["clean"]["synthetic"] == {"called_synthetic": 1, "called_real": 0}
    assert report["clean"]["real"] == {"called_synthetic": 0, "called_real": 1}
    for name in ("fgsm", "pgd"):
        found = report[name]
        assert found["epsilon_1"]["synthetic_as_real"] == {"auc": 1, "called_synthetic": 0, "called_real": 0}
        assert found["epsilon_4"]["synthetic_as_real"] == {"auc": 0, "called_synthetic": 0, "called_real": 1}
        assert found["epsilon_2"]["real_as_synthetic"] == {"auc": 1, "called_synthetic": 0, "called_real": 0}
        assert found["epsilon_4"]["real_as_synthetic"] == {"auc": 0, "called_synthetic": 1, "called_real": 0}
    assert json.loads(json.dumps(report, allow_nan=False)) == report
