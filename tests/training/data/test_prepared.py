from pathlib import Path

import numpy as np
import pytest

from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec
from tests.images import speckle
from training.data import prepared
from training.data.items import LeftOut, Pixels
from training.data.prepared import Card, Row, Spool
from training.data.tiles import Box

IMAGE = ImageSpec(32, 3, tile_side=48)
ROWS = [
    Row('a, with "quotes".png', "Doe", "sick", "0" * 64, Box(3, 4, 48, 48)),
    Row("b\n.png", "Roe", None, "1" * 64),
    Row("ç.png", "Roe", "well", "2" * 64),
    Row("d.png", "Poe", "sick", "3" * 64),
]
SPLITS = ["train", "test", "test", "validation"]
LEFT_OUT = [LeftOut("e.png", "broken_image", "no, broken"), LeftOut("f.png", "little_foreground", "x", images=7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    with prepared.staged(folder) as staging:
        spool = Spool(staging, IMAGE, has_masks=True)
        for number in range(4):
            spool.append(Pixels(speckle(number, 32, 32), np.full((32, 32), number, dtype=np.uint8)))
        card = Card("cells", IMAGE, "folder", "here", "CC0", "by hand")
        prepared.write(staging, card, ROWS, SPLITS, spool, LEFT_OUT)
        spool.discard()
    return folder


def test_what_is_written_is_read(folder: Path) -> None:
    info = prepared.read_dataset(folder)
    assert (info.name, info.image, info.labels, info.has_masks) == ("cells", IMAGE, ["sick", "well"], True)
    assert info.counts == {"train": 1, "validation": 1, "test": 2}
    assert info.patients == {"train": 1, "validation": 1, "test": 1}
    assert info.left_out == {"broken_image": 1, "little_foreground": 7}
    assert prepared.read_left_out(folder) == LEFT_OUT
    test = prepared.load(folder, "test")
    assert np.array_equal(test.images, np.stack([speckle(1, 32, 32), speckle(2, 32, 32)]))
    assert test.masks is not None
    assert test.masks[:, 0, 0].tolist() == [1, 2]
    assert test.labels.tolist() == [-1, 1]
    assert test.rows == ROWS[1:3]
    assert (test.patients, [row.sha256 for row in test.rows]) == (["Roe", "Roe"], ["1" * 64, "2" * 64])
    assert prepared.load(folder, "train").rows == ROWS[:1]


def test_arrays_are_memory_maps_that_cannot_be_written(folder: Path) -> None:
    images = prepared.load(folder, "train").images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_nothing_but_the_dataset_stays(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        *("dataset.json", "left_out.csv", "test", "train", "validation")
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["cells"]


def test_what_is_not_prepared_names_the_stage(folder: Path) -> None:
    again = r"run `python -m training\.stages\.prepare"
    with pytest.raises(VerisynthError, match=f"holds no prepared dataset; {again} none"):
        prepared.load(folder.with_name("none"), "train")
    with pytest.raises(VerisynthError, match="valid: train, validation, test"):
        prepared.load(folder, "val")
    (folder / "train" / "images.npy").write_bytes(b"altered")
    with pytest.raises(VerisynthError, match=f"cannot be read.*{again} cells"):
        prepared.load(folder, "train")
    (folder / "test" / "index.csv").write_text((folder / "validation" / "index.csv").read_text())
    with pytest.raises(VerisynthError, match=f"2 images, 1 rows.*{again} cells"):
        prepared.load(folder, "test")
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(VerisynthError, match=again):
        prepared.read_dataset(folder)


def test_a_failing_block_leaves_the_old_folder(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), prepared.staged(folder) as staging:
        (staging / "nowhere" / "half").touch()
    assert prepared.read_dataset(folder).name == "cells"
    assert [path.name for path in folder.parent.iterdir()] == ["cells"]
