"""How well scores rank synthetic images above real ones: the ROC curve and the area under it."""

import numpy as np
from scipy.stats import rankdata


def area_under_curve(synthetic: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve: the rank statistic of Mann and Whitney (1947). Any scores serve for probabilities.

    Intervals ask for it by the thousand; scikit-learn, which tests hold it against, takes forty times as long.
    """
    positives, negatives = int(synthetic.sum()), int((~synthetic).sum())
    assert min(positives, negatives) > 0, "an area needs images of both classes"
    ranks = rankdata(probabilities)[synthetic].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def roc_curve(synthetic: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates and the lowest probability called synthetic, from none (infinity) to all."""
    order = np.argsort(-probabilities, kind="stable")
    levels, found = probabilities[order], synthetic[order]
    ends = np.append(np.flatnonzero(np.diff(levels)), len(levels) - 1)
    true, false = np.cumsum(found)[ends] / found.sum(), np.cumsum(~found)[ends] / (~found).sum()
    return np.append(0.0, false), np.append(0.0, true), np.append(np.inf, levels[ends])
