"""How long is waited, and whose errors are told; `test_client.py` has tries against a service."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import VerisynthError
from serving.client.connection import LONGEST_PAUSE_SECONDS, checked_url, pause_seconds, retry_after_seconds

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("0", 0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0),
        ("Sun, 22 Nov 2026 12:00:05 -0000", 5),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("Sun, 99 Nov 2026 12:00:05 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_seconds(text, NOW) == seconds


@given(st.text(max_size=40) | st.integers(0).map(str) | st.datetimes().map(format_datetime))
def test_any_retry_after_is_understood_or_passed_over(text: str) -> None:
    seconds = retry_after_seconds(text, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_bound(attempt: int, chance: float) -> None:
    pause, next_pause = pause_seconds(attempt, None, chance), pause_seconds(attempt + 1, None, chance)
    assert pause is not None
    assert next_pause is not None
    assert 0.25 <= pause <= next_pause <= LONGEST_PAUSE_SECONDS


@given(st.integers(0, 10), st.floats(0, 1, exclude_max=True), st.floats(0))
def test_what_the_service_wants_is_never_cut_short(attempt: int, chance: float, told: float) -> None:
    pause = pause_seconds(attempt, told, chance)
    assert pause >= told if pause is not None else told > LONGEST_PAUSE_SECONDS


def test_addresses_keep_their_path() -> None:
    assert checked_url("https://host.example:8443/verisynth/") == "https://host.example:8443/verisynth"


@given(st.text(max_size=30) | st.text(max_size=20).map("http://{}".format))
def test_any_address_is_one_or_refused(text: str) -> None:
    with suppress(VerisynthError):
        assert checked_url(text).startswith("http")
