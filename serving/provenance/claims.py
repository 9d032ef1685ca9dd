"""Claims: what the service says of the images it made, signed with Ed25519, and how such a claim is checked.

What is signed is the canonical JSON of a document without its `signature`: keys sorted, no spaces, UTF-8.
`docs/provenance.md` says what is marked, how to check it without this service, and what it does not prove.
"""

import base64
import binascii
import functools
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from contracts.balances import BALANCES
from contracts.errors import VerisynthError
from contracts.limits import MAXIMUM_SEED

SCHEMA = 1
IMAGE, MASK, GRID = "image", "mask", "grid"
KINDS = (IMAGE, MASK, GRID)
VALID, BROKEN, UNSIGNED, UNKNOWN_KEY, ABSENT = "valid", "broken", "unsigned", "unknown_key", "absent"
STATUSES = (VALID, BROKEN, UNSIGNED, UNKNOWN_KEY, ABSENT)
# Far beyond any request, and small enough for every integer that the runtime makes of it.
LARGEST_INDEX = 2**32
LONGEST_TEXT = 256
SHA256 = re.compile(r"[0-9a-f]{64}")
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
SIGNING_KEY_ID = re.compile(r"[0-9a-f]{16}")


class ClaimError(Exception):
    """Text that is no claim of the form that the service writes."""


@dataclass(frozen=True)
class Origin:
    """Where samples come from: enough to make them again."""

    model: str
    version: str
    seed: int
    truncation: float
    label: str | None
    """The label asked for."""
    balance: str | None
    """How often each label was drawn, one of `contracts.balances`; None without labels, or with one asked for."""


@dataclass(frozen=True)
class Claim:
    """That these pixels are image or mask `index` of `origin`, or a grid of `count` images from `index` on."""

    kind: str
    origin: Origin
    index: int
    count: int
    pixel_sha256: str
    key_id: str | None
    signature: str | None
    """Base64 of 64 bytes; None, like `key_id`, where the service that made the image has no key."""

    @staticmethod
    def parse(text: str) -> "Claim":
        """A claim out of a stranger's JSON, its form checked and nothing else.

        Raises:
            ClaimError: for text of another form: unknown, missing or repeated names, wrong types, values out of range.
        """
        document = _json_object(text)
        names = {"verisynth", "synthetic", *Origin.__dataclass_fields__, *Claim.__dataclass_fields__} - {"origin"}
        if document.keys() != names:
            raise ClaimError(f"the claim has the fields {reprlib.repr(sorted(document))}; it must have {sorted(names)}")
        _check(document["verisynth"] == SCHEMA and type(document["verisynth"]) is int, "verisynth")
        _check(document["synthetic"] is True, "synthetic")
        _check(document["kind"] in KINDS, "kind")
        for name in ("model", "version"):
            _check(_is_text(document[name]), name)
        _check(document["label"] is None or _is_text(document["label"]), "label")
        _check(document["balance"] in (None, *BALANCES), "balance")
        _check(_is_whole(document["seed"], MAXIMUM_SEED), "seed")
        _check(_is_whole(document["index"], LARGEST_INDEX), "index")
        _check(_is_whole(document["count"], LARGEST_INDEX), "count")
        # NaN is in no range.
        _check(type(document["truncation"]) in (int, float) and 0 <= document["truncation"] <= 1, "truncation")
        _check(_matches(SHA256, document["pixel_sha256"]), "pixel_sha256")
        _check((document["key_id"] is None) == (document["signature"] is None), "signature")
        _check(document["key_id"] is None or _matches(SIGNING_KEY_ID, document["key_id"]), "key_id")
        _check(document["signature"] is None or _is_text(document["signature"]), "signature")
        origin = Origin(**{name: document[name] for name in Origin.__dataclass_fields__})
        rest = {name: document[name] for name in Claim.__dataclass_fields__ if name != "origin"}
        return Claim(origin=origin, **rest)

    def document(self) -> dict[str, Any]:
        """The claim as JSON values."""
        return {
            "verisynth": SCHEMA,
            "synthetic": True,
            "kind": self.kind,
            **vars(self.origin),
            "index": self.index,
            "count": self.count,
            "pixel_sha256": self.pixel_sha256,
            "key_id": self.key_id,
            "signature": self.signature,
        }

    def text(self) -> str:
        """The claim as it is written into files: canonical JSON."""
        return canonical(self.document()).decode()


@dataclass(frozen=True)
class ClaimKeys:
    """The key that signs, if any, and the public keys by key id whose signatures count."""

    signing: Ed25519PrivateKey | None = None
    trusted: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)

    @staticmethod
    def load(signing_key_file: Path | None, trusted_keys_folder: Path | None) -> "ClaimKeys":
        """The key in the PEM file, and the public keys in the `*.pem` files of the folder; one's own is always trusted.

        Raises:
            VerisynthError: for a file or folder that cannot be read or holds no such key; never with its content.
        """
        signing = None if signing_key_file is None else _read_signing_key(signing_key_file)
        public = [] if signing is None else [signing.public_key()]
        public += [] if trusted_keys_folder is None else _read_trusted_keys(trusted_keys_folder)
        return ClaimKeys(signing, {key_id(key): key for key in public})

    @functools.cached_property
    def key_id(self) -> str | None:
        """The id of the key that signs."""
        return None if self.signing is None else key_id(self.signing.public_key())

    def claim(self, kind: str, origin: Origin, index: int, pixels: np.ndarray, count: int = 1) -> Claim:
        """A claim for pixels uint8 [H, W, C], signed where there is a key."""
        plain = Claim(kind, origin, index, count, pixel_sha256(pixels), key_id=None, signature=None)
        sealed = self.sealed(plain.document())
        return replace(plain, key_id=sealed["key_id"], signature=sealed["signature"])

    def sealed(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document with `key_id` and `signature`; both are None without a key."""
        unsigned = {name: value for name, value in document.items() if name != "signature"} | {"key_id": self.key_id}
        if self.signing is None:
            return unsigned | {"signature": None}
        return unsigned | {"signature": base64.b64encode(self.signing.sign(canonical(unsigned))).decode()}

    def status(self, document: Mapping[str, Any]) -> str:
        """What a sealed document's signature is worth: `valid`, `broken`, `unsigned` or `unknown_key`."""
        if document["signature"] is None:
            return UNSIGNED
        key = self.trusted.get(document["key_id"])
        if key is None:
            return UNKNOWN_KEY
        unsigned = {name: value for name, value in document.items() if name != "signature"}
        try:
            key.verify(base64.b64decode(document["signature"], validate=True), canonical(unsigned))
        except (InvalidSignature, binascii.Error, ValueError):
            return BROKEN
        return VALID


def canonical(document: Mapping[str, Any]) -> bytes:
    """The JSON that is signed: keys sorted, no spaces, UTF-8, numbers as Python's `json` writes them."""
    return CANONICAL.encode(document).encode()


def pixel_sha256(pixels: np.ndarray) -> str:
    """SHA-256, in hex, of `uint8 HxWxC` and a line feed, then the pixels uint8 [H, W, C] row by row, channels last."""
    assert pixels.dtype == np.uint8, f"pixels are {pixels.dtype}"
    height, width, channels = pixels.shape
    digest = hashlib.sha256(f"uint8 {height}x{width}x{channels}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def public_pem(key: Ed25519PublicKey) -> str:
    """A public key as the text of a PEM file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def make_signing_key(path: Path) -> Ed25519PublicKey:
    """Write a new signing key to a file that only its owner can read, and give its public half.

    Raises:
        VerisynthError: where the file exists already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise VerisynthError(f"{path} exists already; a key is never overwritten: name another file") from error
    except OSError as error:
        raise VerisynthError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    return key.public_key()


def _read_signing_key(path: Path) -> Ed25519PrivateKey:
    advice = "make one with `verisynth signing-key FILE`"
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise VerisynthError(f"the signing key {path} cannot be read: {error.strerror}; {advice}") from error
    # TypeError: the key has a password. The library's own words might quote the file.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise VerisynthError(f"{path} holds no PEM private key without a password; {advice}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise VerisynthError(f"the signing key {path} is no Ed25519 key; {advice}")
    return key


def _read_trusted_keys(folder: Path) -> list[Ed25519PublicKey]:
    try:
        # Kubernetes mounts secrets through hidden folders.
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem" and path.name[0] != ".")
    except OSError as error:
        raise VerisynthError(f"the folder of trusted keys {folder} cannot be read: {error.strerror}") from error
    return [_read_public_key(path) for path in paths]


def _read_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise VerisynthError(f"the trusted key {path} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm):
        raise VerisynthError(f"{path} holds no PEM public key; put public keys alone into that folder") from None
    if not isinstance(key, Ed25519PublicKey):
        raise VerisynthError(f"the trusted key {path} is no Ed25519 key")
    return key


def _json_object(text: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ClaimError("a name is there twice")
        return document

    try:
        document = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ClaimError("the claim is no JSON") from error
    if not isinstance(document, dict):
        raise ClaimError("the claim is no JSON object")
    return document


def _check(fine: bool, name: str) -> None:
    if not fine:
        raise ClaimError(f"the claim's {name} is of another form than the service writes")


def _is_text(value: object) -> bool:
    # A lone surrogate cannot be written as UTF-8.
    return type(value) is str and 0 < len(value) <= LONGEST_TEXT and not re.search("[\ud800-\udfff]", value)


def _is_whole(value: object, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def _matches(form: re.Pattern[str], value: object) -> bool:
    return type(value) is str and form.fullmatch(value) is not None
