"""From images with masks over the dual GAN to what its pairs are worth, at the smallest."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.images import png, write_pngs
from training import folders, tracking
from training.data import preparation, prepared
from training.data.params import FolderSource, MaskedFolderSource, Prepare, SkimageSource, Tiles, VesselMasks
from training.evaluation import fidelity
from training.evaluation.detection import MINIMUM_PATIENTS
from training.gans import geometry, recipes, watch
from training.gans.recipes import Trained
from training.params import PAIRED, ParamsError
from training.stages import pairs as stage
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


def kid_of_images_and_masks() -> float:
    """Of the generator that was kept: the mean of both."""
    trained = Trained.load(folders.gan("nuclei_stained", PAIRED) / recipes.GENERATOR_FILE)
    images, masks = trained.pairs(watch.SEED, 0, watch.SAMPLES)
    train, held_out = (prepared.load(folders.prepared("nuclei_stained"), split) for split in ("train", "validation"))
    of_images = fidelity.validator(train.images, held_out.images)(images)
    soft = [geometry.distances(found)[..., None] for found in (train.masks, held_out.masks, masks)]
    return (of_images + fidelity.validator(soft[0], soft[1])(soft[2])) / 2


def test_pairs_are_trained_sampled_and_measured() -> None:
    train_gan("nuclei_stained", PAIRED)
    sample("nuclei_stained", PAIRED)
    assert np.load(folders.samples("nuclei_stained", PAIRED) / "test.npy").shape == (16, 32, 32, 3)
    numbers = json.loads((folders.gan("nuclei_stained", PAIRED) / tracking.METRICS).read_text(encoding="utf-8"))
    assert numbers["kid_against_validation"] == pytest.approx(kid_of_images_and_masks(), rel=1e-3)
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
    assert found["test_groups"] == found["test_images"]
    assert set(report["masks"]) == {"area_share", "length_pixels", "thickness_pixels", "pieces", "branch_points"}
    assert (out / "figures" / "pairs.png").stat().st_size > 1000
    table = (out / "table.md").read_text(encoding="utf-8")
    f1 = found["mixtures"]["synthetic"]["f1"]
    assert f"{f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f})" in table
    assert "Masks show nuclei, as given with the images." in table
    unit = "patients" if found["test_images"] >= MINIMUM_PATIENTS else "images"
    assert found["intervals_resample"] == unit
    assert f"resample seeds and {unit}." in table
    assert "the generator saw all training patients" in table
    assert "0.8877" not in table
    copies = report["mask_copies"]
    assert copies["samples"] == 24
    assert f"Of 24 drawn masks {copies['exact_copies']} repeat one of training" in table


def test_masks_that_repeat_training_masks_are_counted() -> None:
    rows, columns = np.mgrid[:32, :32]
    random = np.random.default_rng(0)
    centres = random.integers(6, 26, (120, 2))
    shapes = np.stack([(rows - a) ** 2 + (columns - b) ** 2 < 30 for a, b in centres]) & (
        random.random((120, 32, 32)) < 0.7
    )
    masks = shapes.astype(np.uint8) * 255
    train, held_out, drawn = masks[:60], masks[60:90], np.concatenate([masks[90:], masks[:2], masks[3:4, :, ::-1]])
    assert stage._mask_copies(drawn, train, held_out, ["horizontal"])["exact_copies"] == 3
    assert stage._mask_copies(drawn, train, held_out, [])["exact_copies"] == 2


def test_where_masks_come_from_is_said() -> None:
    source = SkimageSource("retina")
    drawn = Prepare(source, size=32, channels=3, tiles=Tiles(32, 8), masks=VesselMasks())
    assert stage.masks_from(drawn) == "vessels as `prepare.masks` draws them, which is no ground truth"
    given = Prepare(MaskedFolderSource("a", "b", shows="vessels"), size=32, channels=3)
    assert stage.masks_from(given) == "vessels, as given with the images"


def test_published_figures_stand_beside_given_vessels_alone() -> None:
    found = {"ratio": {"value": 0.9, "low": 0.8, "high": 1.0}}
    assert stage._told_ratio(found) == "F1 from synthetic pairs by F1 from real ones: 0.900 (0.800 to 1.000)."
    assert "0.8877 and 0.8988" in stage._told_ratio(found | {"published": stage.PUBLISHED})
    assert "no ratio" in stage._told_ratio({"ratio": None})


def test_images_without_masks_are_refused() -> None:
    write_pngs(Path("plain"), 20)
    wanted = Prepare(FolderSource("plain"), size=32, channels=3, minimum_images=5)
    preparation.prepare("blood", wanted, "numpy", "CC0", folders.prepared("blood"))
    with pytest.raises(ParamsError, match="recipe dual needs masks, and dataset blood has none"):
        train_gan("blood", PAIRED)
