"""Answers out of bytes: whatever a server sends is what was asked for, or an error with a name."""

import io
import json
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.claims import Origin
from contracts.errors import VerisynthError
from serving.client.answers import Models, Samples, read_model, read_models, read_samples, read_verdict
from serving.client.connection import ServiceError
from serving.formats import NpzWriter, Signing
from serving.provenance.claims import ClaimKeys
from serving.runtime import Samples as Drawn
from tests.releases import manifest, real_images

DRAWN = Drawn(real_images(3, size=8), masks=np.zeros((3, 8, 8), np.uint8), labels=np.arange(3))
NPZ = NpzWriter.write(DRAWN, Origin("waves", "0" * 12, 7, 1.0, None, None), Signing(ClaimKeys()))
HEADERS = {"X-Verisynth-Model": "waves", "X-Verisynth-Version": "0" * 12, "X-Verisynth-Seed": "7", "X-Request-ID": "id"}
VERDICT = {
    "model": "waves",
    "model_version": "0" * 12,
    "verdict": "real",
    "synthetic_probability": 0.25,
    "evidence": {"typicality": 0.5},
    "image": {"sha256": "f" * 64},
}
MODEL = {"name": "waves", "version": "0" * 12, "provider": "CPUExecutionProvider", "manifest": manifest("waves", 32, 3)}


def answer(content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    request = httpx.Request("GET", "http://service/v1")
    return httpx.Response(200, content=content, headers=HEADERS if headers is None else headers, request=request)


def test_samples() -> None:
    samples = read_samples(answer(b""), io.BytesIO(NPZ), start=10, count=3)
    assert np.array_equal(samples.images, DRAWN.images)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2]
    assert samples.masks is not None
    assert (samples.seed, samples.model, samples.version, samples.start) == (7, "waves", "0" * 12, 10)


def test_arrays_that_are_not_known_are_passed_over() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=DRAWN.images, provenance=np.array("{}"))
    samples = read_samples(answer(b""), io.BytesIO(buffer.getvalue()), 0, 3)
    assert (samples.labels, samples.masks) == (None, None)


@pytest.mark.parametrize("missing", ["X-Verisynth-Model", "X-Verisynth-Version", "X-Verisynth-Seed"])
def test_samples_of_unknown_origin_are_none(missing: str) -> None:
    with pytest.raises(ServiceError) as refused:
        read_samples(
            answer(b"", {name: text for name, text in HEADERS.items() if name != missing}), io.BytesIO(NPZ), 0, 3
        )
    assert (refused.value.code, refused.value.request_id) == ("unexpected_answer", "id")


def test_fewer_samples_than_asked_for_are_none() -> None:
    with pytest.raises(ServiceError, match="images: uint8"):
        read_samples(answer(b""), io.BytesIO(NPZ), 0, 4)


@given(st.data())
def test_mutated_samples_are_samples_or_an_error(data: st.DataObject) -> None:
    body = bytearray(NPZ)
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(len(body) // 2, len(body))) :]
    with suppress(ServiceError):
        samples = read_samples(answer(b""), io.BytesIO(bytes(body)), 0, 3)
        assert (samples.images.dtype, samples.images.shape[0]) == (np.uint8, 3)


def test_a_verdict_and_models() -> None:
    verdict = read_verdict(answer(json.dumps(VERDICT).encode()))
    assert (verdict.verdict, verdict.synthetic_probability, verdict.typicality) == ("real", 0.25, 0.5)
    assert (verdict.sha256, verdict.document) == ("f" * 64, VERDICT)
    model = read_model(answer(json.dumps(MODEL).encode()))
    assert read_models(answer(json.dumps({"models": [MODEL], "refused": {"old": "why"}}).encode())) == Models(
        [model], {"old": "why"}
    )
    assert (model.name, model.labels, model.has_masks) == ("waves", [], False)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("read", "whole"), [(read_verdict, VERDICT), (read_model, MODEL), (read_models, {"models": [MODEL], "refused": {}})]
)
@given(data=st.data())
def test_documents_with_other_values_are_read_or_an_error(
    read: Any, whole: dict[str, Any], data: st.DataObject
) -> None:
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(whole)), JSON_VALUES, min_size=1))
    body = data.draw(st.just(json.dumps(whole | changed).encode()) | st.binary(max_size=20))
    with suppress(ServiceError):
        read(answer(body))


def test_a_verdict_of_unknown_name_is_none() -> None:
    with pytest.raises(ServiceError, match="known are real, synthetic, uncertain, out_of_scope"):
        read_verdict(answer(json.dumps(VERDICT | {"verdict": "genuine"}).encode()))


def test_parts_of_two_models_are_no_sequence() -> None:
    first = read_samples(answer(b""), io.BytesIO(NPZ), 0, 3)
    second = read_samples(answer(b"", HEADERS | {"X-Verisynth-Version": "1" * 12}), io.BytesIO(NPZ), 3, 3)
    with pytest.raises(VerisynthError, match="begin anew"):
        Samples.joined([first, second], 6)
