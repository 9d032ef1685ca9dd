"""The one source of generator noise and drawn labels: image `i` of seed `s` is the same image whatever the batch."""

from collections.abc import Sequence

import numpy as np

# Beside (seed, index), as a spawn key: no seed of any latent makes the same stream.
LABEL_STREAM = (1,)
WORD = 2**32
"""Seeds and indices beyond it take a second word."""


def key(seed: int, index: int) -> tuple[int, int, int, int]:
    """The entropy of image `index` of `seed`, each in [0, 2**64): four words of 32 bits, no two images' the same.

    numpy would write (seed, index) in as few words as hold them, and (7, 5) as it writes (7 + 5 * 2**32, 0). The low
    words come first: it fills up with zeros, so pairs of small numbers keep the streams that they would have bare.
    """
    return seed % WORD, index % WORD, seed // WORD, index // WORD


def latents(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """Standard normal latents float32 [count, size] for the images `start` to `start + count - 1` of `seed`.

    Each image has a noise stream of its own, keyed by (seed, index), so neither the number of
    images asked for nor the batch size changes any of them.
    """
    noise = np.empty((count, size), dtype=np.float32)
    for row in range(count):
        noise[row] = np.random.default_rng(key(seed, start + row)).standard_normal(size, dtype=np.float32)
    return noise


def labels(seed: int, start: int, count: int, shares: Sequence[float]) -> np.ndarray:
    """Labels int64 [count], in [0, len(shares)), for the images `start` to `start + count - 1` of `seed`.

    Label k is drawn with probability shares[k] / sum(shares), by inversion of the cumulative shares. Each image has
    a stream of its own, keyed by (seed, index) and another one than its latent's.
    """
    weights = np.asarray(shares, dtype=np.float64)
    assert (weights >= 0).all(), f"a share is negative: {shares}"
    assert weights.any(), f"no share is above 0: {shares}"
    keys = [np.random.SeedSequence(key(seed, start + row), spawn_key=LABEL_STREAM) for row in range(count)]
    uniform = np.array([np.random.default_rng(key).random() for key in keys])
    edges = np.cumsum(weights)
    # side="right" steps over the labels whose share is 0: their edge is the one before.
    return np.searchsorted(edges / edges[-1], uniform, side="right").astype(np.int64)
