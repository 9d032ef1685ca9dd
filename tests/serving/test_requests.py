import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.refusals import Refusal
from serving.requests import GenerateRequest, parse_generate

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_a_whole_request() -> None:
    body = b'{"model": "ihc", "count": 3, "seed": 0, "label": "a", "truncation": 0, "format": "zip"}'
    assert parse_generate(body) == GenerateRequest(3, "ihc", 0, "a", None, 0, "zip")
    assert parse_generate(b'{"count": 1, "balance": "training"}') == GenerateRequest(1, balance="training")
    assert parse_generate(b'{"count": 1, "start": 1024}') == GenerateRequest(1, start=1024)
    assert parse_generate(b'{"count": 1}') == GenerateRequest(1)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"count": 0}, "count"),
        ({"count": 1025}, "count"),
        ({"count": True}, "count"),
        ({"count": "3"}, "count"),
        ({"count": 3.0}, "count"),
        ({"count": None}, "count"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"truncation": 1.01}, "truncation"),
        ({"truncation": False}, "truncation"),
        ({"truncation": float("nan")}, "truncation"),
        ({"format": "bmp"}, "npz, zip, png, dicom"),
        ({"format": ["npz"]}, "format"),
        ({"start": -1}, "start"),
        ({"start": 2_000_000_001}, "start is 2000000001; it must be a whole number from 0 to 2000000000"),
        ({"start": True}, "start"),
        ({"start": None}, "start"),
        ({"model": 3}, "model"),
        ({"label": 0}, "label"),
        ({"balance": "fair"}, "balance is 'fair'; it must be one of equal, training"),
        ({"balance": ["equal"]}, "balance"),
        ({"balance": "equal", "label": "a"}, "balance is 'equal'; it must be left out where label"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(Refusal, match=name) as refused:
        parse_generate(json.dumps({"count": 3} | changes).encode())
    assert refused.value.code == "invalid_request"


def test_the_count_must_be_given() -> None:
    with pytest.raises(Refusal, match="count is missing"):
        parse_generate(b"{}")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"count": ' + b"9" * 10_000 + b"}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_generate(body)
    assert refused.value.code == "malformed_json"


@given(st.binary(max_size=64) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused_too(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse_generate(body)


@given(
    st.dictionaries(
        st.sampled_from(["model", "count", "seed", "label", "balance", "truncation", "format", "start"])
        | st.text(max_size=5),
        JSON_VALUES,
    )
)
def test_a_request_is_right_or_refused(document: dict[str, Any]) -> None:
    try:
        request = parse_generate(json.dumps(document).encode())
    except Refusal as refusal:
        refusal.detail.encode()
    else:
        assert 1 <= request.count <= 1024
        assert 0 <= request.truncation <= 1
        assert 0 <= request.start < 2**31
