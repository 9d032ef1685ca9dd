import base64
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from contracts.claims import IMAGE, Claim, ClaimError, Origin, canonical, pixel_sha256
from contracts.errors import VerisynthError
from contracts.imaging import encode_png
from contracts.marks import mark_png
from serving.provenance.claims import (
    BROKEN,
    UNKNOWN_KEY,
    UNSIGNED,
    VALID,
    ClaimKeys,
    key_id,
    make_signing_key,
    public_pem,
)
from tests.images import speckle
from tests.services import ROOT

ORIGIN = Origin(model="waves", version="0123456789ab", seed=7, truncation=0.5, label="größer", balance=None)
PIXELS = speckle(0, 20, 30)


def keyring(folder: Path, name: str = "key.pem") -> ClaimKeys:
    make_signing_key(folder / name)
    return ClaimKeys.load(folder / name, None)


def claim(signer: ClaimKeys) -> Claim:
    return signer.claim(IMAGE, ORIGIN, 3, PIXELS)


# --- claims -------------------------------------------------------------------------------------


def test_a_claim_says_where_pixels_come_from_and_is_read_back(tmp_path: Path) -> None:
    made = claim(keyring(tmp_path))
    assert Claim.parse(made.text()) == made
    document = json.loads(made.text())
    assert document.pop("signature")
    assert document == {
        "verisynth": 1,
        "synthetic": True,
        "kind": "image",
        "model": "waves",
        "version": "0123456789ab",
        "seed": 7,
        "truncation": 0.5,
        "label": "größer",
        "balance": None,
        "index": 3,
        "count": 1,
        "pixel_sha256": pixel_sha256(PIXELS),
        "key_id": made.key_id,
    }


def test_a_claim_tells_of_a_clients_mask_only_where_there_was_one(tmp_path: Path) -> None:
    painted = keyring(tmp_path).claim("image", replace(ORIGIN, mask_sha256="a" * 64), 3, PIXELS)
    assert Claim.parse(painted.text()) == painted
    assert painted.document().keys() - claim(ClaimKeys()).document().keys() == {"mask_sha256"}
    assert keyring(tmp_path, "other.pem").status(painted.document()) == UNKNOWN_KEY
    for mask in (None, "", "A" * 64, 3):
        with pytest.raises(ClaimError, match="mask_sha256"):
            Claim.parse(json.dumps(painted.document() | {"mask_sha256": mask}))


def test_the_text_that_is_signed_is_canonical_json() -> None:
    assert canonical({"b": [1, 0.5, None], "a": "ü"}) == '{"a":"ü","b":[1,0.5,null]}'.encode()


def test_pixel_hashes_tell_shapes_apart() -> None:
    flat = np.arange(12, dtype=np.uint8)
    shapes = [(2, 2, 3), (4, 1, 3), (1, 4, 3), (12, 1, 1), (3, 4, 1)]
    assert len({pixel_sha256(flat.reshape(shape)) for shape in shapes}) == len(shapes)
    view = speckle(0, 20, 20)[:, ::2]
    assert pixel_sha256(view) == pixel_sha256(view.copy())


def test_without_a_key_a_claim_is_unsigned() -> None:
    made = claim(ClaimKeys())
    assert (made.key_id, made.signature) == (None, None)
    assert ClaimKeys().status(made.document()) == UNSIGNED


def test_a_signature_is_worth_what_its_key_is(tmp_path: Path) -> None:
    signer = keyring(tmp_path)
    made = claim(signer)
    assert signer.status(made.document()) == VALID
    assert claim(signer) == made
    assert ClaimKeys().status(made.document()) == UNKNOWN_KEY
    assert keyring(tmp_path, "other.pem").status(made.document()) == UNKNOWN_KEY
    # Another's signature under our key's name.
    forged = replace(claim(keyring(tmp_path, "forger.pem")), key_id=made.key_id)
    assert signer.status(forged.document()) == BROKEN


CHANGES: dict[str, Any] = {
    "kind": "mask",
    "model": "wave",
    "version": "0123456789ac",
    "seed": 8,
    "truncation": 0.25,
    "label": None,
    "balance": "equal",
    "index": 4,
    "count": 2,
    "pixel_sha256": "0" * 64,
    "mask_sha256": "0" * 64,
    "signature": base64.b64encode(bytes(64)).decode(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_signature_covers_every_field(name: str, tmp_path: Path) -> None:
    signer = keyring(tmp_path)
    document = claim(signer).document()
    changed = Claim.parse(json.dumps(document | {name: CHANGES[name]}))
    assert signer.status(changed.document()) == BROKEN


@pytest.mark.parametrize("signature", ["", "not base64!", "AAAA", "ü", "=" * 88])
def test_a_signature_of_no_form_is_broken(signature: str, tmp_path: Path) -> None:
    signer = keyring(tmp_path)
    assert signer.status(claim(signer).document() | {"signature": signature}) == BROKEN


@pytest.mark.parametrize(
    "changes",
    [
        {"verisynth": 2},
        {"verisynth": True},
        {"synthetic": 1},
        {"kind": "set"},
        {"kind": []},
        {"model": ""},
        {"model": "x" * 257},
        {"model": "\ud800"},
        {"version": 3},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": True},
        {"seed": 7.0},
        {"index": 2**32 + 1},
        {"truncation": float("nan")},
        {"truncation": float("inf")},
        {"truncation": True},
        {"truncation": "1"},
        {"label": {}},
        {"balance": "often"},
        {"balance": []},
        {"pixel_sha256": "A" * 64},
        {"pixel_sha256": "0" * 63},
        {"key_id": None},
        {"signature": None},
        {"key_id": "0" * 15},
        {"key_id": ["0" * 16]},
        {"signature": 1},
        {"extra": 1},
    ],
)
def test_a_claim_of_another_form_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    document = claim(keyring(tmp_path)).document()
    with pytest.raises(ClaimError):
        Claim.parse(json.dumps(document | changes))


def test_a_name_that_is_missing_or_there_twice_is_refused() -> None:
    made = claim(ClaimKeys())
    for name in made.document():
        with pytest.raises(ClaimError):
            Claim.parse(json.dumps({key: value for key, value in made.document().items() if key != name}))
    with pytest.raises(ClaimError, match="twice"):
        Claim.parse(made.text()[:-1] + ',"seed":8}')


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "1" * 10_000, '{"a":' * 5_000])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ClaimError):
        Claim.parse(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(changes=st.dictionaries(st.sampled_from([*claim(ClaimKeys()).document(), "other"]), JSON_VALUES, max_size=4))
def test_whatever_is_changed_is_refused_or_can_be_written_again(changes: dict[str, Any]) -> None:
    try:
        read = Claim.parse(json.dumps(claim(ClaimKeys()).document() | changes))
    except ClaimError:
        return
    assert Claim.parse(read.text()) == read


def test_the_lines_in_the_documentation_verify(tmp_path: Path) -> None:
    lines = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "provenance.md").read_text(encoding="utf-8"), re.S)
    assert lines is not None
    signer = keyring(tmp_path)
    assert signer.signing is not None
    (tmp_path / "public.pem").write_text(public_pem(signer.signing.public_key()))
    for channels in (1, 3):
        pixels = speckle(channels, channels=channels)
        made = signer.claim(IMAGE, replace(ORIGIN, label="<&lt; größer>"), 3, pixels)
        for shown, returncode in ((pixels, 0), (speckle(9, channels=channels), 1)):
            (tmp_path / "sample.png").write_bytes(mark_png(encode_png(shown), made))
            ended = subprocess.run([sys.executable, "-c", lines[1]], cwd=tmp_path, capture_output=True, check=False)
            assert ended.returncode == returncode, ended.stderr
    (tmp_path / "sample.png").write_bytes(mark_png(encode_png(PIXELS), replace(claim(signer), index=4)))
    ended = subprocess.run([sys.executable, "-c", lines[1]], cwd=tmp_path, capture_output=True, check=False)
    assert b"InvalidSignature" in ended.stderr


# --- keys ---------------------------------------------------------------------------------------


def test_a_signing_key_is_read_by_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    public = make_signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ClaimKeys.load(path, None).key_id == key_id(public)
    with pytest.raises(VerisynthError, match="exists already"):
        make_signing_key(path)


def test_a_rotated_key_still_counts_while_it_is_trusted(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    former = keyring(tmp_path, "former.pem")
    assert former.signing is not None
    (trusted / "former.pem").write_text(public_pem(former.signing.public_key()))
    (trusted / "..data.pem").write_text("what a cluster leaves there")
    (trusted / "README").write_text("no key")
    make_signing_key(tmp_path / "new.pem")
    rotated = ClaimKeys.load(tmp_path / "new.pem", trusted)
    assert rotated.status(claim(former).document()) == VALID
    assert rotated.status(claim(rotated).document()) == VALID
    assert former.status(claim(rotated).document()) == UNKNOWN_KEY
    (trusted / "former.pem").unlink()
    assert ClaimKeys.load(tmp_path / "new.pem", trusted).status(claim(former).document()) == UNKNOWN_KEY


def private_pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"SECRET", "holds no PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n", "holds no PEM private key"),
        (private_pem(ed25519.Ed25519PrivateKey.generate(), b"SECRET"), "without a password"),
        (private_pem(rsa.generate_private_key(65537, 2048)), "no Ed25519 key"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_signing_key_is_refused_by_name(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VerisynthError, match=words) as refused:
        ClaimKeys.load(path, None)
    assert str(path) in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_a_private_key_among_the_trusted_ones_is_refused(tmp_path: Path) -> None:
    make_signing_key(tmp_path / "key.pem")
    with pytest.raises(VerisynthError, match="put public keys alone"):
        ClaimKeys.load(None, tmp_path)
    with pytest.raises(VerisynthError, match="cannot be read"):
        ClaimKeys.load(None, tmp_path / "nowhere")


def test_the_service_does_not_start_with_a_key_that_it_cannot_read(tmp_path: Path) -> None:
    environment = os.environ | {"VERISYNTH_SIGNING_KEY_FILE": str(tmp_path / "none.pem"), "BENTOML_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Verisynth", "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "none.pem cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
