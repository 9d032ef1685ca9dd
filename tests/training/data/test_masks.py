import numpy as np
import pytest
from skimage import data, measure

from training.data import masks
from training.data.items import Pixels, UnusableError
from training.data.params import MaskedFolderSource, NucleusMasks, Prepare, VesselMasks
from training.reading import ParamsError


def test_vessels_are_dark_and_inside_the_field_of_view() -> None:
    photograph = data.retina()
    pixels = masks.drawn(Pixels(photograph), VesselMasks())
    assert pixels.mask is not None
    assert pixels.mask.shape == photograph.shape[:2]
    assert np.unique(pixels.mask).tolist() == [0, 255]
    vessels = pixels.mask == 255
    field_of_view = photograph.max(axis=2) > masks.FIELD_OF_VIEW_LEVEL
    assert not vessels[~field_of_view].any()
    assert 0.05 < vessels[field_of_view].mean() < 0.15
    green = photograph[..., 1]
    assert green[vessels].mean() < green[field_of_view & ~vessels].mean() - 10


def test_a_photograph_without_a_surround_keeps_its_corners() -> None:
    """A vessel runs along the upper border, through the corner."""
    photograph = np.full((200, 200, 3), 140, np.uint8)
    photograph[5:12] = 60
    found = masks.vessels(photograph, VesselMasks())
    assert found[5:12, 100].any()
    assert found[5:12, 2].any()


def discs(centres: list[tuple[int, int]], radius: int = 9) -> np.ndarray:
    rows, columns = np.mgrid[:96, :96]
    return np.any([(rows - top) ** 2 + (columns - left) ** 2 <= radius**2 for top, left in centres], axis=0)


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_nuclei_are_found_and_touching_ones_are_parted(bright: bool, channels: int) -> None:
    truth = discs([(20, 20), (60, 30), (60, 47)])
    ground, body = (40, 180) if bright else (210, 90)
    noise = np.random.default_rng(0).normal(0, 8, (96, 96, channels))
    image = np.clip(np.where(truth, body, ground)[..., None] + noise, 0, 255).astype(np.uint8)
    found = masks.nuclei(image, NucleusMasks(bright=bright))
    assert (found & truth).sum() / (found | truth).sum() > 0.9
    assert measure.label(found, connectivity=1).max() == 3
    assert measure.label(truth, connectivity=1).max() == 2


def test_an_image_in_which_nothing_is_found_is_left_out_by_name() -> None:
    with pytest.raises(UnusableError, match="masks of kind nuclei find nothing in it") as caught:
        masks.drawn(Pixels(np.full((64, 64, 1), 90, np.uint8)), NucleusMasks(bright=True))
    assert caught.value.code == "mask_empty"


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(ParamsError, match="brings its own masks"):
        Prepare(MaskedFolderSource("a", "b"), size=32, channels=1, masks=NucleusMasks(bright=True))
    with pytest.raises(ParamsError, match=r"low 0.3 must be above 0 and at most high 0\.026"):
        VesselMasks(low=0.3)
    with pytest.raises(ParamsError, match=r"scales_pixels \[\] must be numbers above 0"):
        VesselMasks(scales_pixels=[])
