from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.training.detectors.traces import smooth_images
from training.detectors import corruptions
from training.evaluation import figures, localisation

SYNTHETIC = np.arange(200) >= 100
CURVES = {"linear_evidence": (SYNTHETIC, np.linspace(0, 1, 200))}
IMAGES = smooth_images(60, 32, 3, seed=0)
ROWS = [{"images": float(seen), "discriminator_loss": 1.0 / (1 + seen), "generator_loss": 2.0} for seen in range(5)]
LOOKS = [{"images": float(seen), "kid": 1.0 / (1 + seen) - 0.3, "diversity": 0.8} for seen in range(5)]
MAPS = np.random.default_rng(0).normal(0, 1, (60, 4, 4))
WHOLE = np.zeros((60, 32, 32))
REGIONS = localisation.regions(60, 32, 32, np.random.default_rng(0))
AFTER = {name: 0.5 + 0.02 * place for place, name in enumerate(corruptions.FIXED)}

DRAWINGS: dict[str, Callable[[Path], None]] = {
    "real_beside_synthetic": lambda path: figures.real_beside_synthetic(IMAGES, IMAGES[::-1], path),
    "grey": lambda path: figures.real_beside_synthetic(IMAGES[..., :1], IMAGES[..., :1], path),
    "closest_pairs": lambda path: figures.closest_pairs(IMAGES, IMAGES, np.arange(60.0), path),
    "roc": lambda path: figures.roc(CURVES, path),
    "reliability": lambda path: figures.reliability_diagram(CURVES, path),
    "matrix": lambda path: figures.matrix({"ihc": {"retina": 0.9}, "retina": {"ihc": 0.4, "none": 0.1}}, "AUC", path),
    "looks": lambda path: figures.looks({"dcgan": LOOKS}, path),
    "latent_walk": lambda path: figures.latent_walk(IMAGES[:20], 10, path),
    "heatmaps": lambda path: figures.heatmaps(IMAGES[:3], MAPS, WHOLE, path),
    "heatmaps_of_patched_images": lambda path: figures.heatmaps(IMAGES[..., :1], MAPS, REGIONS, path),
    "robustness": lambda path: figures.robustness({"linear_evidence": 0.97}, {"linear_evidence": AFTER}, path),
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


def test_heat_for_synthetic_is_red_for_real_blue_and_regions_are_outlined(tmp_path: Path) -> None:
    grey = np.full((1, 32, 32, 3), 128, dtype=np.uint8)

    def drawn(level: float, masks: np.ndarray) -> np.ndarray:
        figures.heatmaps(grey, np.full((1, 4, 4), level), masks, tmp_path / "heat.png")
        return np.asarray(Image.open(tmp_path / "heat.png").convert("RGB")).astype(int)

    hot, cold, outlined = drawn(1.0, WHOLE), drawn(-1.0, WHOLE), drawn(1.0, REGIONS)
    redder = (hot[..., 0] - hot[..., 2]) - (cold[..., 0] - cold[..., 2])
    assert redder.max() > 100
    assert redder.min() >= 0
    assert 0.001 < (outlined != hot).any(axis=2).mean() < 0.2


def test_the_curves_of_robustness_go_where_the_numbers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    figures.robustness({"linear_evidence": 0.97}, {"linear_evidence": AFTER}, Path("robustness.png"))
    found: dict[str, float] = {}
    for (name, family), axes in zip(corruptions.FAMILIES.items(), kept[0].axes, strict=False):
        strengths, aucs = (np.asarray(values) for values in axes.lines[0].get_data())
        assert (np.diff(strengths) > 0).all()
        drawn = {float(strength): float(auc) for strength, auc in zip(strengths, aucs, strict=True)}
        assert drawn.pop(family.neutral) == 0.97
        found |= {f"{name}_{strength:g}": auc for strength, auc in drawn.items()}
    assert found == AFTER
