"""Small images with and without the traces of a generator, for tests of what looks for them."""

import numpy as np
import scipy.ndimage


def smooth_images(count: int, size: int, channels: int, seed: int) -> np.ndarray:
    """Smooth random content with sensor noise, uint8 [N, H, W, C]."""
    random = np.random.default_rng(seed)
    content = scipy.ndimage.gaussian_filter(random.normal(0, 1, (count, size, size, channels)), (0, 3, 3, 0))
    content = 128 + 40 * content / content.std() + random.normal(0, 3, content.shape)
    return np.clip(np.rint(content), 0, 255).astype(np.uint8)


def upsampled(images: np.ndarray) -> np.ndarray:
    """The same images enlarged from half their size: what a generator's last layer leaves behind."""
    return images[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
