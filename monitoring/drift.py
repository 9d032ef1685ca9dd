"""Input drift: how far recent uploads have moved from the real validation images of a model.

The measure is the population stability index (PSI) of each image statistic, over the bins of the
release's `reference.npz`. Common reading: below 0.1 stable, above 0.25 moved.
"""

from collections import deque

import numpy as np

from contracts.statistics import FEATURES, Reference, histogram, image_statistics

# A PSI over n images and B bins is about (B - 1) / n without any drift: a few images would raise false alarms.
FILLED_SHARE = 0.2
# One upload moves the index by little: it is read anew each time this share of the window was taken in.
REFRESHED_SHARE = 0.02


class DriftWindow:
    """The statistics of the last `size` uploads, one image each."""

    def __init__(self, reference: Reference, size: int) -> None:
        self._reference = reference
        self._size = size
        self._values: dict[str, deque[float]] = {feature: deque(maxlen=size) for feature in FEATURES}
        self._added = 0

    @property
    def due(self) -> bool:
        """Whether enough uploads came in since the index was last worth reading."""
        return self._added % max(1, int(REFRESHED_SHARE * self._size)) == 0

    def add(self, image: np.ndarray) -> None:
        """Take in one upload as the model saw it: uint8 [H, W, C]."""
        self._added += 1
        for feature, values in image_statistics(image[None]).items():
            self._values[feature].append(float(values[0]))

    def drift(self) -> dict[str, float]:
        """The population stability index per feature; empty until a fifth of the window is filled."""
        if len(self._values[FEATURES[0]]) < FILLED_SHARE * self._size:
            return {}
        return {feature: self._index(feature) for feature in FEATURES}

    def _index(self, feature: str) -> float:
        values = np.array(self._values[feature], dtype=np.float32)
        return population_stability_index(
            histogram(values, self._reference.edges[feature]), self._reference.proportions[feature], len(values)
        )


def population_stability_index(found: np.ndarray, expected: np.ndarray, count: int) -> float:
    """The index of the proportions `found` over `count` values against `expected`, both float [B]; at least 0.

    Half a value is added to every bin of `found`, and a thousandth to those of `expected`, so that
    an empty bin weighs much but not infinitely.
    """
    observed = (found.astype(np.float64) * count + 0.5) / (count + 0.5 * len(found))
    reference = (expected.astype(np.float64) + 0.001) / (1 + 0.001 * len(expected))
    return float(((observed - reference) * np.log(observed / reference)).sum())
