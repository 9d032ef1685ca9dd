import numpy as np

from training.data.params import SkimageSource
from training.data.skimage_bundled import collect


def test_stained_tissue_is_one_image_without_mask() -> None:
    (item,) = collect(SkimageSource("ihc")).items
    pixels = item.read()
    assert pixels.image.shape == (512, 512, 3)
    assert pixels.mask is None


def test_retina_comes_with_vessels_inside_the_field_of_view() -> None:
    collection = collect(SkimageSource("retina"))
    pixels = collection.items[0].read()
    assert collection.has_masks
    assert pixels.mask is not None
    assert pixels.mask.shape == pixels.image.shape[:2]
    assert np.unique(pixels.mask).tolist() == [0, 255]
    vessels = pixels.mask == 255
    field_of_view = pixels.image.max(axis=2) > 20
    assert not vessels[~field_of_view].any()
    assert 0.05 < vessels[field_of_view].mean() < 0.15
    green = pixels.image[..., 1]
    assert green[vessels].mean() < green[field_of_view & ~vessels].mean() - 10
