from pathlib import Path

import numpy as np
import pytest

from tests.images import write_pngs
from training import folders
from training.data import preparation
from training.data.params import FolderSource, Prepare
from training.detectors import examples


def test_real_images_come_first_and_fakes_of_all_recipes_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pngs(tmp_path / "raw", 20)
    wanted = Prepare(FolderSource(str(tmp_path / "raw")), size=32, channels=3, minimum_images=5)
    info = preparation.prepare("cells", wanted, "numpy", "CC0", folders.prepared("cells"))
    for value, recipe in enumerate(("one", "two")):
        folders.samples("cells", recipe).mkdir(parents=True)
        fakes = np.full((4, 32, 32, 3), value, dtype=np.uint8)
        np.save(folders.samples("cells", recipe) / "train.npy", fakes)
    images, synthetic = examples.labelled("cells", "train", ["one", "two"])
    assert synthetic.sum() == 8
    assert (~synthetic[: info.counts["train"]]).all()
    assert (images[synthetic][:4] == 0).all()
    assert (images[synthetic][4:] == 1).all()


def test_classes_are_thinned_to_the_same_count() -> None:
    synthetic = np.arange(100) >= 70
    for most, expected in ((1000, 30), (10, 10)):
        rows = examples.balanced(synthetic, most, seed=0)
        assert len(set(rows)) == len(rows) == 2 * expected
        assert synthetic[rows].sum() == expected
