"""What happens to images on their way to a detector: blur, JPEG, resizing, noise.

Training passes real and synthetic images alike through random ones; the evaluation through fixed ones.
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from contracts.imaging import resize

Corruption = Callable[[np.ndarray], np.ndarray]
"""uint8 [H, W, C] to the same shape."""


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with a standard deviation in pixels."""
    return _array(_image(pixels).filter(ImageFilter.GaussianBlur(sigma)), pixels)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """JPEG there and back."""
    buffer = io.BytesIO()
    _image(pixels).save(buffer, format="JPEG", quality=quality)
    return _array(Image.open(buffer, formats=("JPEG",)), pixels)


def rescale(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Resized by a factor and back."""
    height, width = pixels.shape[:2]
    return resize(resize(pixels, round(height * factor), round(width * factor)), height, width)


def noise(pixels: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Gaussian noise with a standard deviation in grey levels."""
    noisy = pixels + np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


FIXED: dict[str, Corruption] = {
    "jpeg_75": partial(jpeg, quality=75),
    "blur_1.2": partial(blur, sigma=1.2),
    "resize_0.75": partial(rescale, factor=0.75),
    "noise_5": partial(noise, deviation=5.0, seed=0),
}
"""The corruptions the evaluation reports on."""


def corrupt_randomly(images: np.ndarray, seed: int) -> np.ndarray:
    """Each image of uint8 [N, H, W, C] through one random corruption of random strength."""
    random = np.random.default_rng(seed)
    choices: list[Callable[[], Corruption]] = [
        lambda: partial(blur, sigma=random.uniform(0.3, 1.5)),
        lambda: partial(jpeg, quality=int(random.integers(50, 96))),
        lambda: partial(rescale, factor=random.uniform(0.5, 0.95)),
        lambda: partial(noise, deviation=random.uniform(1, 8), seed=int(random.integers(2**31))),
    ]
    return np.stack([choices[random.integers(len(choices))]()(image) for image in images])


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _array(image: Image.Image, like: np.ndarray) -> np.ndarray:
    return np.asarray(image).reshape(like.shape)
