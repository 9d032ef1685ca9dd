import base64
import io
import json
import logging
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contracts.claims import IMAGE, MASK, Claim, Origin, canonical
from contracts.imaging import decode, encode_png
from contracts.marks import mark_png
from serving.formats import FORMATS, Signing
from serving.provenance.claims import ABSENT, BROKEN, UNKNOWN_KEY, UNSIGNED, VALID, ClaimKeys, make_signing_key
from serving.provenance.evidence import Evidence, confirmed, examine
from serving.provenance.fingerprints import Match
from serving.runtime import Model, ModelError, Samples
from tests.images import encoded
from tests.releases import real_images, write_small_release


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    write_small_release(folder / "waves")
    write_small_release(folder / "labelled", channels=1, labels=("benign", "malignant"), masks=True)
    return {name: Model.load(folder / name) for name in ("waves", "labelled")}


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> ClaimKeys:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    make_signing_key(path)
    return ClaimKeys.load(path, None)


def origin(served: Model, **changes: Any) -> Origin:
    return replace(Origin(served.name, served.version, 7, 0.5, None, None), **changes)


def samples(model: Model, wanted: Origin, count: int = 3) -> Samples:
    return model.generate(wanted.seed, 0, count, wanted.truncation, wanted.label, wanted.balance or "equal")


def files(form: str, model: Model, wanted: Origin, keyring: ClaimKeys) -> dict[str, bytes]:
    """Everything in an answer that is an image, by its name."""
    body = FORMATS[form].write(samples(model, wanted), wanted, Signing(keyring))
    if form == "png":
        return {"grid": body}
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def examined(data: bytes, keyring: ClaimKeys, models: dict[str, Model]) -> Evidence:
    return examine(data, decode(data).pixels, keyring, models)


# --- what is generated --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("waves", {}),
        ("labelled", {"balance": "equal"}),
        ("labelled", {"balance": "training"}),
        ("labelled", {"label": "malignant"}),
    ],
)
@pytest.mark.parametrize("form", ["zip", "dicom", "png"])
def test_everything_generated_is_valid_and_made_again(
    form: str, model: str, changes: dict[str, str], keyring: ClaimKeys, models: dict[str, Model]
) -> None:
    wanted = origin(models[model], **changes)
    made = files(form, models[model], wanted, keyring)
    masks = [name for name in made if name.endswith("mask.png")]
    assert len(masks) == (3 if (form, model) == ("zip", "labelled") else 0)
    for name, data in made.items():
        found = examined(data, keyring, models)
        assert (found.status, found.reproduced) == (VALID, None if form == "png" else True), name
        assert found.claim is not None
        assert (found.claim.origin, found.claim.kind == MASK) == (wanted, name in masks)
        assert found.verdict("real") == "synthetic"


@pytest.mark.parametrize("form", ["zip", "dicom"])
def test_one_signature_stands_for_the_whole_set(form: str, keyring: ClaimKeys, models: dict[str, Model]) -> None:
    wanted = origin(models["labelled"], balance="equal")
    body = FORMATS[form].write(samples(models["labelled"], wanted), wanted, Signing(keyring))
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        claims = [examined(archive.read(entry["file"]), keyring, models).claim for entry in manifest["files"]]
    assert keyring.status(manifest) == VALID
    for entry, claim in zip(manifest["files"], claims, strict=True):
        assert claim is not None
        assert (entry["kind"], entry["index"], entry["pixel_sha256"]) == (claim.kind, claim.index, claim.pixel_sha256)
    manifest["files"][-1]["index"] = 0
    assert keyring.status(manifest) == BROKEN


def test_arrays_carry_what_is_claimed_of_each_image(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    wanted = origin(models["labelled"], label="benign")
    drawn = samples(models["labelled"], wanted)
    with np.load(io.BytesIO(FORMATS["npz"].write(drawn, wanted, Signing(keyring))), allow_pickle=False) as arrays:
        assert (arrays["provenance"].shape, arrays["provenance"].dtype.kind) == ((), "U")
        document = json.loads(arrays["provenance"].item())
    assert keyring.status(document) == VALID
    assert (document["kind"], document["model"], document["label"]) == ("set", "labelled", "benign")
    assert [(entry["kind"], entry["index"]) for entry in document["images"]] == [
        (kind, index) for index in range(3) for kind in (IMAGE, MASK)
    ]
    for entry in document["images"]:
        pixels = drawn.images if entry["kind"] == IMAGE else np.asarray(drawn.masks)[..., None]
        claim = keyring.claim(entry["kind"], wanted, entry["index"], pixels[entry["index"]])
        assert entry["pixel_sha256"] == claim.pixel_sha256


# --- what else may come -------------------------------------------------------------------------


def test_without_a_mark_nothing_is_said(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    found = examined(encode_png(real_images(1)[0]), keyring, models)
    assert found == Evidence(ABSENT)
    assert found.verdict("real") == "real"
    assert found.document() == {
        "status": "absent",
        "claim": None,
        "key_id": None,
        "reproduced": None,
        "match": None,
    }


def test_changed_pixels_break_a_mark(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    claim = keyring.claim(
        IMAGE, origin(models["waves"]), 0, samples(models["waves"], origin(models["waves"])).images[0]
    )
    for pixels in (real_images(1)[0], real_images(1, size=48)[0], real_images(1, channels=1)[0]):
        found = examined(mark_png(encode_png(pixels), claim), keyring, models)
        assert (found.status, found.reproduced, found.claim) == (BROKEN, False, claim)
        assert found.verdict("real") == "real"


def test_an_unreadable_mark_is_broken_and_said_to_be_so(
    keyring: ClaimKeys, models: dict[str, Model], caplog: pytest.LogCaptureFixture
) -> None:
    data = encoded(Image.fromarray(real_images(1)[0]), "JPEG", xmp=b"<a xmlns='urn:verisynth:provenance#'/>")
    with caplog.at_level(logging.INFO):
        assert examined(data, keyring, models) == Evidence(BROKEN)
    assert "holds 0 claims" in caplog.text


@pytest.mark.parametrize("form", ["zip", "dicom"])
def test_without_a_key_an_image_is_known_by_making_it_again(
    form: str, keyring: ClaimKeys, models: dict[str, Model]
) -> None:
    data = list(files(form, models["waves"], origin(models["waves"]), ClaimKeys()).values())[1]
    found = examined(data, keyring, models)
    assert (found.status, found.reproduced) == (UNSIGNED, True)
    assert found.verdict("real") == "synthetic"
    assert examined(data, keyring, {}).verdict("real") == "real"


def test_an_unknown_key_proves_nothing_by_itself(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    data = files("zip", models["waves"], origin(models["waves"]), keyring)["000002.png"]
    assert (examined(data, ClaimKeys(), models).status, examined(data, ClaimKeys(), models).reproduced) == (
        UNKNOWN_KEY,
        True,
    )
    found = examined(data, ClaimKeys(), {})
    assert (found.status, found.reproduced, found.verdict("uncertain")) == (UNKNOWN_KEY, None, "uncertain")


def test_a_real_image_under_an_unsigned_claim_is_not_made_again(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    pixels = real_images(1)[0]
    for changes in ({}, {"label": "none such"}, {"balance": "training"}):
        claim = ClaimKeys().claim(IMAGE, origin(models["waves"], **changes), 0, pixels)
        found = examined(mark_png(encode_png(pixels), claim), keyring, models)
        assert (found.status, found.reproduced, found.verdict("real")) == (UNSIGNED, False, "real")
    mask = ClaimKeys().claim(MASK, origin(models["waves"]), 0, pixels)
    assert examined(mark_png(encode_png(pixels), mask), keyring, models).reproduced is False


def test_a_rounding_of_another_processor_is_still_the_same_image(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    drawn = samples(models["waves"], origin(models["waves"])).images[0]
    for step, expected in ((1, True), (2, False)):
        pixels = drawn.copy()
        pixels[3, 4, 1] += step
        claim = keyring.claim(IMAGE, origin(models["waves"]), 0, pixels)
        assert examined(mark_png(encode_png(pixels), claim), keyring, models).reproduced is expected


def test_another_version_cannot_make_an_image_again(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    wanted = origin(models["waves"], version="another")
    data = files("zip", models["waves"], wanted, keyring)["000000.png"]
    found = examined(data, keyring, models)
    assert (found.status, found.reproduced) == (VALID, None)


def test_what_was_painted_on_a_clients_mask_cannot_be_made_again(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    wanted = origin(models["waves"], mask_sha256="0" * 64)
    data = files("zip", models["waves"], wanted, keyring)["000000.png"]
    found = examined(data, keyring, models)
    assert (found.status, found.reproduced, found.verdict("real")) == (VALID, None, "synthetic")
    unsigned = files("zip", models["waves"], wanted, ClaimKeys())["000000.png"]
    assert examined(unsigned, keyring, models).verdict("real") == "real"


def test_a_model_that_breaks_spoils_no_check(
    keyring: ClaimKeys, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files("zip", models["waves"], origin(models["waves"]), keyring)["000000.png"]
    match = Match(origin(models["waves"]), 0, distance=3)

    def breaking(*_: object) -> Samples:
        raise ModelError("a graph failed")

    monkeypatch.setattr(models["waves"], "generate", breaking)
    assert (examined(data, keyring, models).status, examined(data, keyring, models).reproduced) == (VALID, None)
    assert confirmed(match, real_images(1)[0], models) == match


@pytest.mark.parametrize("index", [0, 2**32])
@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_extreme_claims_are_only_claims(index: int, seed: int, models: dict[str, Model]) -> None:
    pixels = real_images(1, channels=1)[0]
    for balance in ("equal", "training", None):
        claim = ClaimKeys().claim(IMAGE, origin(models["labelled"], seed=seed, balance=balance), index, pixels)
        assert examined(mark_png(encode_png(pixels), claim), ClaimKeys(), models).reproduced is False


JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.text())
SIGNATURES = st.binary(min_size=64, max_size=64).map(base64.b64encode).map(bytes.decode)


@given(data=st.data())
def test_no_mutated_claim_is_ever_valid(keyring: ClaimKeys, models: dict[str, Model], data: st.DataObject) -> None:
    pixels = samples(models["waves"], origin(models["waves"])).images[0]
    document = keyring.claim(IMAGE, origin(models["waves"]), 0, pixels).document()
    name = data.draw(st.sampled_from(sorted(document)))
    changes = {name: data.draw(JSON_VALUES | SIGNATURES)}
    if document == document | changes and type(changes[name]) is type(document[name]):
        return
    text = json.dumps(document | changes, sort_keys=data.draw(st.booleans()), allow_nan=True)
    xmp = f"<a xmlns:o='urn:verisynth:provenance#'><o:claim><![CDATA[{text}]]></o:claim></a>".encode()
    found = examined(encoded(Image.fromarray(pixels), "TIFF", tiffinfo={700: xmp}), keyring, models)
    assert found.status != VALID
    json.dumps(found.document(), allow_nan=False).encode()


def test_a_claim_in_other_words_is_the_same_claim(keyring: ClaimKeys, models: dict[str, Model]) -> None:
    pixels = samples(models["waves"], origin(models["waves"])).images[0]
    claim = keyring.claim(IMAGE, origin(models["waves"]), 0, pixels)
    spaced = json.dumps(dict(reversed(claim.document().items())), indent=1)
    assert Claim.parse(spaced) == claim
    assert canonical(Claim.parse(spaced).document()) == claim.text().encode()


# --- matches ------------------------------------------------------------------------------------


def test_a_match_is_proof_when_the_image_made_again_is_like_it(models: dict[str, Model]) -> None:
    wanted = origin(models["waves"])
    drawn = samples(models["waves"], wanted).images
    match = Match(wanted, 1, distance=4)
    compressed = decode(encoded(Image.fromarray(drawn[1]), "JPEG", quality=80)).pixels
    found = confirmed(match, compressed, models)
    assert found is not None
    assert found.proves_synthetic
    assert Evidence(ABSENT, match=found).verdict("real") == "synthetic"
    assert Evidence(ABSENT, match=found).document()["match"]["similarity"] > 0.9
    assert confirmed(match, drawn[0], models) is None


def test_a_match_that_cannot_be_made_again_is_only_a_hint(models: dict[str, Model]) -> None:
    pixels = real_images(1)[0]
    for changes in ({"version": "another"}, {"model": "another"}, {"label": "none such"}, {"mask_sha256": "0" * 64}):
        match = Match(origin(models["waves"], **changes), 0, distance=4)
        assert confirmed(match, pixels, models) == match
        assert Evidence(ABSENT, match=match).verdict("real") == "real"
