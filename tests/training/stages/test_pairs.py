"""From images with masks over the dual GAN to what its pairs are worth, at the smallest."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.images import png, write_pngs
from training import folders, tracking
from training.data import preparation
from training.data.params import FolderSource, MaskedFolderSource, Prepare
from training.gans import recipes
from training.gans.recipes import Trained
from training.params import PAIRED, ParamsError
from training.stages.pairs import pairs
from training.stages.sample import sample
from training.stages.train_gan import train_gan

ROOT = Path(__file__).parents[3]
SMALL = {
    "datasets": {
        "nuclei_stained": {"prepare": {"size": 32, "tiles": None}, "train_gan": {"images": 160, "width": 4}},
        "blood": {"prepare": {"size": 32}, "train_gan": {"images": 160, "width": 4, "conditional": False}},
    },
    "recipes": {PAIRED: {"batch_size": 8, "latent_size": 40, "log_every_images": 40, "look_every_images": 80}},
    "sample": {"train": 16, "validation": 16, "test": 16, "variants": 16},
    "segmentation": {
        "seeds": 2,
        "images": 64,
        "pairs": 24,
        "few_patients": [2],
        "width": 4,
        "batch_size": 8,
        "learning_rate": 0.01,
    },
}


def overlaid(document: dict, changes: dict) -> dict:
    return document | {
        key: overlaid(document[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright squares on noise with their masks, thirty patients."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "client", lambda: None)
    document = overlaid(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), SMALL)
    document["run"] = {"datasets": ["nuclei_stained", "blood"], "recipes": ["dcgan"], "pairs": ["nuclei_stained"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    for number in range(30):
        image, mask = random.integers(40, 90, (32, 32, 3), dtype=np.uint8), np.zeros((32, 32), np.uint8)
        top, left = random.integers(2, 20, 2)
        mask[top : top + 8, left : left + 8] = 255
        image[mask > 0] += 120
        (tmp_path / "raw" / "images" / f"p{number:02d}.png").write_bytes(png(image))
        (tmp_path / "raw" / "masks" / f"p{number:02d}.png").write_bytes(png(mask))
    wanted = Prepare(MaskedFolderSource("raw/images", "raw/masks"), size=32, channels=3, minimum_images=5)
    preparation.prepare("nuclei_stained", wanted, "numpy", "CC0", folders.prepared("nuclei_stained"))


def test_pairs_are_trained_sampled_and_measured() -> None:
    train_gan("nuclei_stained", PAIRED)
    sample("nuclei_stained", PAIRED)
    assert np.load(folders.samples("nuclei_stained", PAIRED) / "test.npy").shape == (16, 32, 32, 3)
    images, masks = Trained.load(folders.gan("nuclei_stained", PAIRED) / recipes.GENERATOR_FILE).pairs(0, 0, 4)
    assert images.shape == (4, 32, 32, 3)
    assert set(np.unique(masks)) <= {0, 255}

    pairs("nuclei_stained")
    out = folders.pairs("nuclei_stained")
    report = json.loads((out / tracking.METRICS).read_text(encoding="utf-8"))
    found = report["segmentation"]
    assert set(found["mixtures"]) == {
        "real",
        "synthetic",
        "real_and_synthetic",
        "2_patients",
        "2_patients_and_synthetic",
    }
    assert found["mixtures"]["real_and_synthetic"]["images"] == found["mixtures"]["real"]["images"] + 24
    assert found["test_patients"] == found["test_images"]
    assert set(report["masks"]) == {"area_share", "length_pixels", "thickness_pixels", "pieces", "branch_points"}
    assert (out / "figures" / "pairs.png").stat().st_size > 1000
    table = (out / "table.md").read_text(encoding="utf-8")
    f1 = found["mixtures"]["synthetic"]["f1"]
    assert f"{f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f})" in table
    assert "0.8877 and 0.8988" in table


def test_images_without_masks_are_refused() -> None:
    write_pngs(Path("plain"), 20)
    wanted = Prepare(FolderSource("plain"), size=32, channels=3, minimum_images=5)
    preparation.prepare("blood", wanted, "numpy", "CC0", folders.prepared("blood"))
    with pytest.raises(ParamsError, match="recipe dual needs masks, and dataset blood has none"):
        train_gan("blood", PAIRED)
