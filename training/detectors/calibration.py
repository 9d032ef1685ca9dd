"""From log-odds to probabilities that mean what they say, and from those to verdicts."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from contracts.manifest import Thresholds

SURE = 0.8
"""No verdict is given on a probability between 1 - SURE and SURE, however well the classes are apart."""


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(slope * logit + offset)."""

    slope: float
    offset: float

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probability of being synthetic, float [N]."""
        return np.asarray(expit(self.slope * logits + self.offset))


def platt(logits: np.ndarray, synthetic: np.ndarray) -> Calibration:
    """Platt scaling (1999) with his smoothed targets, so that perfectly separated classes stay finite.

    Classes weigh equally: the probability is that of an image drawn from either with even odds.
    """
    positives, negatives = int(synthetic.sum()), int((~synthetic).sum())
    targets = np.where(synthetic, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = np.where(synthetic, 0.5 / positives, 0.5 / negatives)
    scale = float(np.std(logits)) or 1.0

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scores = parameters[0] * logits / scale + parameters[1]
        error = weights * (expit(scores) - targets)
        value = float((weights * (np.logaddexp(0, scores) - targets * scores)).sum())
        return value, np.array([(error * logits / scale).sum(), error.sum()])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return Calibration(float(slope / scale), float(offset))


def thresholds(
    probabilities: np.ndarray, synthetic: np.ndarray, typicality: np.ndarray, error_share: float
) -> Thresholds:
    """Thresholds that call at most `error_share` of held-out real images synthetic, and of synthetic ones real.

    Between them the verdict is `uncertain`. Out of scope begins below what the same share of
    held-out images, real and synthetic, reaches.
    """
    return Thresholds(
        real=round(min(1 - SURE, float(np.quantile(probabilities[synthetic], error_share))), 6),
        synthetic=round(max(SURE, float(np.quantile(probabilities[~synthetic], 1 - error_share))), 6),
        # A typicality of 0 is unlike any, also where a poor generator's images reach no more.
        typicality=max(1e-6, round(float(np.quantile(typicality, error_share)), 6)),
    )
