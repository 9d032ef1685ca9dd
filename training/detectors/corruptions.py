"""What happens to images on their way to a detector: JPEG, resizing, blur, noise, gamma, crops, screenshots.

Training passes real and synthetic images alike through random ones; the evaluation through fixed ones.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from contracts.imaging import resize

Corruption = Callable[[np.ndarray], np.ndarray]
"""uint8 [H, W, C] to the same shape."""


@dataclass(frozen=True)
class Family:
    """One kind of corruption: the strengths that the evaluation reports on, and random ones for training."""

    quantity: str
    """What the strength is, with its unit."""
    neutral: float
    """The strength that leaves an image as it is; of JPEG, as near to it as can be."""
    strengths: tuple[float, ...]
    fixed: Callable[[float], Corruption]
    """The corruption of a strength, the same each time."""
    drawn: Callable[[np.random.Generator], Corruption]
    """One of random strength, never of a fixed one; the range holds the fixed ones."""


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """JPEG there and back."""
    buffer = io.BytesIO()
    _image(pixels).save(buffer, format="JPEG", quality=quality)
    return _array(Image.open(buffer, formats=("JPEG",)), pixels)


def rescale(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Resized by a factor and back."""
    height, width = pixels.shape[:2]
    return resize(resize(pixels, round(height * factor), round(width * factor)), height, width)


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with a standard deviation in pixels."""
    return _array(_image(pixels).filter(ImageFilter.GaussianBlur(sigma)), pixels)


def noise(pixels: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Gaussian noise with a standard deviation in grey levels."""
    noisy = pixels + np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def gamma(pixels: np.ndarray, exponent: float) -> np.ndarray:
    """Grey levels in [0, 1] to the power of an exponent: below 1 brighter, above 1 darker."""
    levels: np.ndarray = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return np.asarray(levels[pixels])


def crop(pixels: np.ndarray, share: float) -> np.ndarray:
    """The central part of this share of each side, enlarged to the whole."""
    height, width = pixels.shape[:2]
    inner_height, inner_width = round(height * share), round(width * share)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    return resize(pixels[top : top + inner_height, left : left + inner_width], height, width)


def screenshot(pixels: np.ndarray, factor: float, exponent: float = 1.05, quality: int = 85) -> np.ndarray:
    """Enlarged bilinearly as a viewer does, through a screen's gamma, kept as JPEG, back by the project's resize."""
    height, width = pixels.shape[:2]
    side = (round(width * factor), round(height * factor))
    shown = np.asarray(_image(pixels).resize(side, Image.Resampling.BILINEAR)).reshape(side[1], side[0], -1)
    return resize(jpeg(gamma(shown, exponent), quality), height, width)


QUALITIES = (90, 75, 50)
OTHER_QUALITIES = np.setdiff1d(np.arange(40, 96), QUALITIES)

FAMILIES: dict[str, Family] = {
    "jpeg": Family(
        "JPEG quality",
        100,
        QUALITIES,
        lambda quality: partial(jpeg, quality=int(quality)),
        lambda random: partial(jpeg, quality=int(random.choice(OTHER_QUALITIES))),
    ),
    "resize": Family(
        "resized by a factor and back",
        1,
        (0.5, 0.75, 1.5),
        lambda factor: partial(rescale, factor=factor),
        lambda random: partial(rescale, factor=random.uniform(0.45, 1.7)),
    ),
    "blur": Family(
        "blur, sigma in pixels",
        0,
        (0.6, 1.2, 2.0),
        lambda sigma: partial(blur, sigma=sigma),
        lambda random: partial(blur, sigma=random.uniform(0.3, 2.2)),
    ),
    "noise": Family(
        "noise, deviation in grey levels",
        0,
        (2, 5, 10),
        lambda deviation: partial(noise, deviation=deviation, seed=0),
        lambda random: partial(noise, deviation=random.uniform(1, 11), seed=int(random.integers(2**31))),
    ),
    "gamma": Family(
        "gamma, exponent",
        1,
        (0.7, 1.4),
        lambda exponent: partial(gamma, exponent=exponent),
        lambda random: partial(gamma, exponent=random.uniform(0.6, 1.6)),
    ),
    "crop": Family(
        "central share of the side",
        1,
        (0.875,),
        lambda share: partial(crop, share=share),
        lambda random: partial(crop, share=random.uniform(0.8, 0.95)),
    ),
    "screenshot": Family(
        "screenshot, enlarged by a factor",
        1,
        (1.3,),
        lambda factor: partial(screenshot, factor=factor),
        lambda random: partial(
            screenshot,
            factor=random.uniform(1.1, 1.6),
            exponent=random.uniform(0.9, 1.1),
            quality=int(random.integers(75, 96)),
        ),
    ),
}

FIXED: dict[str, Corruption] = {
    f"{name}_{strength:g}": family.fixed(strength) for name, family in FAMILIES.items() for strength in family.strengths
}
"""The corruptions the evaluation reports on, named after family and strength."""


def corrupt_randomly(images: np.ndarray, seed: int) -> np.ndarray:
    """Each image of uint8 [N, H, W, C] through one random corruption of random strength."""
    random = np.random.default_rng(seed)
    families = list(FAMILIES.values())
    return np.stack([families[random.integers(len(families))].drawn(random)(image) for image in images])


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _array(image: Image.Image, like: np.ndarray) -> np.ndarray:
    return np.asarray(image).reshape(like.shape)
