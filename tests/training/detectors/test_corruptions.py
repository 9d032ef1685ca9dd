from functools import partial

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from contracts.imaging import resize
from training.detectors import corruptions

RANDOM = np.random.default_rng(0)
IMAGES = scipy.ndimage.gaussian_filter(RANDOM.integers(0, 256, (6, 32, 32, 3)), (0, 1, 1, 0)).astype(np.uint8)


@pytest.mark.parametrize("name", corruptions.FIXED)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (33, 47)])
def test_a_corruption_changes_an_image_a_little_and_the_same_way_each_time(
    name: str, channels: int, height: int, width: int
) -> None:
    image = np.ascontiguousarray(resize(IMAGES[0], height, width)[..., :channels])
    corrupted = corruptions.FIXED[name](image)
    assert corrupted.shape == image.shape
    assert corrupted.dtype == np.uint8
    assert 0 < np.abs(corrupted.astype(int) - image).mean() < 32
    assert np.array_equal(corrupted, corruptions.FIXED[name](image))


def test_names_say_family_and_strength() -> None:
    named = {f"{name}_{strength:g}" for name, family in corruptions.FAMILIES.items() for strength in family.strengths}
    assert set(corruptions.FIXED) == named
    assert {"jpeg_75", "blur_1.2", "resize_0.75", "noise_5"} < named


def test_fixed_corruptions_are_those_that_their_names_say() -> None:
    expected: dict[str, corruptions.Corruption] = {
        "jpeg_50": partial(corruptions.jpeg, quality=50),
        "blur_1.2": partial(corruptions.blur, sigma=1.2),
        "resize_0.5": partial(corruptions.rescale, factor=0.5),
        "noise_5": partial(corruptions.noise, deviation=5.0, seed=0),
        "gamma_0.7": partial(corruptions.gamma, exponent=0.7),
        "crop_0.875": partial(corruptions.crop, share=0.875),
        "screenshot_1.3": partial(corruptions.screenshot, factor=1.3),
    }
    for name, corrupt in expected.items():
        assert np.array_equal(corruptions.FIXED[name](IMAGES[0]), corrupt(IMAGES[0]))


@pytest.mark.parametrize("name", ["jpeg", "blur", "noise"])
def test_a_family_grows_with_its_strengths(name: str) -> None:
    changes = [
        np.abs(corruptions.FIXED[f"{name}_{strength:g}"](IMAGES[0]).astype(int) - IMAGES[0]).mean()
        for strength in corruptions.FAMILIES[name].strengths
    ]
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", [name for name in corruptions.FAMILIES if name not in ("jpeg", "screenshot")])
def test_the_neutral_strength_changes_nothing(name: str) -> None:
    family = corruptions.FAMILIES[name]
    assert np.array_equal(family.fixed(family.neutral)(IMAGES[0]), IMAGES[0])


def test_blur_removes_and_noise_adds_high_frequencies() -> None:
    def roughness(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(int), axis=0)).mean())

    assert roughness(corruptions.blur(IMAGES[0], 1.5)) < roughness(IMAGES[0])
    assert roughness(corruptions.rescale(IMAGES[0], 0.5)) < roughness(IMAGES[0])
    flat = np.full((32, 32, 3), 128, dtype=np.uint8)
    assert corruptions.noise(flat, 5.0, seed=0).std() == pytest.approx(5.0, rel=0.1)


def test_gamma_is_a_power_of_the_grey_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = np.rint(255 * (levels / 255.0) ** 1.4)
    assert np.array_equal(corruptions.gamma(levels, 1.4), expected)
    assert corruptions.gamma(levels, 0.7).mean() > levels.mean() > corruptions.gamma(levels, 1.4).mean()


def test_a_crop_is_the_centre_enlarged() -> None:
    framed = np.zeros((64, 64, 1), dtype=np.uint8)
    framed[4:60, 4:60] = 200
    assert (corruptions.crop(framed, 0.875) == 200).all()
    assert np.array_equal(corruptions.crop(IMAGES[0], 0.875), resize(IMAGES[0][2:30, 2:30], 32, 32))


def test_a_screenshot_is_bilinear_gamma_jpeg_and_the_projects_resize() -> None:
    enlarged = np.asarray(Image.fromarray(IMAGES[0]).resize((42, 42), Image.Resampling.BILINEAR))
    expected = resize(corruptions.jpeg(corruptions.gamma(enlarged, 1.05), 85), 32, 32)
    assert np.array_equal(corruptions.screenshot(IMAGES[0], 1.3), expected)


def test_random_corruption_is_seeded_and_of_several_kinds() -> None:
    one, again = (corruptions.corrupt_randomly(IMAGES, seed=1) for _ in range(2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, corruptions.corrupt_randomly(IMAGES, seed=2))
    repeated = np.repeat(IMAGES[:1], 12, axis=0)
    assert len({image.tobytes() for image in corruptions.corrupt_randomly(repeated, seed=0)}) > 6


STRENGTHS = {
    "jpeg": "quality",
    "resize": "factor",
    "blur": "sigma",
    "noise": "deviation",
    "gamma": "exponent",
    "crop": "share",
    "screenshot": "factor",
}
"""The argument that is a family's strength."""


@pytest.mark.parametrize("name", corruptions.FAMILIES)
def test_random_strengths_lie_around_the_fixed_ones_and_are_none_of_them(name: str) -> None:
    family, random = corruptions.FAMILIES[name], np.random.default_rng(0)
    drawn = [family.drawn(random) for _ in range(400)]
    assert all(isinstance(one, partial) for one in drawn)
    strengths = [one.keywords[STRENGTHS[name]] for one in drawn if isinstance(one, partial)]
    assert min(strengths) < min(family.strengths)
    assert max(strengths) > max(family.strengths)
    assert not set(strengths) & set(family.strengths)
