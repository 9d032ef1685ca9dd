"""Settings of the smallest recipes, for every test that trains or builds a GAN."""

import dataclasses
from typing import Any

from training.params import Recipe

DCGAN = Recipe(
    latent_size=8,
    width=4,
    batch_size=8,
    learning_rate=2e-4,
    beta1=0.5,
    checkpoint_every_seconds=10_000,
    look_every_images=64,
    log_every_images=40,
    keep="last",
)
DCGAN_ADA = dataclasses.replace(
    DCGAN, learning_rate=2e-3, keep="best", averaging_halflife_images=64, augmentation_ramp_images=80
)


def changed(settings: Recipe, **changes: Any) -> Recipe:
    """The settings with some of them changed."""
    return dataclasses.replace(settings, **changes)
