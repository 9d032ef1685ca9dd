"""Real and generated images side by side: what detectors learn from and are measured on."""

import numpy as np

from training import folders
from training.data import prepared


def labelled(dataset: str, split: str, recipes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated images of a split, uint8 [N, H, W, C], and which are synthetic, bool [N]."""
    real = prepared.load(folders.prepared(dataset), split).images
    fakes = [np.load(folders.samples(dataset, recipe) / f"{split}.npy") for recipe in recipes]
    images = np.concatenate([real, *fakes])
    return images, np.arange(len(images)) >= len(real)


def balanced(synthetic: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Row numbers of equally many real and synthetic images, at most `most` of each, in random order."""
    random = np.random.default_rng(seed)
    count = min(most, int(synthetic.sum()), int((~synthetic).sum()))
    rows = [random.choice(np.flatnonzero(chosen), count, replace=False) for chosen in (synthetic, ~synthetic)]
    return random.permutation(np.concatenate(rows))
