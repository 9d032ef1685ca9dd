from pathlib import Path

import numpy as np
import pytest

from tests.images import write_pngs
from training import folders
from training.data import preparation
from training.data.params import FolderSource, Prepare
from training.detectors import examples
from training.detectors.examples import REAL

RECIPES = ["one", "two"]
SAMPLES = 12


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A prepared set and samples of two recipes, all pixels the recipe's number; their variants are 10 brighter."""
    monkeypatch.chdir(tmp_path)
    write_pngs(tmp_path / "raw", 20)
    wanted = Prepare(FolderSource(str(tmp_path / "raw")), size=32, channels=3, minimum_images=5)
    info = preparation.prepare("cells", wanted, "numpy", "CC0", folders.prepared("cells"))
    for value, recipe in enumerate(RECIPES):
        folder = folders.samples("cells", recipe)
        folder.mkdir(parents=True)
        fakes = np.full((SAMPLES, 32, 32, 3), value, dtype=np.uint8)
        np.save(folder / "test.npy", fakes)
        np.save(folder / "train.npy", fakes)
        np.save(folders.variants("cells", recipe), fakes + np.uint8(10))
    return info.counts


def darkened(images: np.ndarray, seed: int) -> np.ndarray:
    return images // 2 + np.uint8(seed)


def test_held_out_are_all_real_images_and_every_recipes_samples(counts: dict[str, int]) -> None:
    found = examples.held_out("cells", "test", RECIPES)
    assert [int((found.origins == name).sum()) for name in (REAL, *RECIPES)] == [counts["test"], SAMPLES, SAMPLES]
    assert (found.only("two").images == 1).all()
    assert found.synthetic.sum() == 2 * SAMPLES
    assert not found.only(REAL).synthetic.any()


def test_what_teaches_holds_variants_and_forgeries_and_no_more_than_asked(counts: dict[str, int]) -> None:
    most = 8
    found = examples.teaching("cells", RECIPES, {"dark": darkened}, most, seed=5)
    assert [int((found.origins == name).sum()) for name in (REAL, *RECIPES, "dark")] == [most, 4, 4, 4]
    assert set(np.unique(examples.teaching("cells", RECIPES, {}, 400, seed=5).only("one").images)) == {0, 10}
    real = {image.tobytes() for image in darkened(found.only(REAL).images, 5)}
    assert {image.tobytes() for image in found.only("dark").images} <= real
