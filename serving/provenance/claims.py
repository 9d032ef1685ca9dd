"""The keys that sign claims with Ed25519, and what a signature is worth.

`docs/provenance.md` says how keys are made, kept and changed.
"""

import base64
import binascii
import functools
import hashlib
import os
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

from contracts.claims import Claim, Origin, canonical
from contracts.errors import VerisynthError

VALID, BROKEN, UNSIGNED, UNKNOWN_KEY, ABSENT = "valid", "broken", "unsigned", "unknown_key", "absent"
STATUSES = (VALID, BROKEN, UNSIGNED, UNKNOWN_KEY, ABSENT)


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
        plain = Claim.unsigned(kind, origin, index, pixels, count)
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
