"""Real and synthetic images side by side, each with what made it: what detectors learn from and are measured on."""

from dataclasses import dataclass

import numpy as np

from training import folders
from training.data import prepared
from training.detectors.forgeries import Forgery

REAL = "real"
FORGED_SHARE = 0.5
"""Forgeries teach beside the generators' own images, half as many at most."""


@dataclass(frozen=True)
class Examples:
    """`images` uint8 [N, H, W, C] and their `origins` str [N]: `real`, a recipe or a forgery."""

    images: np.ndarray
    origins: np.ndarray

    @property
    def synthetic(self) -> np.ndarray:
        """Which are not real, bool [N]."""
        return np.asarray(self.origins != REAL)

    def rows(self, chosen: np.ndarray) -> "Examples":
        """Those of a mask or of row numbers."""
        return Examples(self.images[chosen], self.origins[chosen])

    def only(self, *origins: str) -> "Examples":
        """Those of these origins."""
        return self.rows(np.isin(self.origins, origins))

    @staticmethod
    def joined(parts: list["Examples"]) -> "Examples":
        """Several as one."""
        return Examples(
            np.concatenate([part.images for part in parts]), np.concatenate([part.origins for part in parts])
        )


def held_out(dataset: str, split: str, recipes: list[str]) -> Examples:
    """All real images of a split, then the samples that every recipe's generator made for it."""
    real = np.asarray(prepared.load(folders.prepared(dataset), split).images)
    fakes = [_of(recipe, np.load(folders.samples(dataset, recipe) / f"{split}.npy")) for recipe in recipes]
    return Examples.joined([_of(REAL, real), *fakes])


def teaching(dataset: str, recipes: list[str], forgers: dict[str, Forgery], most: int, seed: int) -> Examples:
    """What detectors are trained on: at most `most` real training images, and at most as many of generators.

    Those are evenly of all recipes, each with its variants; besides, all forgers forge real images, together at most
    half of `most`.
    """
    random = np.random.default_rng(seed)
    real = _thinned(np.asarray(prepared.load(folders.prepared(dataset), "train").images), most, random)
    parts = [_of(REAL, real)]
    for recipe in recipes:
        own = np.load(folders.samples(dataset, recipe) / "train.npy", mmap_mode="r")
        variants = np.load(folders.variants(dataset, recipe), mmap_mode="r")
        share = max(2, most // len(recipes))
        kept = share * len(own) // (len(own) + len(variants))
        fakes = np.concatenate([_thinned(own, kept, random), _thinned(variants, share - kept, random)])
        parts.append(_of(recipe, fakes))
    share = max(1, int(most * FORGED_SHARE) // max(1, len(forgers)))
    for number, (name, forge) in enumerate(forgers.items()):
        parts.append(_of(name, forge(_thinned(real, share, random), seed + number)))
    return Examples.joined(parts)


def _of(origin: str, images: np.ndarray) -> Examples:
    return Examples(images, np.full(len(images), origin))


def _thinned(images: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return np.asarray(images[np.sort(random.permutation(len(images))[:most])])
