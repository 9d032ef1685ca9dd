import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.latents import key, labels, latents

SEEDS = st.integers(0, 2**63 - 1)
SHARES = st.lists(st.floats(0, 1000, width=32), min_size=1, max_size=6).filter(any)


@given(seed=SEEDS, start=st.integers(0, 1000), count=st.integers(1, 8), cut=st.integers(0, 8))
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


@pytest.mark.parametrize(("one", "other"), [((7, 5), (7 + 5 * 2**32, 0)), ((0, 2**32), (0, 0)), ((1, 2**32), (1, 1))])
def test_large_seeds_and_indices_share_no_stream_with_small_ones(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert not np.array_equal(latents(*one, 1, 5), latents(*other, 1, 5))
    assert not np.array_equal(labels(*one, 1, [1.0] * 10**6), labels(*other, 1, [1.0] * 10**6))


def test_small_seeds_and_indices_are_what_numpy_makes_of_the_pair() -> None:
    assert np.array_equal(latents(7, 5, 1, 4)[0], np.random.default_rng((7, 5)).standard_normal(4, dtype=np.float32))


@given(seed=SEEDS, start=st.integers(0, 1000), count=st.integers(0, 8), cut=st.integers(0, 8), shares=SHARES)
def test_an_image_has_the_same_label_in_any_batch(
    seed: int, start: int, count: int, cut: int, shares: list[float]
) -> None:
    together = labels(seed, start, count, shares)
    first = min(cut, count)
    apart = np.concatenate([labels(seed, start, first, shares), labels(seed, start + first, count - first, shares)])
    assert np.array_equal(together, apart)
    assert together.dtype == np.int64
    assert together.shape == (count,)
    assert all(shares[label] > 0 for label in together)


def test_labels_come_in_their_shares_whatever_these_sum_to() -> None:
    shares = [0.0, 6.0, 3.0, 0.0, 1.0, 0.0]
    drawn = labels(7, 0, 4000, shares)
    # Three standard deviations of a share of 4000 draws are at most 0.024.
    assert np.bincount(drawn, minlength=6) / 4000 == pytest.approx(np.array(shares) / 10, abs=0.024)
    assert np.array_equal(drawn, labels(7, 0, 4000, [share / 10 for share in shares]))
    assert not np.array_equal(drawn, labels(8, 0, 4000, shares))


@pytest.mark.parametrize("seed", [7, 2**32 + 7, 2**63 - 1])
def test_labels_do_not_follow_the_noise(seed: int) -> None:
    uniform_to_the_thousandth = labels(seed, 0, 500, [1.0] * 1000)
    from_the_latents_stream = [int(np.random.default_rng(key(seed, index)).random() * 1000) for index in range(500)]
    # By chance, one in a thousand is the same.
    assert np.mean(uniform_to_the_thousandth == from_the_latents_stream) < 0.02
    correlation = np.corrcoef(uniform_to_the_thousandth, latents(seed, 0, 500, 1)[:, 0])[0, 1]
    assert abs(correlation) < 0.15


@pytest.mark.parametrize("shares", [[], [0.0, 0.0], [1.0, -0.5]])
def test_shares_that_draw_nothing_are_a_broken_invariant(shares: list[float]) -> None:
    with pytest.raises(AssertionError, match="share is"):
        labels(0, 0, 1, shares)
