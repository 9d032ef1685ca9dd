"""How far statistics of synthetic pairs lie from those of real ones, and how varied both sets are.

Guibas et al. (arXiv 1709.01872) compare real and synthetic sets by the Kullback-Leibler divergence of their histograms.
Here every quantity has one: grey levels, the image statistics that drift is measured on, and what `morphology` finds of
masks. Beside each stands the floor: real held-out images in the place of synthetic ones.

A divergence of two samples shrinks as they grow, whatever they are drawn from. So all sets are cut to the size of the
smallest at random, again and again, and means are given: then divergence and floor can be compared.
"""

import numpy as np

from contracts.statistics import image_statistics
from training.pairs.morphology import Morphology

GREY_LEVELS = "grey levels"
LEVEL_BINS = 32
VALUE_BINS = 10
SMOOTHING = 0.5
"""Counts added to every bin (Jeffreys), so that an empty one is unlikely and not impossible."""
REPEATS = 20
"""Times that sets are cut to the size of the smallest."""
BATCH = 256
DISTANT_PAIRS = 2000


def quantities(images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared, by name, of images uint8 [N, H, W, C] and masks uint8 [N, H, W] of 0 and 255.

    `grey levels` int64 [N, 32]: pixels in bins of 8 levels; all others float [N], not a number where an image has none.
    """
    found = {f"mask {name.replace('_', ' ')}": values for name, values in vars(Morphology.of(masks)).items()}
    return {GREY_LEVELS: _grey_levels(images)} | image_statistics(np.asarray(images)) | found


def report(
    train: dict[str, np.ndarray], test: dict[str, np.ndarray], synthetic: dict[str, np.ndarray], seed: int
) -> dict[str, dict[str, float]]:
    """Of every one of the `quantities`, the divergence of training images from synthetic ones, and the floor.

    In nats, means over random parts of all three sets of the size of the smallest.
    """
    sets = (train, synthetic, test)
    sizes = [len(found[GREY_LEVELS]) for found in sets]
    random = np.random.default_rng(seed)
    parts = [[random.permutation(size)[: min(sizes)] for size in sizes] for _ in range(REPEATS)]
    numbers = {}
    for name in train:
        binned = [found[name] for found in sets]
        if name != GREY_LEVELS:
            edges = bin_edges(train[name])
            binned = [_one_hot(values, edges) for values in binned]
        drawn = [[rows[part].sum(axis=0) for rows, part in zip(binned, chosen, strict=True)] for chosen in parts]
        numbers[name] = {
            "synthetic": float(np.mean([divergence(real, other) for real, other, _ in drawn])),
            "floor": float(np.mean([divergence(real, held_out) for real, _, held_out in drawn])),
        }
    return numbers


def divergence(real: np.ndarray, other: np.ndarray) -> float:
    """Kullback-Leibler divergence in nats of counts [bins] from others, half a count added to each."""
    one, two = ((counts + SMOOTHING) / (counts + SMOOTHING).sum() for counts in (real, other))
    return float((one * np.log(one / two)).sum())


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges float [bins - 1] between the bins of a quantity of training images float [N]; a value on one lies above.

    Where there are few different values, each has a bin, and so has every gap between two; else bins end at deciles.
    What no training image reaches has bins of its own, below and above.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    levels = np.unique(finite)
    if len(levels) > VALUE_BINS:
        levels = np.quantile(finite, np.linspace(0, 1, VALUE_BINS + 1))
        return np.unique(np.append(levels[:-1], np.nextafter(levels[-1], np.inf)))
    return np.unique([levels, np.nextafter(levels, np.inf)])


def diversity(images: np.ndarray, seed: int) -> float:
    """Mean root mean square difference in grey levels of pairs of images uint8 [N, ...] drawn at random."""
    random = np.random.default_rng(seed)
    first = random.integers(len(images), size=DISTANT_PAIRS)
    second = (first + random.integers(1, len(images), size=DISTANT_PAIRS)) % len(images)
    flat = np.asarray(images).reshape(len(images), -1)
    return float(
        np.mean(
            [
                np.sqrt(np.mean((flat[one].astype(np.float32) - flat[other]) ** 2))
                for one, other in zip(first, second, strict=True)
            ]
        )
    )


def varied(**images: np.ndarray) -> dict[str, float]:
    """`diversity` of several sets, by name."""
    return {name: diversity(found, seed=0) for name, found in images.items()}


def _grey_levels(images: np.ndarray) -> np.ndarray:
    """int64 [N, LEVEL_BINS]: how many values of each image uint8 [N, ...] lie in each of even bins."""
    counts = np.empty((len(images), LEVEL_BINS), dtype=np.int64)
    for start in range(0, len(images), BATCH):
        few = images[start : start + BATCH].reshape(-1, images[0].size)
        bins = few // np.uint8(256 // LEVEL_BINS) + LEVEL_BINS * np.arange(len(few))[:, None]
        found = np.bincount(bins.ravel(), minlength=len(few) * LEVEL_BINS)
        counts[start : start + BATCH] = found.reshape(-1, LEVEL_BINS)
    return counts


def _one_hot(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """int64 [N, bins]: a one in the bin of each value float [N]; none for what is not a number."""
    bins = np.searchsorted(edges, values, side="right")
    return np.asarray(np.eye(len(edges) + 1, dtype=np.int64)[bins] * np.isfinite(values)[:, None])
