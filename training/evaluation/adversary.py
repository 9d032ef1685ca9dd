"""White-box attacks on a whole detector: how few grey levels make a synthetic image pass as real, and the reverse.

Fast gradient sign method: Goodfellow, Shlens, Szegedy, ICLR 2015. Projected gradient descent: Madry et al., ICLR 2018.
Both follow the log-odds, not the probability, whose gradient vanishes where the detector is sure.

Local binary patterns have no gradient, so an attack sees only the spectrum, cosine and residual part of a
`LinearEvidence`. What that detector withstands here is an upper bound of what it withstands: a hidden gradient is no
defence (Athalye, Carlini, Wagner, ICML 2018).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contracts.manifest import Thresholds
from training.detectors.detector import Detector, judge
from training.detectors.ranking import area_under_curve
from training.pixels import tensor, to_unit

EPSILONS = (1, 2, 4)
"""Largest change of any pixel, in grey levels."""
STEPS = 10
STEP_SHARE = 2.5
"""All steps together reach this many epsilons, so that the far corner is within reach of any start (Madry et al.)."""
MOST_IMAGES = 50
BATCH = 50

Attack = Callable[[Detector, np.ndarray, bool, int], np.ndarray]
"""Of a detector, images uint8 [N, H, W, C], whether they shall pass as synthetic, and epsilon in grey levels."""


def fgsm(model: Detector, images: np.ndarray, as_synthetic: bool, epsilon: int) -> np.ndarray:
    """Images uint8 [N, H, W, C] after one step of epsilon grey levels along the sign of the gradient.

    Nothing is looked at afterwards: where the log-odds are curved, the step may miss its goal.
    """

    def of_batch(batch: Tensor) -> Tensor:
        return (batch + epsilon * _direction(model, batch, as_synthetic)).clamp(0, 255)

    return _in_batches(images, of_batch)


def pgd(model: Detector, images: np.ndarray, as_synthetic: bool, epsilon: int, seed: int = 0) -> np.ndarray:
    """Images uint8 [N, H, W, C] after ten steps within epsilon grey levels from a random start.

    Every step is rounded and judged, and the best rounded image is kept, the untouched one if no step beats it.
    """
    stream = torch.Generator().manual_seed(seed)
    step = STEP_SHARE * epsilon / STEPS

    def of_batch(batch: Tensor) -> Tensor:
        low, high = (batch - epsilon).clamp(min=0), (batch + epsilon).clamp(max=255)
        best, best_gain = batch, _gain(model, batch, as_synthetic)
        current = (batch + epsilon * (2 * torch.rand(batch.shape, generator=stream) - 1)).clamp(low, high)
        for _ in range(STEPS):
            current = (current + step * _direction(model, current, as_synthetic)).clamp(low, high)
            rounded = current.round()
            gain = _gain(model, rounded, as_synthetic)
            best = torch.where((gain > best_gain)[:, None, None, None], rounded, best)
            best_gain = torch.maximum(gain, best_gain)
        return best

    return _in_batches(images, of_batch)


def measure(model: Detector, real: np.ndarray, synthetic: np.ndarray, limits: Thresholds, seed: int) -> dict[str, Any]:
    """Attack at most 50 images of each class, uint8 [N, H, W, C]; the others stay as they are.

    For the untouched images, and by attack and epsilon: the AUC between the attacked class and the other one,
    untouched, and the shares of the attacked images at or above the threshold of `synthetic`, and at or below that of
    `real`. Typicality is left out: it knows no adversary.
    """
    random = np.random.default_rng(seed)
    images = {name: _some(given, random) for name, given in (("real", real), ("synthetic", synthetic))}
    clean = {name: judge(model, chosen)[0] for name, chosen in images.items()}
    report: dict[str, Any] = {
        "images": {name: len(chosen) for name, chosen in images.items()},
        "clean": {
            "auc": _auc(clean["real"], clean["synthetic"]),
            "synthetic": _called(clean["synthetic"], limits),
            "real": _called(clean["real"], limits),
        },
    }
    attacks: dict[str, Attack] = {"fgsm": fgsm, "pgd": partial(pgd, seed=seed)}
    for name, attack in attacks.items():
        report[name] = {}
        for epsilon in EPSILONS:
            passing = judge(model, attack(model, images["synthetic"], False, epsilon))[0]
            framed = judge(model, attack(model, images["real"], True, epsilon))[0]
            report[name][f"epsilon_{epsilon}"] = {
                "synthetic_as_real": {"auc": _auc(clean["real"], passing)} | _called(passing, limits),
                "real_as_synthetic": {"auc": _auc(framed, clean["synthetic"])} | _called(framed, limits),
            }
    return report


def _some(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    rows = random.choice(len(images), min(MOST_IMAGES, len(images)), replace=False)
    return np.asarray(images[np.sort(rows)])


def _auc(real: np.ndarray, synthetic: np.ndarray) -> float:
    return area_under_curve(np.arange(len(real) + len(synthetic)) >= len(real), np.concatenate([real, synthetic]))


def _called(probabilities: np.ndarray, limits: Thresholds) -> dict[str, float]:
    return {
        "called_synthetic": float((probabilities >= limits.synthetic).mean()),
        "called_real": float((probabilities <= limits.real).mean()),
    }


def _in_batches(images: np.ndarray, of_batch: Callable[[Tensor], Tensor]) -> np.ndarray:
    """`of_batch` maps levels float [N, C, H, W] in [0, 255]. Epsilon is whole, so rounding does not leave it."""
    parts = [
        of_batch(tensor(images[start : start + BATCH]).float()).round().to(torch.uint8)
        for start in range(0, len(images), BATCH)
    ]
    return np.ascontiguousarray(torch.cat(parts).permute(0, 2, 3, 1).numpy())


def _direction(model: Detector, levels: Tensor, as_synthetic: bool) -> Tensor:
    """-1, 0 or 1 by pixel: where to go for the wanted verdict."""
    levels = levels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_log_odds(model, levels).sum(), levels)
    assert gradient.isfinite().all()
    return gradient.sign() if as_synthetic else -gradient.sign()


@torch.no_grad()
def _gain(model: Detector, levels: Tensor, as_synthetic: bool) -> Tensor:
    odds = _log_odds(model, levels)
    return odds if as_synthetic else -odds


def _log_odds(model: Detector, levels: Tensor) -> Tensor:
    logits, _ = model.scorer(to_unit(levels))
    odds: Tensor = model.slope * logits + model.offset
    return odds
