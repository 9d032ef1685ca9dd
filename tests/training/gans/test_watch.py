import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from tests.training.gans.small import DCGAN
from training.gans import geometry, watch
from training.gans.recipes import UNLABELLED, Trained
from training.gans.watch import Watch

REAL = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1), dtype=np.uint8)


class Noise(nn.Module):
    """Noise around grey, of a set strength."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength))

    def forward(self, latent: Tensor) -> Tensor:
        stream = torch.Generator().manual_seed(int(latent.abs().sum() * 1000))
        return (torch.rand(len(latent), 1, 32, 32, generator=stream) * 2 - 1) * self.strength


class NoiseAndMasks(Noise):
    """Noise of full strength, above masks that are of a disc or, of strength 1, of noise."""

    def forward(self, latent: Tensor) -> Tensor:
        stream = torch.Generator().manual_seed(int(latent.abs().sum() * 1000))
        images, masks = (torch.rand(len(latent), 1, 32, 32, generator=stream) * 2 - 1 for _ in range(2))
        disc = (torch.arange(32)[:, None] - 16) ** 2 + (torch.arange(32) - 16) ** 2 < 100
        return torch.cat([images, torch.where(disc, 1.0, -1.0).lerp(masks, self.strength)], dim=1)


def masked(strength: float) -> Trained:
    return Trained(NoiseAndMasks(strength), "noise", ImageSpec(32, 1), DCGAN, UNLABELLED)


def trained(strength: float) -> Trained:
    return Trained(Noise(strength), "noise", ImageSpec(32, 1), DCGAN, UNLABELLED)


def contrast_error(images: np.ndarray) -> float:
    return abs(float(images.std()) - 60)


def test_diversity_is_the_root_mean_square_difference_of_pairs() -> None:
    images = REAL[:6]
    pairs = [((images[i].astype(float) - images[j]) ** 2).mean() for i in range(6) for j in range(6) if i != j]
    assert watch.diversity(images) == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-5)


def test_a_look_leaves_a_grid_and_a_row_and_the_best_is_kept(tmp_path: Path) -> None:
    looking = Watch(tmp_path, REAL, 1, contrast_error)
    for images_seen, strength in ((100, 0.4), (200, 0.8), (300, 1.0)):
        assert looking.look(trained(strength), images_seen) is None
    rows = [json.loads(line) for line in (tmp_path / watch.LOOKS_FILE).read_text().splitlines()]
    assert [row["images"] for row in rows] == [100, 200, 300]
    assert rows[2]["diversity"] == pytest.approx(1, abs=0.1)
    assert rows[0]["diversity"] == pytest.approx(0.4, abs=0.05)
    assert looking.best.look.images == 200
    assert float(looking.best.weights["strength"]) == pytest.approx(0.8)
    assert looking.latest.images == 300
    assert sorted(path.name for path in (tmp_path / watch.GRIDS_FOLDER).iterdir())[0] == "00000100.png"


def test_masks_are_judged_as_images_are(tmp_path: Path) -> None:
    """Images of full diversity whose masks are all the same one are a collapse."""
    masks = np.random.default_rng(1).integers(0, 2, (40, 32, 32), dtype=np.uint8) * np.uint8(255)
    real = np.concatenate([REAL, geometry.distances(masks)[..., None]], axis=3)
    shown: list[np.ndarray] = []
    looking = Watch(tmp_path, real, 1, lambda samples: float(shown.append(samples) or len(shown)))
    assert looking.look(masked(1.0), 100) is None
    assert looking.latest.diversity == pytest.approx(1, abs=0.1)
    assert shown[0].shape == (watch.SAMPLES, 32, 32, 2)
    np.testing.assert_array_equal(shown[0][..., 1], geometry.distances(geometry.masks(shown[0][..., 1])))
    looking.look(masked(0.0), 200)
    assert looking.latest.diversity == 0
    assert looking.look(masked(0.0), 300).startswith("collapsed")


def test_a_generator_that_is_not_complete_is_looked_at_and_not_kept(tmp_path: Path) -> None:
    looking = Watch(tmp_path, REAL, 1, contrast_error)
    looking.look(trained(0.8), 100, complete=False)
    assert looking.best is None
    looking.look(trained(0.4), 200, complete=True)
    assert looking.best.look.images == 200


def test_a_distance_that_is_no_number_ends_the_training_and_is_no_best(tmp_path: Path) -> None:
    looking = Watch(tmp_path, REAL, 1, lambda _: float("nan"))
    assert "KID against the validation split is nan after 100 images" in str(looking.look(trained(0.5), 100))
    assert looking.best is None


def test_samples_that_no_longer_differ_are_a_collapse_at_the_second_look(tmp_path: Path) -> None:
    looking = Watch(tmp_path, REAL, 1, contrast_error)
    assert looking.look(trained(0.9), 100) is None
    assert looking.look(trained(0.05), 200) is None
    again = Watch(tmp_path, REAL, 1, contrast_error)
    again.load_state_dict(looking.state_dict())
    assert again.best.look.images == 100
    reason = again.look(trained(0.05), 300)
    assert reason.startswith("collapsed: 0.05 of the real images' diversity after 300 images")
    recovered = Watch(tmp_path, REAL, 1, contrast_error)
    recovered.load_state_dict(looking.state_dict())
    assert recovered.look(trained(0.9), 300) is None
    assert recovered.look(trained(0.05), 400) is None
