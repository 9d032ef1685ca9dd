import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
from torch import nn

from contracts.imaging import ImageSpec
from training.detectors import features
from training.detectors.features import (
    COSINE_BANDS,
    LOGARITHM_FLOOR,
    CosineBands,
    EvidenceFeatures,
    LocalBinaryPatterns,
    PowerSpectrum,
    Residuals,
    ResidualStatistics,
)

RANDOM = np.random.default_rng(0)


def images(size: int, channels: int, count: int = 3) -> np.ndarray:
    """Smooth and noisy content, float32 [N, C, H, W]."""
    noise = RANDOM.random((count, channels, size, size))
    return np.clip(scipy.ndimage.gaussian_filter(noise, (0, 0, 1, 1)) + 0.1 * noise, 0, 1).astype(np.float32)


def luminance(batch: np.ndarray) -> np.ndarray:
    weights = (0.299, 0.587, 0.114) if batch.shape[1] == 3 else (1.0,)
    return np.tensordot(weights, batch.astype(np.float64), axes=(0, 1))


def blocks_of(grey: np.ndarray, side: int) -> list[np.ndarray]:
    height, width = grey.shape
    return [grey[y : y + side, x : x + side] for y in range(0, height, side) for x in range(0, width, side)]


def run(module: nn.Module, batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (128, 1)])
def test_power_spectrum_equals_numpys_fft(size: int, channels: int) -> None:
    batch, side = images(size, channels), min(size, 64)
    window = np.outer(np.hanning(side + 1)[:-1], np.hanning(side + 1)[:-1])
    frequency = np.fft.fftfreq(side, 1 / side)
    radius = np.minimum(np.rint(np.hypot(*np.meshgrid(frequency, frequency))), side // 2)
    expected = []
    for grey in luminance(batch):
        power = np.mean([np.abs(np.fft.fft2((b - b.mean()) * window)) ** 2 for b in blocks_of(grey, side)], axis=0)
        expected.append([np.log(power[radius == ring].mean() + LOGARITHM_FLOOR) for ring in range(1, side // 2 + 1)])
    np.testing.assert_allclose(run(PowerSpectrum(ImageSpec(size, channels)), batch), expected, atol=2e-3)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (64, 1), (128, 3)])
def test_cosine_bands_equal_scipys_dct(size: int, channels: int) -> None:
    batch, side = images(size, channels), min(size, 64)
    u, v = np.mgrid[:side, :side]
    band = ((u + v) * COSINE_BANDS / (2 * side - 1)).astype(int)
    expected = []
    for grey in luminance(batch):
        logarithms = np.mean(
            [np.log(np.abs(scipy.fft.dctn(b, norm="ortho")) + LOGARITHM_FLOOR) for b in blocks_of(grey, side)], axis=0
        )
        expected.append([logarithms[band == index].mean() for index in range(COSINE_BANDS)])
    np.testing.assert_allclose(run(CosineBands(ImageSpec(size, channels)), batch), expected, atol=5e-3)


def test_residuals_equal_scipys_correlation() -> None:
    batch = images(32, 3, count=2)
    kernels = [
        np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]]) / 2,
        np.array([[0, 1, 0], [0, -2, 0], [0, 1, 0]]) / 2,
        np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4,
        np.array([[0, 0, 0], [0, 1, -1], [0, -1, 1]]) / 2,
    ]
    expected = [
        [scipy.ndimage.correlate(channel, kernel)[1:-1, 1:-1] for channel in image for kernel in kernels]
        for image in batch.astype(np.float64)
    ]
    np.testing.assert_allclose(run(Residuals(3), batch), expected, atol=1e-6)


def test_residual_statistics_equal_numpy() -> None:
    batch = images(32, 3, count=2)
    residuals = run(Residuals(3), batch).astype(np.float64)
    power = (residuals**2).mean((2, 3)) + LOGARITHM_FLOOR**2
    srm = residuals[:, 2::4]
    correlations = []
    for one, other in ((0, 1), (1, 2), (2, 0)):
        scale = np.sqrt(power[:, 2::4][:, one] * power[:, 2::4][:, other])
        correlations.append((srm[:, one] * srm[:, other]).mean((1, 2)) / scale)
    expected = np.concatenate(
        [
            np.log(np.abs(residuals).mean((2, 3)) + LOGARITHM_FLOOR),
            np.log((residuals**4).mean((2, 3)) / power**2 + LOGARITHM_FLOOR),
            (residuals[..., 1:] * residuals[..., :-1]).mean((2, 3)) / power,
            (residuals[..., 1:, :] * residuals[..., :-1, :]).mean((2, 3)) / power,
            np.stack(correlations, 1),
        ],
        axis=1,
    )
    module = ResidualStatistics(3)
    assert module.count == expected.shape[1] == 51
    np.testing.assert_allclose(run(module, batch), expected, atol=1e-4)


def slow_pattern(neighbourhood: np.ndarray) -> int:
    circle = [neighbourhood[position] for position in ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))]
    bits = [int(value >= neighbourhood[1, 1]) for value in circle]
    changes = sum(bits[index] != bits[index - 1] for index in range(8))
    return sum(bits) if changes <= 2 else 9


def test_local_binary_patterns_equal_a_slow_clear_reference() -> None:
    batch = RANDOM.integers(0, 6, (2, 3, 12, 12)).astype(np.float32) / 255
    module = LocalBinaryPatterns(3)
    codes = module.codes(torch.from_numpy(batch)).numpy()
    for index in np.ndindex(codes.shape):
        image, channel, y, x = index
        assert codes[index] == slow_pattern(batch[image, channel, y : y + 3, x : x + 3])
    expected = [[np.bincount(c.ravel(), minlength=10) / c.size for c in image] for image in codes]
    np.testing.assert_allclose(run(module, batch), np.reshape(expected, (2, 30)), atol=1e-6)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (256, 3)])
def test_evidence_is_finite_on_edge_images(size: int, channels: int) -> None:
    edges = np.stack([np.zeros((channels, size, size)), np.ones((channels, size, size))]).astype(np.float32)
    module = EvidenceFeatures(ImageSpec(size, channels))
    found = run(module, edges)
    assert found.shape == (2, module.count)
    assert np.isfinite(found).all()


def test_transposed_convolution_traces_show_in_the_spectrum() -> None:
    """The point of it all: zero-insertion upsampling leaves high frequencies that smooth images lack."""
    smooth = scipy.ndimage.gaussian_filter(RANDOM.random((8, 1, 64, 64)), (0, 0, 3, 3)).astype(np.float32)
    checkered = smooth.copy()
    checkered[..., ::2, ::2] += 0.02
    spectrum = PowerSpectrum(ImageSpec(64, 1))
    assert (run(spectrum, checkered)[:, -1] - run(spectrum, smooth)[:, -1]).min() > 2


def test_blocks_tile_the_image_without_overlap() -> None:
    grey = torch.arange(16.0).reshape(1, 4, 4)
    found = features._blocks(grey, 2)
    assert found.shape == (1, 4, 2, 2)
    assert found[0, 1].tolist() == [[2, 3], [6, 7]]
