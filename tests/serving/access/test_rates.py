import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access.rates import Rates


class Clock:
    """Seconds that pass when told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_minutes_worth_at_once_and_then_evenly() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert [rates.take("a", 6) for _ in range(6)] == [0.0] * 6
    assert rates.take("a", 6) == pytest.approx(10)
    assert rates.take("b", 6) == 0
    clock.seconds += 10
    assert rates.take("a", 6) == 0
    assert rates.take("a", 6) == pytest.approx(10)


def test_what_was_not_asked_is_not_saved_up() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.take("a", 6)
    clock.seconds += 3600
    assert [rates.take("a", 6) > 0 for _ in range(7)] == [False] * 6 + [True]


def test_a_share_below_one_lets_some_pass() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert rates.take("a", 0.25) == 0
    assert rates.take("a", 0.25) == pytest.approx(240)


@given(st.floats(0.01, 10_000), st.lists(st.floats(0, 100), max_size=30))
def test_whoever_waits_as_long_as_it_was_told_is_let_in(limit: float, pauses: list[float]) -> None:
    clock = Clock()
    rates = Rates(clock)
    for pause in pauses:
        clock.seconds += pause
        rates.take("a", limit)
    wait = rates.take("a", limit)
    clock.seconds += wait
    assert wait == 0 or rates.take("a", limit) == 0


@given(st.floats(1, 600), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_never_more_than_the_limit_and_a_bucket(limit: float, pauses: list[float]) -> None:
    clock = Clock()
    rates = Rates(clock)
    passed = 0
    for pause in pauses:
        clock.seconds += pause
        passed += rates.take("a", limit) == 0
    assert passed <= math.floor(limit + clock.seconds * limit / 60 + 1e-3)


def test_memory_is_bounded_however_many_callers_there_are() -> None:
    rates = Rates(Clock(), maximum_buckets=100)
    for number in range(1000):
        rates.take(f"address {number}", 1)
    assert len(rates._buckets) == 100
    assert sys.getsizeof(rates._buckets) < 100_000
    # Who was seen lately is remembered.
    assert rates.take("address 999", 1) > 0
