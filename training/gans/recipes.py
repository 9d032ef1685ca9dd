"""The GAN recipes by name, and trained generators on disk.

A recipe is one file: a subclass of `Gan`, networks and losses together, and `build(image, settings, seed)`.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from contracts.imaging import ImageSpec, quantise
from contracts.latents import latents
from training.gans import dcgan
from training.gans.gan import Gan
from training.params import Recipe
from training.reading import ParamsError

RECIPES: dict[str, Callable[[ImageSpec, Recipe, int], Gan]] = {"dcgan": dcgan.build}

GENERATOR_FILE = "generator.pt"
SAMPLE_BATCH = 64


def build(recipe: str, image: ImageSpec, settings: Recipe, seed: int) -> Gan:
    """A freshly initialised GAN of a recipe.

    Raises:
        ParamsError: for a recipe that does not exist, listing those that do.
    """
    if recipe not in RECIPES:
        raise ParamsError(f"recipe {recipe!r} is unknown; valid: {', '.join(RECIPES)}")
    return RECIPES[recipe](image, settings, seed)


def save_generator(path: Path, generator: nn.Module, recipe: str, image: ImageSpec, settings: Recipe) -> None:
    """Write a trained generator with all that is needed to build it again."""
    torch.save(
        {
            "recipe": recipe,
            "image": asdict(image),
            "settings": asdict(settings),
            "weights": {name: value.cpu() for name, value in generator.state_dict().items()},
        },
        path,
    )


def load_generator(path: Path) -> tuple[nn.Module, str, Recipe]:
    """A trained generator in evaluation mode, its recipe's name and settings."""
    stored = torch.load(path, weights_only=True)
    settings = Recipe(**stored["settings"])
    generator = build(stored["recipe"], ImageSpec(**stored["image"]), settings, seed=0).generator
    generator.load_state_dict(stored["weights"])
    return generator.eval(), stored["recipe"], settings


@torch.inference_mode()
def generate(generator: nn.Module, latent_size: int, seed: int, start: int, count: int) -> np.ndarray:
    """Images uint8 [count, H, W, C] with the indexes from `start` of `seed`, as the service would make them."""
    device = next(generator.parameters()).device
    batches = []
    for first in range(start, start + count, SAMPLE_BATCH):
        noise = latents(seed, first, min(SAMPLE_BATCH, start + count - first), latent_size)
        images = generator(torch.from_numpy(noise).to(device)).float().permute(0, 2, 3, 1)
        batches.append(quantise(images.cpu().numpy()))
    return np.concatenate(batches)
