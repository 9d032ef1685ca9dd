import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from training.gans import geometry


@given(arrays.arrays(np.bool_, (2, 9, 12)))
def test_the_sign_is_the_mask_whatever_it_is(inside: np.ndarray) -> None:
    masks = inside.astype(np.uint8) * 255
    np.testing.assert_array_equal(geometry.masks(geometry.distances(masks)), masks)


def test_levels_count_pixels_to_the_edge() -> None:
    masks = np.zeros((1, 1, 12), dtype=np.uint8)
    masks[..., 6:] = 255
    levels = geometry.distances(masks)[0, 0].astype(float)
    distances = (levels - 127.5) / 127.5 * geometry.TRUNCATION_PIXELS
    np.testing.assert_allclose(distances, [-3, -3, -3, -3, -2, -1, 1, 2, 3, 3, 3, 3], atol=0.02)


@given(st.integers(0, 2**31))
def test_hard_masks_pass_no_gradient(seed: int) -> None:
    drawn = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    found = geometry.hard(drawn)
    assert set(found.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(found > 0, drawn > 0)
    assert not found.requires_grad
