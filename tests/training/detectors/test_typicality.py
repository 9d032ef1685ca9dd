import numpy as np
import pytest
import torch
from scipy.stats import t as student

from contracts.imaging import ImageSpec
from tests.training.detectors.traces import smooth_images
from training.detectors import linear_evidence
from training.detectors.corruptions import blur, jpeg, noise
from training.detectors.typicality import FREEDOM, UNLIKE_ANY, ContentFeatures, Typicality, _interpolate, _orientation

SPEC = ImageSpec(32, 3)


def fit(train: np.ndarray, held_out: np.ndarray, spec: ImageSpec = SPEC) -> Typicality:
    typicality = Typicality(spec)
    typicality.take(*(linear_evidence.features_of(images, typicality.content) for images in (train, held_out)))
    return typicality.eval()


@pytest.fixture(scope="module")
def fitted() -> Typicality:
    return fit(smooth_images(200, 32, 3, seed=0), smooth_images(80, 32, 3, seed=1))


def typicality_of(model: Typicality, images: np.ndarray) -> np.ndarray:
    return linear_evidence.features_of(images, model)


def strange_images() -> np.ndarray:
    random = np.random.default_rng(0)
    noisy = random.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    return np.concatenate([noisy, black, white])


def test_fresh_images_of_the_same_kind_fill_the_whole_range(fitted: Typicality) -> None:
    found = typicality_of(fitted, smooth_images(200, 32, 3, seed=2))
    assert np.quantile(found, 0.25) == pytest.approx(0.25, abs=0.12)
    assert np.quantile(found, 0.75) == pytest.approx(0.75, abs=0.12)


def test_images_of_another_kind_are_unlike_any(fitted: Typicality) -> None:
    found = typicality_of(fitted, strange_images())
    # The smooth images are noise themselves, at half the size.
    assert found[:8].max() < 1e-3
    assert found[8:].max() < UNLIKE_ANY


def test_the_farther_of_two_strangers_is_the_less_typical(fitted: Typicality) -> None:
    known = smooth_images(1, 32, 3, seed=2)[0].astype(np.float64)
    paler = np.stack([known + share * (255 - known) for share in (0.5, 0.6, 0.7, 0.8, 0.9)])
    found = typicality_of(fitted, np.rint(paler).astype(np.uint8))
    assert found[0] < 0.02
    assert (found > 0).all()
    assert (np.diff(found) < 0).all()


def test_another_colour_is_another_kind(fitted: Typicality) -> None:
    found = typicality_of(fitted, smooth_images(20, 32, 3, seed=2)[..., [2, 2, 0]])
    assert np.median(found) < 0.02


@pytest.mark.parametrize("harm", [lambda image: jpeg(image, 75), lambda image: blur(image, 1.2)])
def test_what_happens_on_the_way_leaves_images_in_scope(fitted: Typicality, harm: object) -> None:
    assert callable(harm)
    images = np.stack([harm(image) for image in smooth_images(60, 32, 3, seed=3)])
    assert (typicality_of(fitted, images) >= 0.01).mean() > 0.9


def test_fifty_images_are_enough_and_the_fit_is_repeatable() -> None:
    train, held_out = smooth_images(50, 32, 1, seed=0), smooth_images(20, 32, 1, seed=1)
    model, again = (fit(train, held_out, ImageSpec(32, 1)) for _ in range(2))
    fresh = smooth_images(50, 32, 1, seed=2)
    assert (typicality_of(model, fresh) > 0.01).mean() > 0.8
    assert typicality_of(model, strange_images()[..., :1]).max() < UNLIKE_ANY
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_fresh_module_takes_the_weights(fitted: Typicality) -> None:
    copy = Typicality(SPEC)
    copy.load_state_dict(fitted.state_dict())
    images = np.concatenate([smooth_images(4, 32, 3, seed=2), strange_images()])
    assert np.array_equal(typicality_of(copy, images), typicality_of(fitted, images))


def test_the_distance_is_that_of_student(fitted: Typicality) -> None:
    """Against SciPy's density of the whitened features."""
    content = fitted.content(linear_evidence.as_input(smooth_images(3, 32, 3, seed=2)))
    whitened = ((content - fitted.mean) @ fitted.whitening).numpy()
    surprise = student.logpdf(0, FREEDOM) - student.logpdf(whitened, FREEDOM)
    expected = surprise.sum(axis=1) * 2 / (FREEDOM + 1)
    assert fitted.distance(content).numpy() == pytest.approx(expected, rel=1e-4)


def test_the_tail_reaches_unlike_any_at_twice_the_largest_distance(fitted: Typicality) -> None:
    last = fitted.distances[-1]
    levels = _interpolate(last[None], fitted.distances, fitted.percentiles) * torch.exp(-fitted.decay * last)
    assert levels.item() == pytest.approx(UNLIKE_ANY, rel=1e-3)


def test_percentiles_are_read_between_knots() -> None:
    knots, levels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.0])
    found = _interpolate(torch.tensor([0.0, 1.0, 1.5, 3.0, 4.0, 9.0]), knots, levels)
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 0.75, 0.25, 0.0, 0.0]))


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_stripes_have_the_orientation_they_are_drawn_with(degrees: int) -> None:
    angle = torch.tensor(float(np.deg2rad(degrees)))
    across, down = (scale * torch.randn(1, 64, 64) for scale in (1, 1))
    across, down = across * torch.cos(angle), across * torch.sin(angle)
    found = _orientation(across, down)[0]
    torch.testing.assert_close(found, torch.stack([torch.cos(2 * angle), torch.sin(2 * angle)]), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (256, 3), (512, 1)])
def test_content_features_are_finite_on_one_colour(size: int, channels: int) -> None:
    module = ContentFeatures(ImageSpec(size, channels))
    found = module(torch.zeros(2, channels, size, size))
    assert found.shape == (2, module.count)
    assert torch.isfinite(found).all()


def test_content_is_the_same_from_noisy_pixels(fitted: Typicality) -> None:
    """A few grey levels of noise move no feature by more than half of what real images differ."""
    images = smooth_images(40, 32, 3, seed=4)
    harmed = np.stack([noise(image, 5, seed=1) for image in images])
    before, after = (linear_evidence.features_of(each, fitted.content) for each in (images, harmed))
    assert np.abs(after - before).mean() < 0.5 * before.std(axis=0).mean()


def test_the_most_typical_image_of_all_is_no_more_than_one(fitted: Typicality) -> None:
    """Nothing is nearer than the centre, and the shares between many knots sum up with rounding."""
    nearest = fitted.distances[:1] - 1
    for knots in (fitted.distances, fitted.distances + 1e-3):
        fitted_percentile = _interpolate(nearest, knots, fitted.percentiles)
        assert fitted_percentile == pytest.approx(1, abs=1e-5)
    found = typicality_of(fitted, smooth_images(400, 32, 3, seed=3))
    assert 0 <= found.min() < found.max() <= 1
