from pathlib import Path

import numpy as np
import pytest

from contracts.statistics import BINS, FEATURES, Reference, histogram, image_statistics
from tests.images import speckle


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_agree_with_a_plain_loop(channels: int) -> None:
    images = np.stack([speckle(seed, 12, 10, channels) for seed in range(4)])
    found = image_statistics(images)
    for index, image in enumerate(images.astype(np.float64)):
        grey = image.mean(axis=2)
        across = np.mean([abs(row[x + 1] - row[x]) for row in grey for x in range(9)])
        down = np.mean([abs(grey[y + 1, x] - grey[y, x]) for y in range(11) for x in range(10)])
        assert found["brightness"][index] == pytest.approx(grey.mean(), rel=1e-5)
        assert found["contrast"][index] == pytest.approx(grey.std(), rel=1e-5)
        assert found["sharpness"][index] == pytest.approx((across + down) / 2, rel=1e-5)
        assert found["saturation"][index] == pytest.approx(np.ptp(image, axis=2).mean(), rel=1e-5)


def test_reference_round_trip_and_proportions(tmp_path: Path) -> None:
    images = np.stack([speckle(seed, 8, 8) // (1 + seed % 7) for seed in range(100)])
    Reference.of(images).write(tmp_path / "reference.npz")
    reference = Reference.read(tmp_path / "reference.npz")
    for feature in FEATURES:
        assert reference.proportions[feature].sum() == pytest.approx(1)
        assert np.allclose(reference.proportions[feature], 1 / BINS, atol=0.03)


def test_a_constant_feature_has_few_bins() -> None:
    reference = Reference.of(np.stack([speckle(seed, 8, 8, 1) for seed in range(20)]))
    assert reference.edges["saturation"].tolist() == [0]
    assert reference.proportions["saturation"].tolist() == [0, 1]


def test_outer_bins_are_open() -> None:
    edges = np.array([1.0, 2.0])
    assert histogram(np.array([-100.0, 1.0, 1.5, 2.0, 1e9]), edges).tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert histogram(np.array([]), edges).tolist() == [0, 0, 0]
