from pathlib import Path

import numpy as np
import pytest

from contracts.errors import ImageError
from tests.images import png, speckle, write_pngs
from training.data.masked_folder import collect, match
from training.data.params import MaskedFolderSource


def test_masks_find_their_images() -> None:
    images = ["Image_01L.jpg", "Image_01R.jpg", "cell_1.png", "cell_10.png", "deep/cell_1.png"]
    masks = ["Image_01L_1stHO.png", "cell_1_mask.png", "cell_10_mask.png", "deep/cell_1.png", "cell_100.png", "x.png"]
    masks += ["Image_01Left.png", "cell_1a_mask.png"]
    assert match(images, masks) == {
        "Image_01L.jpg": ["Image_01L_1stHO.png"],
        "Image_01R.jpg": [],
        "cell_1.png": ["cell_1_mask.png"],
        "cell_10.png": ["cell_10_mask.png"],
        "deep/cell_1.png": ["deep/cell_1.png"],
    }


@pytest.fixture
def source(tmp_path: Path) -> MaskedFolderSource:
    write_pngs(tmp_path / "images", 6)
    (tmp_path / "masks").mkdir()
    return MaskedFolderSource(str(tmp_path / "images"), str(tmp_path / "masks"), r"image_(\d)")


def test_masks_become_0_and_255(source: MaskedFolderSource) -> None:
    numbered = np.zeros((40, 40), dtype=np.uint16)
    numbered[3:9, 4:8] = 7
    (Path(source.masks) / "image_0_objects.png").write_bytes(png(numbered))
    (item,) = collect(source).items
    pixels = item.read()
    assert item.patient == "0"
    assert np.array_equal(pixels.mask, (numbered > 0) * 255)
    assert np.array_equal(pixels.image, speckle(0))


def test_an_image_without_a_usable_mask_is_left_out_by_name(source: MaskedFolderSource) -> None:
    masks = Path(source.masks)
    (masks / "image_0.png").write_bytes(png(np.zeros((40, 40), dtype=np.uint8)))
    (masks / "image_1.png").write_bytes(png(np.ones((40, 41), dtype=np.uint8)))
    (masks / "image_2.png").write_bytes(b"no image")
    for observer in (1, 2):
        (masks / f"image_3_observer{observer}.png").write_bytes(png(np.ones((40, 40), dtype=np.uint8)))
    (masks / "image_4.png").write_bytes(png(speckle(4) | 1))
    (masks / "stray.png").write_bytes(png(np.ones((40, 40), dtype=np.uint8)))
    collection = collect(source)
    reasons = {}
    for item in collection.items:
        with pytest.raises(ImageError) as refused:
            item.read()
        reasons[item.name] = refused.value.code
    assert reasons == {
        "image_0.png": "mask_empty",
        "image_1.png": "mask_of_another_size",
        "image_2.png": "mask_broken",
        "image_4.png": "mask_full",
    }
    assert {left.name: (left.reason, left.images) for left in collection.left_out} == {
        "image_3.png": ("several_masks", 1),
        "image_5.png": ("mask_missing", 1),
        "stray.png": ("mask_without_image", 0),
    }
