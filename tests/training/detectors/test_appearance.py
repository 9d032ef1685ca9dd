import numpy as np
import pytest
import scipy.fft
import torch
from skimage.feature import graycomatrix, graycoprops

from contracts.imaging import ImageSpec
from training.detectors import appearance
from training.detectors.linear_evidence import features_of

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
GREY = np.clip(np.cumsum(RANDOM.integers(-9, 10, (3, 64, 64, 1)), axis=2) + 128, 0, 255).astype(np.uint8)
CONSTANT = np.full((1, 64, 64, 1), 128, dtype=np.uint8)


def test_colour_layout_is_the_cosine_transform_of_the_means_of_the_fields() -> None:
    found = features_of(COLOUR, appearance.ColourLayout(ImageSpec(64, 3)))
    to_ycc = np.array([[0.299, 0.587, 0.114], appearance.CHROMA_BLUE, appearance.CHROMA_RED])
    planes = np.moveaxis(COLOUR / 255 @ to_ycc.T, 3, 1)
    means = planes.reshape(3, 3, 8, 8, 8, 8).mean(axis=(3, 5))
    whole = scipy.fft.dctn(means, axes=(2, 3), norm="ortho")
    zigzag = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0)]
    expected = np.stack([whole[:, :, row, column] for row, column in zigzag], axis=2).reshape(3, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("images", [COLOUR, GREY])
def test_histograms_are_those_of_numpy(images: np.ndarray) -> None:
    channels = images.shape[3]
    found = features_of(images, appearance.ColourHistogram(ImageSpec(64, channels)))
    for image, row in zip(images, found, strict=True):
        expected = [np.histogram(image[..., channel], bins=8, range=(0, 256))[0] / 4096 for channel in range(channels)]
        np.testing.assert_allclose(row, np.concatenate(expected), atol=1e-6)


def test_the_intensity_histogram_is_that_of_the_luminance() -> None:
    (found,) = features_of(COLOUR[:1], appearance.IntensityHistogram(ImageSpec(64, 3)))
    grey = COLOUR[0] / 255 @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found, np.histogram(grey, bins=16, range=(0, 1))[0] / 4096, atol=1e-3)
    assert found.sum() == pytest.approx(1)


def test_co_occurrence_is_that_of_scikit_image() -> None:
    found = features_of(GREY, appearance.CoOccurrence(ImageSpec(64, 1)))
    for image, row in zip(GREY[..., 0], found, strict=True):
        expected = []
        for distance in appearance.DISTANCES:
            matrix = graycomatrix(image // 32, [distance], [0, np.pi / 2], levels=8, symmetric=True)
            # Both directions hold equally many pairs in a square.
            both = matrix.sum(axis=3, keepdims=True) / matrix.sum()
            names = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
            expected += [float(graycoprops(both, name)[0, 0]) for name in names]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images", [CONSTANT, np.zeros_like(CONSTANT), np.full_like(CONSTANT, 255)])
def test_constant_images_have_finite_descriptors(images: np.ndarray) -> None:
    found = features_of(images, appearance.Descriptors(ImageSpec(64, 1)))
    assert np.isfinite(found).all()
    assert torch.tensor(found).abs().max() < 100
