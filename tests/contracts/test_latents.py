import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.latents import latents


@given(seed=st.integers(0, 2**63 - 1), start=st.integers(0, 1000), count=st.integers(1, 8), cut=st.integers(0, 8))
def test_an_image_has_the_same_noise_in_any_batch(seed: int, start: int, count: int, cut: int) -> None:
    together = latents(seed, start, count, 5)
    first = min(cut, count)
    apart = np.concatenate([latents(seed, start, first, 5), latents(seed, start + first, count - first, 5)])
    assert np.array_equal(together, apart)


def test_noise_is_standard_normal_and_differs_between_images_and_seeds() -> None:
    noise = latents(3, 0, 200, 100)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert len(np.unique(noise[:, 0])) == 200
    assert not np.array_equal(noise[0], latents(4, 0, 1, 100)[0])
