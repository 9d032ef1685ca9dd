"""From log-odds to probabilities that mean what they say, and from those to verdicts."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from contracts.manifest import Thresholds
from training.detectors.typicality import UNLIKE_ANY

SURE = 0.8
"""No verdict is given on a probability between 1 - SURE and SURE, however well the classes are apart."""

FARTHEST_DEVIATIONS = 3.0
"""Of real images' scores, from their mean: beyond it a calibration learns nothing more."""

SMALLEST_SLOPE = 1e-3
"""Per standard deviation of the scores."""


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(slope * logit + offset)."""

    slope: float
    offset: float

    def of(self, scale: "Scale") -> "Calibration":
        """The same for logits before they were put on a scale."""
        return Calibration(self.slope / scale.deviation, self.offset - self.slope * scale.mean / scale.deviation)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probability of being synthetic, float [N]."""
        return np.asarray(expit(self.slope * logits + self.offset))


@dataclass(frozen=True)
class Scale:
    """Where a scorer puts held-out real images: two scorers of a kind agree on them no better than on anything else.

    What is learned of one scorer's logits holds for another one's when both are counted from there.
    """

    mean: float
    deviation: float

    @staticmethod
    def of(real: np.ndarray) -> "Scale":
        """From the logits of real images, float [N]."""
        return Scale(float(real.mean()), float(real.std()) or 1.0)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Logits in deviations of real images, those beyond `FARTHEST_DEVIATIONS` brought back to it.

        What lies so far off is synthetic, fifteen deviations no more than four. Without this bound a poor generator
        that is easily told draws the border away from real images, to where a good one's still count as real.
        """
        return np.clip((logits - self.mean) / self.deviation, -FARTHEST_DEVIATIONS, FARTHEST_DEVIATIONS)


def platt(logits: np.ndarray, synthetic: np.ndarray) -> Calibration:
    """Platt scaling (1999) with his smoothed targets, so that perfectly separated classes stay finite.

    Classes weigh equally: the probability is that of an image drawn from either with even odds. The slope stays above
    zero, so that scores which rank a generator the wrong way round make a detector unsure and never turn it over.
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

    bounds = ((SMALLEST_SLOPE, None), (None, None))
    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12).x
    return Calibration(float(slope / scale), float(offset))


@dataclass(frozen=True)
class Decision:
    """Where verdicts change, and what is promised of real images."""

    thresholds: Thresholds
    false_alarm_share: float
    """Of real images like the held-out ones, at most this share is called synthetic on average."""
    held_out_images: int
    """Real images that the promise rests on."""
    held_out_groups: int
    """Independent groups of them: patients, places or images."""


def decide(
    real: np.ndarray, groups: np.ndarray, unseen: np.ndarray, typicality: np.ndarray, error_share: float
) -> Decision:
    """Thresholds from the probabilities of held-out real images, and of images of generators unknown to the detector.

    `synthetic` begins above the ceil((n + 1)(1 - error_share))-th smallest of n held-out real images' probabilities.
    By split conformal prediction (Vovk et al., 2005; Angelopoulos and Bates, arXiv 2107.07511) another real image,
    exchangeable with them, lies there with a probability of at most error_share; where there are too few to promise
    that, above all of them, and the promise is 1 / (n + 1). Images of one of the `groups` str [n] are alike, so it is
    a promise for further images of the same groups. `real` ends below all but `error_share` of `unseen`, which no
    theorem extends to the next generator. Between them the verdict is `uncertain`. Out of scope begins below what the
    same share of held-out images, real and synthetic, reaches in `typicality`.
    """
    count = len(real)
    rank = min(count, int(np.ceil((count + 1) * (1 - error_share))))
    above = float(np.nextafter(np.float32(np.sort(real)[rank - 1]), np.float32(2)))
    synthetic = min(1.0, max(SURE, above))
    # Where probabilities are 1 in float32, nothing lies above them.
    alarms = max(count - rank, int((real >= synthetic).sum()))
    return Decision(
        Thresholds(
            real=min(1 - SURE, float(np.quantile(unseen, error_share))),
            synthetic=synthetic,
            # Unlike any is out of scope, also where a poor generator's images reach no more.
            typicality=max(UNLIKE_ANY, float(np.quantile(typicality, error_share))),
        ),
        false_alarm_share=(alarms + 1) / (count + 1),
        held_out_images=count,
        held_out_groups=len(np.unique(groups)),
    )
