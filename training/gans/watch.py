"""Looks at a generator in training: what it makes of fixed noise, how good that is, and whether it has collapsed.

A look leaves a sample grid, a row of `looks.jsonl` and a snapshot of the generator. The generator of the look with the
lowest KID is kept. Of a recipe that draws masks, masks are judged as images are.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from contracts.imaging import grid
from training.gans.recipes import Trained

SEED = 0
SAMPLES = 256
GRID_COUNT = 64
GRID_COLUMNS = 8
LOOKS_FILE = "looks.jsonl"
GRIDS_FOLDER = "grids"
SNAPSHOTS_FOLDER = "snapshots"
COLLAPSED_DIVERSITY = 0.2
"""Of the real images': samples that have differed more, and now differ this little, are one image in variations."""
COLLAPSED_LOOKS = 2
"""Consecutive looks below that; a single one may be a swing."""


@dataclass(frozen=True)
class Look:
    """What one look found."""

    images: int
    """Training images seen."""
    kid: float
    """Mean over the weight-free spaces, against the validation split; of images and of masks, where there are any."""
    diversity: float
    """Of the samples, in units of the real training images' diversity; where there are masks, the lower of both."""


@dataclass
class Best:
    """The look with the lowest KID and its generator's weights, on the CPU."""

    look: Look
    weights: dict[str, Tensor]


def diversity(images: np.ndarray) -> float:
    """Root mean square difference of two different images, in grey levels, over uint8 images [N, H, W, C]."""
    return float(np.sqrt(2 * images.astype(np.float32).var(axis=0, ddof=1).mean()))


class Watch:
    """All looks of a training on images uint8 [N, H, W, C], those of masked recipes with distances as one channel more.

    `channels` are those of the images alone. `validate` maps generated images of the same form to their KID.
    """

    def __init__(self, work: Path, real: np.ndarray, channels: int, validate: Callable[[np.ndarray], float]) -> None:
        self.work, self.channels, self.validate = work, channels, validate
        self.real_diversity = self._diversity(np.asarray(real[:: max(1, len(real) // SAMPLES)]))
        self.latest = Look(0, float("inf"), 1.0)
        self.best: Best | None = None
        self.highest_diversity = 0.0
        self.low = 0

    def look(self, trained: Trained, images_seen: int, complete: bool = True) -> str | None:
        """Look at a generator, which may be kept as the best if it is `complete`.

        Returns the reason why training should end, or None.
        """
        samples = trained.like_training(SEED, 0, SAMPLES)
        _save_grid(samples[:GRID_COUNT, ..., : self.channels], self.work / GRIDS_FOLDER / f"{images_seen:08d}.png")
        snapshot = self.work / SNAPSHOTS_FOLDER / f"{images_seen:08d}.pt"
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        trained.save(snapshot)
        shares = [found / real for found, real in zip(self._diversity(samples), self.real_diversity, strict=True)]
        found = Look(images_seen, self.validate(samples), min(shares))
        with (self.work / LOOKS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")
        if complete and np.isfinite(found.kid) and (self.best is None or found.kid < self.best.look.kid):
            weights = {name: value.detach().cpu().clone() for name, value in trained.generator.state_dict().items()}
            self.best = Best(found, weights)
        self.latest = found
        if not np.isfinite(found.kid):
            return f"the KID against the validation split is {found.kid} after {images_seen} images"
        self.highest_diversity = max(self.highest_diversity, found.diversity)
        fallen = found.diversity < COLLAPSED_DIVERSITY <= self.highest_diversity
        self.low = self.low + 1 if fallen else 0
        if self.low < COLLAPSED_LOOKS:
            return None
        return (
            f"collapsed: {found.diversity:.2f} of the real images' diversity after {images_seen} images, "
            f"below {COLLAPSED_DIVERSITY} for {self.low} looks"
        )

    def _diversity(self, images: np.ndarray) -> list[float]:
        """Of the images, and of the masks where there are any."""
        parts = (images[..., : self.channels], images[..., self.channels :])
        return [diversity(part) for part in parts if part.shape[3]]

    def state_dict(self) -> dict[str, Any]:
        best = None if self.best is None else {"look": asdict(self.best.look), "weights": self.best.weights}
        return {
            "latest": asdict(self.latest),
            "best": best,
            "highest_diversity": self.highest_diversity,
            "low": self.low,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        best = state["best"]
        self.best = None if best is None else Best(Look(**best["look"]), best["weights"])
        self.latest = Look(**state["latest"])
        self.highest_diversity, self.low = state["highest_diversity"], state["low"]


def _save_grid(samples: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = grid(samples, GRID_COLUMNS)
    Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(path)
