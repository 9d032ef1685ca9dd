import numpy as np
import pytest
import torch

from contracts.imaging import ImageSpec
from tests.training.detectors.traces import smooth_images
from training.detectors import linear_evidence
from training.detectors.typicality import ContentFeatures, Typicality, _interpolate

SPEC = ImageSpec(32, 3)


@pytest.fixture(scope="module")
def fitted() -> Typicality:
    typicality = Typicality(SPEC)
    train, held_out = smooth_images(200, 32, 3, seed=0), smooth_images(80, 32, 3, seed=1)
    typicality.take(*(linear_evidence.features_of(images, typicality.content) for images in (train, held_out)))
    return typicality.eval()


def typicality_of(model: Typicality, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(linear_evidence.as_input(images)).numpy()


def test_fresh_images_of_the_same_kind_fill_the_whole_range(fitted: Typicality) -> None:
    found = typicality_of(fitted, smooth_images(200, 32, 3, seed=2))
    assert np.quantile(found, 0.25) == pytest.approx(0.25, abs=0.12)
    assert np.quantile(found, 0.75) == pytest.approx(0.75, abs=0.12)


def test_images_of_another_kind_are_unlike_any(fitted: Typicality) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    assert typicality_of(fitted, np.concatenate([noise, black, white])).max() == 0


def test_percentiles_are_read_between_knots() -> None:
    knots, levels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.0])
    found = _interpolate(torch.tensor([0.0, 1.0, 1.5, 3.0, 4.0, 9.0]), knots, levels)
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 0.75, 0.25, 0.0, 0.0]))


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (256, 3)])
def test_content_features_are_finite_on_one_colour(size: int, channels: int) -> None:
    module = ContentFeatures(ImageSpec(size, channels))
    found = module(torch.zeros(2, channels, size, size))
    assert found.shape == (2, module.count)
    assert torch.isfinite(found).all()
