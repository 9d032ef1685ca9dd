"""The one source of generator noise: image `i` of seed `s` is the same image whatever the batch."""

import numpy as np


def latents(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """Standard normal latents float32 [count, size] for the images `start` to `start + count - 1` of `seed`.

    Each image has a noise stream of its own, keyed by (seed, index), so neither the number of
    images asked for nor the batch size changes any of them.
    """
    noise = np.empty((count, size), dtype=np.float32)
    for row in range(count):
        noise[row] = np.random.default_rng((seed, start + row)).standard_normal(size, dtype=np.float32)
    return noise
