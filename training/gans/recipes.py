"""The GAN recipes by name, and trained generators on disk.

A recipe is one file: a subclass of `Gan`, networks and losses together, made of (image, settings, classes).
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from contracts import latents
from contracts.imaging import ImageSpec, quantise
from training.gans import geometry
from training.gans.dcgan import Dcgan
from training.gans.dcgan_ada import DcganAda
from training.gans.dcgan_grain import DcganGrain
from training.gans.dual import Dual
from training.gans.gan import Gan
from training.params import Recipe
from training.reading import ParamsError

RECIPES: dict[str, type[Gan]] = {
    "dcgan": Dcgan,
    "dcgan_ada": DcganAda,
    "dcgan_grain": DcganGrain,
    "dual": Dual,
}

GENERATOR_FILE = "generator.pt"
SAMPLE_BATCH = 64


@dataclass(frozen=True)
class Labels:
    """The classes of a conditional generator, and each one's share of the training images; both empty without."""

    names: list[str]
    shares: list[float]


UNLABELLED = Labels([], [])


@dataclass(frozen=True)
class Trained:
    """A generator in evaluation mode and what is needed to use it or to build it again."""

    generator: nn.Module
    recipe: str
    image: ImageSpec
    settings: Recipe
    labels: Labels

    def generate(self, seed: int, start: int, count: int, truncation: float = 1.0) -> np.ndarray:
        """Images uint8 [count, H, W, C] with the indexes from `start` of `seed`, as the service would make them.

        A conditional generator draws the labels that `labels_of` names. `truncation` in [0, 1] shrinks the latents.
        """
        return self._drawn(seed, start, count, truncation)[..., : self.image.channels]

    def pairs(self, seed: int, start: int, count: int, truncation: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """The same images with their masks uint8 [count, H, W] of 0 and 255, of a recipe that draws masks."""
        drawn = self._drawn(seed, start, count, truncation)
        return drawn[..., : self.image.channels], geometry.masks(drawn[..., self.image.channels])

    def like_training(self, seed: int, start: int, count: int) -> np.ndarray:
        """The same images uint8 [count, H, W, C], and of a recipe that draws masks their distances as one more channel.

        As training images have them: the distances are those of the masks, not what the generator drew of them.
        """
        drawn = self._drawn(seed, start, count, truncation=1.0)
        if drawn.shape[3] > self.image.channels:
            drawn[..., -1] = geometry.distances(geometry.masks(drawn[..., -1]))
        return drawn

    @torch.inference_mode()
    def _drawn(self, seed: int, start: int, count: int, truncation: float) -> np.ndarray:
        """All channels that the generator draws, uint8."""
        device = next(self.generator.parameters()).device
        batches = []
        for first in range(start, start + count, SAMPLE_BATCH):
            size = min(SAMPLE_BATCH, start + count - first)
            drawn = latents.latents(seed, first, size, self.settings.latent_size) * np.float32(truncation)
            noise = torch.from_numpy(drawn).to(device)
            label = self.labels_of(seed, first, size)
            inputs = (noise,) if label is None else (noise, torch.from_numpy(label).to(device))
            images = self.generator(*inputs).float().permute(0, 2, 3, 1)
            batches.append(quantise(images.cpu().numpy()))
        return np.concatenate(batches)

    @torch.inference_mode()
    def walk(self, seed: int, walks: int, steps: int) -> np.ndarray:
        """Images uint8 [walks * steps, H, W, C] on the way between two latents, walk after walk.

        Along great circles (White, arXiv 1609.04468): all latents on the way are as long as those that training drew.
        A conditional generator keeps each walk's label.
        """
        ends = latents.latents(seed, 0, 2 * walks, self.settings.latent_size).reshape(walks, 2, -1)
        labels = self.labels_of(seed, 0, walks)
        way = np.concatenate([_great_circle(first, last, steps) for first, last in ends])
        device = next(self.generator.parameters()).device
        inputs = [torch.from_numpy(way).to(device)]
        if labels is not None:
            inputs.append(torch.from_numpy(np.repeat(labels, steps)).to(device))
        drawn = self.generator(*inputs).float().permute(0, 2, 3, 1).cpu().numpy()
        return quantise(drawn)[..., : self.image.channels]

    def labels_of(self, seed: int, start: int, count: int) -> np.ndarray | None:
        """Labels int64 [count] of those images, drawn as often as training had them; None where there are none."""
        return latents.labels(seed, start, count, self.labels.shares) if self.labels.names else None

    def to(self, device: torch.device) -> "Trained":
        """The same on another device."""
        return replace(self, generator=self.generator.to(device))

    def save(self, path: Path) -> None:
        torch.save(
            {
                "recipe": self.recipe,
                "image": asdict(self.image),
                "settings": asdict(self.settings),
                "labels": asdict(self.labels),
                "weights": {name: value.cpu() for name, value in self.generator.state_dict().items()},
            },
            path,
        )

    @staticmethod
    def load(path: Path) -> "Trained":
        stored = torch.load(path, weights_only=True, map_location="cpu")
        image, settings = ImageSpec(**stored["image"]), Recipe(**stored["settings"])
        labels = Labels(**stored["labels"])
        generator = build(stored["recipe"], image, settings, seed=0, classes=len(labels.names)).generator
        generator.load_state_dict(stored["weights"])
        return Trained(generator.eval(), stored["recipe"], image, settings, labels)


def _great_circle(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """float32 [steps, latent_size], from the first latent to the last."""
    cosine = float(first @ last / np.linalg.norm(first) / np.linalg.norm(last))
    angle = np.arccos(np.clip(cosine, -1, 1))
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    way = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * last) / np.sin(angle)
    return np.asarray(way, dtype=np.float32)


def build(recipe: str, image: ImageSpec, settings: Recipe, seed: int, classes: int = 0) -> Gan:
    """A freshly initialised GAN of a recipe, conditional with `classes`; the same seed gives the same weights.

    Raises:
        ParamsError: for a recipe that does not exist, listing those that do, or that lacks a setting.
    """
    if recipe not in RECIPES:
        raise ParamsError(f"recipe {recipe!r} is unknown; valid: {', '.join(RECIPES)}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RECIPES[recipe](image, settings, classes)
