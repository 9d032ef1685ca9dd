"""Whether masks belong to their images, on discs that are brighter than their noisy ground."""

import numpy as np
import pytest

from tests.images import discs
from training.data.pairing import FEWEST_IMAGES, doubt, share_of_followers


@pytest.mark.parametrize("contrast", [60, -60])
def test_masks_that_belong_are_not_doubted(contrast: float) -> None:
    images, masks = discs(contrast=contrast)
    assert share_of_followers(images, masks) == 1
    assert doubt(images, masks) is None


def test_shuffled_masks_are_doubted_in_words() -> None:
    images, masks = discs()
    found = doubt(images, np.roll(masks, 1, axis=0))
    assert found is not None
    assert "of 60 images follow the edges of their own mask" in found
    half = np.concatenate([np.roll(masks[:30], 1, axis=0), masks[30:]])
    assert doubt(images, half) is not None


def test_few_images_and_even_ones_are_not_doubted() -> None:
    images, masks = discs(FEWEST_IMAGES - 1)
    assert doubt(images, np.roll(masks, 1, axis=0)) is None
    images, masks = discs()
    assert doubt(np.zeros_like(images), masks) is None
    assert doubt(images, np.full_like(masks, 255)) is None
