from training.data.params import SkimageSource
from training.data.skimage_bundled import collect


def test_stained_tissue_is_one_image_without_mask() -> None:
    (item,) = collect(SkimageSource("ihc")).items
    pixels = item.read()
    assert pixels.image.shape == (512, 512, 3)
    assert pixels.mask is None


def test_the_fundus_is_one_photograph_without_mask() -> None:
    (item,) = collect(SkimageSource("retina")).items
    assert item.read().image.shape == (1411, 1411, 3)
    assert item.read().mask is None
