"""How well real and synthetic are told apart, each number with a bootstrap confidence interval."""

from collections.abc import Callable, Mapping

import numpy as np

from training.data.prepared import Row
from training.detectors.ranking import area_under_curve, roc_curve

CONFIDENCE = 0.95
FALSE_POSITIVE_RATES = (0.001, 0.01, 0.05)
"""With n real images no rate below 1 / n is told from 0."""
CALIBRATION_BINS = 10
MINIMUM_PATIENTS = 3
"""With fewer held-out patients than this, places or whole images are resampled instead, and the report says so."""

Metric = Callable[[np.ndarray, np.ndarray], float]
"""Of (synthetic bool [N], probability of being synthetic [N])."""


def equal_error_rate(synthetic: np.ndarray, probabilities: np.ndarray) -> float:
    """The error rate where false positives and false negatives are equal, interpolated on the ROC curve."""
    false_positive, true_positive, _ = roc_curve(synthetic, probabilities)
    gap = 1 - true_positive - false_positive
    after = int(np.argmax(gap <= 0))
    if after == 0:
        return float(false_positive[0])
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false_positive[after - 1] + share * (false_positive[after] - false_positive[after - 1]))


def true_positive_rate_at(false_positive_rate: float, synthetic: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of synthetic images found at the largest threshold-free false positive rate not above the given one."""
    false_positive, true_positive, _ = roc_curve(synthetic, probabilities)
    return float(true_positive[false_positive <= false_positive_rate].max())


def calibration_error(synthetic: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error over ten equally wide bins (Naeini et al., AAAI 2015), the classes at even odds."""
    return float(sum(share * abs(stated - found) for share, stated, found in reliability(synthetic, probabilities)))


def reliability(synthetic: np.ndarray, probabilities: np.ndarray) -> list[tuple[float, float, float]]:
    """(share of images, mean stated probability, share found synthetic) of every bin that is not empty.

    Real and synthetic images weigh the same in all, whatever their counts: the probability is one at even odds.
    """
    weights = even_odds(synthetic)
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    shares, stated, found = (
        np.bincount(bins, values, CALIBRATION_BINS)
        for values in (weights, weights * probabilities, weights * synthetic)
    )
    filled = shares > 0
    return list(zip(shares[filled], stated[filled] / shares[filled], found[filled] / shares[filled], strict=True))


def brier_score(synthetic: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of the probability, the classes at even odds."""
    return float((even_odds(synthetic) * (probabilities - synthetic) ** 2).sum())


def even_odds(synthetic: np.ndarray) -> np.ndarray:
    """Weights float [N] under which each class sums to one half."""
    return np.where(synthetic, 0.5 / max(1, int(synthetic.sum())), 0.5 / max(1, int((~synthetic).sum())))


METRICS: Mapping[str, Metric] = {
    "auc": area_under_curve,
    "equal_error_rate": equal_error_rate,
    "tpr_at_0.1_percent_fpr": lambda synthetic, probabilities: true_positive_rate_at(0.001, synthetic, probabilities),
    "tpr_at_1_percent_fpr": lambda synthetic, probabilities: true_positive_rate_at(0.01, synthetic, probabilities),
    "calibration_error": calibration_error,
    "brier_score": brier_score,
}


def with_intervals(
    synthetic: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    rounds: int,
    seed: int,
    metrics: Mapping[str, Metric] = METRICS,
) -> dict[str, dict[str, float]]:
    """Every metric with the bounds `low` and `high` of its 95 % percentile bootstrap interval.

    Real images are resampled by the group [N] they are named for, so that what is not independent counts together;
    synthetic ones are independent.
    """
    random = np.random.default_rng(seed)
    real_rows = np.flatnonzero(~synthetic)
    real_groups = [real_rows[groups[real_rows] == name] for name in np.unique(groups[real_rows])]
    fake_rows = np.flatnonzero(synthetic)
    draws: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(rounds):
        real = np.concatenate(
            [real_groups[index] for index in random.integers(len(real_groups), size=len(real_groups))]
        )
        rows = np.concatenate([real, fake_rows[random.integers(len(fake_rows), size=len(fake_rows))]])
        for name, metric in metrics.items():
            draws[name].append(metric(synthetic[rows], probabilities[rows]))
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    report = {}
    for name, metric in metrics.items():
        low, high = np.quantile(draws[name], tails)
        report[name] = {"value": metric(synthetic, probabilities), "low": float(low), "high": float(high)}
    return report


def operating_points(synthetic: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float]]:
    """Thresholds with their false and true positive rates, at 0.1, 1 and 5 % false positives.

    Where real images have probability 1 no threshold keeps below their share: rates below it have no point.
    """
    false_positive, true_positive, levels = roc_curve(synthetic, probabilities)
    points = []
    for rate in FALSE_POSITIVE_RATES:
        row = int(np.flatnonzero(false_positive <= rate)[-1])
        if row == 0 and (probabilities[~synthetic] >= 1).any():
            continue
        points.append(
            {
                "threshold": float(min(1.0, levels[row])),
                "false_positive_rate": float(false_positive[row]),
                "true_positive_rate": float(true_positive[row]),
            }
        )
    return points


def independent_groups(rows: list[Row]) -> tuple[str, np.ndarray]:
    """What real images are resampled by, and the group of each: `patients`, `places` or `images`.

    Images of one patient are not independent, and few patients make wide intervals, as they should. With one or two,
    nothing is known of others: then details that begin in the same field of one detail's side, which overlap, count
    together as a place, and whole images each by themselves.
    """
    patients = np.array([row.patient for row in rows])
    if len(np.unique(patients)) >= MINIMUM_PATIENTS:
        return "patients", patients
    if rows[0].box is None:
        return "images", np.arange(len(rows)).astype(str)
    places = [
        f"{row.source} {row.box.left // row.box.width} {row.box.top // row.box.height}"
        for row in rows
        if row.box is not None
    ]
    return "places", np.array(places)
