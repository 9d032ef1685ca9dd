import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.imaging import fit
from tests.images import speckle
from training.data.items import Pixels
from training.data.params import FolderSource, Prepare, Tiles
from training.data.tiles import Box, boxes, detail, resize_mask, whole

WHOLE = Prepare(FolderSource("x"), size=32, channels=1)
DETAILS = Prepare(FolderSource("x"), size=32, channels=3, tiles=Tiles(side=48, stride=16))


@given(
    left=st.integers(0, 50),
    top=st.integers(0, 50),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    side=st.integers(16, 40),
    stride=st.integers(1, 50),
)
def test_boxes_lie_inside_their_region(left: int, top: int, width: int, height: int, side: int, stride: int) -> None:
    placed = boxes(Box(left, top, width, height), side, stride)
    assert bool(placed) == (width >= side and height >= side)
    assert len(set(placed)) == len(placed)
    for box in placed:
        assert left <= box.left <= left + width - side
        assert top <= box.top <= top + height - side


def test_a_whole_image_is_taken_as_the_service_takes_it() -> None:
    image = speckle(0, 50, 80)
    mask = (speckle(1, 50, 80, 1)[..., 0] > 127).astype(np.uint8) * np.uint8(255)
    taken = whole(Pixels(image, mask), WHOLE)
    assert np.array_equal(taken.image, fit(image, WHOLE.image)[0])
    assert taken.mask is not None
    assert np.array_equal(taken.mask, resize_mask(mask[:, 15:65], 32))


def test_details_are_those_the_service_cuts() -> None:
    image = speckle(0, 96, 96)
    served = fit(image, DETAILS.image)
    cut = [detail(Pixels(image), box, DETAILS).image for box in boxes(Box(0, 0, 96, 96), 48, 48)]
    assert np.array_equal(served, np.stack(cut))


def test_masks_stay_binary_and_beside_their_image() -> None:
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[:, 48:] = 255
    cut = detail(Pixels(speckle(0, 96, 96), mask), Box(24, 0, 48, 48), DETAILS).mask
    assert cut is not None
    assert np.array_equal(cut, np.repeat([[0] * 16 + [255] * 16], 32, axis=0))
