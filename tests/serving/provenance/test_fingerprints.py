import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from contracts.imaging import resize
from serving.provenance.fingerprints import (
    MAXIMUM_DISTANCE,
    MINIMUM_SIMILARITY,
    distances,
    fingerprint,
    fingerprints,
    similarity,
)
from tests.images import speckle


def clouds(count: int, side: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth random images uint8 [count, side, side, channels]: noise of 12 x 12 pixels, enlarged."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 12, 12, channels), dtype=np.uint8)
    return np.stack([resize(image, side, side) for image in noise])


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_signs_are_those_of_a_cosine_transform() -> None:
    image = clouds(1, 48, channels=1)
    waves = dctn(image[0, ..., 0].astype(np.float64), type=2)
    signs = np.unpackbits(fingerprints(image).astype("<u8").view(np.uint8)).reshape(2, 64).astype(bool)
    assert np.array_equal(signs[0], (waves[1:9, 1:9] > 0).ravel())
    assert np.array_equal(signs[1][:16], np.concatenate([waves[0, 1:9], waves[1:9, 0]]) > 0)
    assert np.array_equal(signs[1][16:], np.concatenate([waves[9:12, 1:9].ravel(), waves[1:9, 9:12].ravel()]) > 0)


@pytest.mark.parametrize("side", [16, 48, 64, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_its_own_whatever_is_beside_it(side: int, channels: int) -> None:
    images = clouds(5, side, channels)
    together = fingerprints(images)
    assert (together.dtype, together.shape) == (np.uint64, (5, 2))
    for index, image in enumerate(images):
        alone = fingerprint(image)
        assert alone is not None
        assert np.array_equal(alone, together[index])


def test_compressed_and_resized_images_stay_near_and_others_do_not() -> None:
    images = clouds(40, 64)
    known = fingerprints(images)
    for index, image in enumerate(images):
        for changed in (
            jpeg(image, 75),
            resize(image, 32, 32),
            resize(image, 128, 128),
            jpeg(resize(image, 32, 32), 75),
        ):
            wanted = fingerprint(changed)
            assert wanted is not None
            found = distances(wanted, known)
            assert found[index] <= MAXIMUM_DISTANCE
            assert np.delete(found, index).min() > MAXIMUM_DISTANCE
            assert similarity(changed, image) >= MINIMUM_SIMILARITY
            assert similarity(changed, images[index - 1]) < MINIMUM_SIMILARITY


def test_grey_and_colour_copies_are_near() -> None:
    image = clouds(1, 64, channels=1)[0]
    assert similarity(image, np.repeat(image, 3, axis=2)) > 0.999


def test_a_faint_copy_of_another_level_is_not_alike() -> None:
    spot = np.zeros((64, 64, 1), dtype=np.uint8)
    spot[20:30, 40:52] = 100
    smooth = resize(resize(spot, 16, 16), 64, 64)
    assert similarity(smooth, smooth) == pytest.approx(1)
    for other in (smooth // 4, smooth + np.uint8(30)):
        assert similarity(smooth, other) < MINIMUM_SIMILARITY


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_without_contrast_has_none(level: int) -> None:
    flat = np.full((40, 40, 3), level, dtype=np.uint8)
    assert fingerprint(flat) is None
    assert similarity(flat, flat) < MINIMUM_SIMILARITY


@given(height=st.integers(16, 90), width=st.integers(16, 90), channels=st.sampled_from([1, 3]), seed=st.integers(0, 9))
def test_any_shape_has_one(height: int, width: int, channels: int, seed: int) -> None:
    pixels = speckle(seed, height, width, channels)
    wanted = fingerprint(pixels)
    assert wanted is not None
    assert distances(wanted, fingerprints(pixels[None])).tolist() == [0]
    assert similarity(pixels, pixels) == pytest.approx(1)


def test_distances_count_all_signs() -> None:
    known = np.array([[0, 0], [2**64 - 1, 0], [2**64 - 1, 2**64 - 1], [1, 2]], dtype=np.uint64)
    assert distances(np.zeros(2, dtype=np.uint64), known).tolist() == [0, 64, 128, 2]
