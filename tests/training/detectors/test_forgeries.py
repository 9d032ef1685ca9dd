import numpy as np
import pytest

from tests.training.detectors.traces import smooth_images
from training.detectors import forgeries

IMAGES = smooth_images(24, 32, 3, seed=0)


def luminance(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64).mean(axis=3)


def power(images: np.ndarray) -> np.ndarray:
    return np.asarray((np.abs(np.fft.fft2(luminance(images))) ** 2).mean(axis=0))


@pytest.mark.parametrize("name", ["gridded", "respectred"])
def test_a_forgery_keeps_the_picture_and_its_seed(name: str) -> None:
    forge: forgeries.Forgery = getattr(forgeries, name)
    forged = forge(IMAGES, 3)
    assert forged.shape == IMAGES.shape
    assert forged.dtype == np.uint8
    assert 0 < np.abs(forged.astype(int) - IMAGES).mean() < 12
    np.testing.assert_array_equal(forged, forge(IMAGES, 3))
    assert not np.array_equal(forged, forge(IMAGES, 4))


def test_a_grid_shows_at_the_frequencies_of_its_periods_alone() -> None:
    """Periods of two and four pixels: multiples of 8 of 32 cycles."""
    gain = power(forgeries.gridded(IMAGES, 0)) / power(IMAGES)
    lattice = np.zeros((32, 32), dtype=bool)
    lattice[::8, ::8] = True
    lattice[0, 0] = False
    assert np.median(gain[lattice]) > 1.8
    rest = ~lattice
    rest[0, 0] = False
    assert 0.9 < np.median(gain[rest]) < 1.2


def test_a_changed_spectrum_is_changed_at_high_frequencies_only() -> None:
    frequency = np.abs(np.fft.fftfreq(32))
    radius = np.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2) / 0.5
    changes = []
    for seed in range(8):
        before, after = (
            np.abs(np.fft.fft2(luminance(images[:1])[0])) for images in (IMAGES, forgeries.respectred(IMAGES[:1], seed))
        )
        changes.append(np.abs(np.log((after + 1) / (before + 1))))
    change = np.mean(changes, axis=0)
    assert change[radius > 0.9].mean() > 0.3
    assert change[(radius < 0.25) & (radius > 0)].mean() < 0.1


@pytest.mark.parametrize("transposed", [True, False])
def test_the_autoencoder_learns_to_restore_and_leaves_its_traces(transposed: bool) -> None:
    fresh, trained = (forgeries.autoencoder(IMAGES, transposed, images, seed=0) for images in (64, 64 * 60))
    error, learned = (
        np.abs(forgeries.autoencoded(network, IMAGES).astype(int) - IMAGES).mean() for network in (fresh, trained)
    )
    assert learned < error / 2
    assert learned > 0
    np.testing.assert_array_equal(
        forgeries.autoencoded(trained, IMAGES),
        forgeries.autoencoded(forgeries.autoencoder(IMAGES, transposed, 64 * 60, seed=0), IMAGES),
    )


def test_all_forgers_work_on_grey_images() -> None:
    grey = smooth_images(8, 32, 1, seed=1)
    found = forgeries.forgers(grey, 64, seed=0)
    assert set(found) == {"autoencoded_transposed", "autoencoded_resized", "gridded", "respectred"}
    for forge in found.values():
        assert forge(grey, 0).shape == grey.shape
