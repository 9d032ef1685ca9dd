import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import VerisynthError
from serving.client.sequence import SEED_BITS, SampleSequence, parts
from serving.requests import GenerateRequest, parse_generate


@given(st.integers(0, 10_000), st.integers(1, 5000), st.integers(1, 1024))
def test_parts_are_all_images_in_order(start: int, count: int, most: int) -> None:
    found = list(parts(start, count, most))
    assert [index for first, length in found for index in range(first, first + length)] == [
        *range(start, start + count)
    ]
    assert all(1 <= length <= most for _, length in found)


@given(st.integers(0, 2**63 - 1), st.none() | st.text(max_size=5), st.floats(0, 1), st.integers(0, 10**9))
def test_requests_are_what_the_service_takes(seed: int, label: str | None, truncation: float, start: int) -> None:
    wanted = SampleSequence.of(seed, "ihc", label, None, truncation)
    request = parse_generate(json.dumps(wanted.request(start, 3, "zip")).encode())
    assert request == GenerateRequest(3, "ihc", seed, label, None, truncation, "zip", start)


def test_what_is_left_open_is_not_sent() -> None:
    request = SampleSequence.of(7, None, None, None, 1.0).request(0, 3, "npz")
    # A service that does not know `start` can be asked for what begins at 0.
    assert request == {"count": 3, "seed": 7, "truncation": 1.0, "format": "npz"}


def test_random_seeds_differ() -> None:
    seeds = {SampleSequence.of(None, None, None, None, 1.0).seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**SEED_BITS for seed in seeds)


@pytest.mark.parametrize("seed", ["7", 7.0, b"7"])
def test_seeds_are_whole_numbers(seed: Any) -> None:
    with pytest.raises(VerisynthError, match="the seed is"):
        SampleSequence.of(seed, None, None, None, 1.0)


@pytest.mark.parametrize("truncation", [-0.1, 1.1, float("nan")])
def test_truncation_is_a_share(truncation: float) -> None:
    with pytest.raises(VerisynthError, match="the truncation is"):
        SampleSequence.of(1, None, None, None, truncation)
