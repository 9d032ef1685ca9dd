from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.detectors.traces import smooth_images
from training.evaluation import figures

SYNTHETIC = np.arange(200) >= 100
CURVES = {"linear_evidence": (SYNTHETIC, np.linspace(0, 1, 200))}
IMAGES = smooth_images(60, 32, 3, seed=0)
ROWS = [{"images": float(seen), "discriminator_loss": 1.0 / (1 + seen), "generator_loss": 2.0} for seen in range(5)]
LOOKS = [{"images": float(seen), "kid": 1.0 / (1 + seen) - 0.3, "diversity": 0.8} for seen in range(5)]

DRAWINGS: dict[str, Callable[[Path], None]] = {
    "real_beside_synthetic": lambda path: figures.real_beside_synthetic(IMAGES, IMAGES[::-1], path),
    "grey": lambda path: figures.real_beside_synthetic(IMAGES[..., :1], IMAGES[..., :1], path),
    "closest_pairs": lambda path: figures.closest_pairs(IMAGES, IMAGES, np.arange(60.0), path),
    "roc": lambda path: figures.roc(CURVES, path),
    "reliability": lambda path: figures.reliability_diagram(CURVES, path),
    "looks": lambda path: figures.looks({"dcgan": LOOKS}, path),
    "latent_walk": lambda path: figures.latent_walk(IMAGES[:20], 10, path),
    "losses": lambda path: figures.losses({"dcgan": ROWS}, path),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_drawn_and_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    one, again = tmp_path / "one.png", tmp_path / "deeper" / "again.png"
    DRAWINGS[name](one)
    DRAWINGS[name](again)
    assert one.read_bytes() == again.read_bytes()
    pixels = np.asarray(Image.open(one).convert("L"))
    assert min(pixels.shape) > 200
    assert pixels.std() > 5
