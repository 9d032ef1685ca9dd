import numpy as np
import pytest
import scipy.ndimage

from training.detectors import corruptions

RANDOM = np.random.default_rng(0)
IMAGES = scipy.ndimage.gaussian_filter(RANDOM.integers(0, 256, (6, 32, 32, 3)), (0, 1, 1, 0)).astype(np.uint8)


@pytest.mark.parametrize("name", corruptions.FIXED)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_corruption_changes_an_image_a_little_and_the_same_way_each_time(name: str, channels: int) -> None:
    image = np.ascontiguousarray(IMAGES[0][..., :channels])
    corrupted = corruptions.FIXED[name](image)
    assert corrupted.shape == image.shape
    assert corrupted.dtype == np.uint8
    assert 0 < np.abs(corrupted.astype(int) - image).mean() < 25
    assert np.array_equal(corrupted, corruptions.FIXED[name](image))


def test_blur_removes_and_noise_adds_high_frequencies() -> None:
    def roughness(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(int), axis=0)).mean())

    assert roughness(corruptions.blur(IMAGES[0], 1.5)) < roughness(IMAGES[0])
    assert roughness(corruptions.rescale(IMAGES[0], 0.5)) < roughness(IMAGES[0])
    flat = np.full((32, 32, 3), 128, dtype=np.uint8)
    assert corruptions.noise(flat, 5.0, seed=0).std() == pytest.approx(5.0, rel=0.1)


def test_random_corruption_is_seeded_and_of_several_kinds() -> None:
    one, again = (corruptions.corrupt_randomly(IMAGES, seed=1) for _ in range(2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, corruptions.corrupt_randomly(IMAGES, seed=2))
    repeated = np.repeat(IMAGES[:1], 12, axis=0)
    assert len({image.tobytes() for image in corruptions.corrupt_randomly(repeated, seed=0)}) > 6
