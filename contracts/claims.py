"""Claims: what is said of a generated image, as JSON under one rule of signing; who signs is `serving.provenance`'s.

What is signed is the canonical JSON of a document without its `signature`: keys sorted, no spaces, UTF-8.
`docs/provenance.md` says what is marked, how to check it without this software, and what it does not prove.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.balances import BALANCES
from contracts.limits import MAXIMUM_SEED

SCHEMA = 1
IMAGE, MASK, GRID = "image", "mask", "grid"
KINDS = (IMAGE, MASK, GRID)
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
    """Where samples come from: enough to make them again, but for those painted on a client's mask."""

    model: str
    version: str
    seed: int
    truncation: float
    label: str | None
    """The label asked for."""
    balance: str | None
    """How often each label was drawn, one of `contracts.balances`; None without labels, or with one asked for."""
    mask_sha256: str | None = None
    """`pixel_sha256` of the mask that a client sent to be painted on; None where the model drew all of the image."""

    def document(self) -> dict[str, Any]:
        """The origin as JSON values; `mask_sha256` is there only with a client's mask."""
        return {name: value for name, value in vars(self).items() if name != "mask_sha256" or value is not None}


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
    """Base64 of 64 bytes; None, like `key_id`, where whoever made the image has no key."""

    @staticmethod
    def unsigned(kind: str, origin: Origin, index: int, pixels: np.ndarray, count: int = 1) -> "Claim":
        """A claim for pixels uint8 [H, W, C] that nobody signs."""
        return Claim(kind, origin, index, count, pixel_sha256(pixels), key_id=None, signature=None)

    @staticmethod
    def parse(text: str) -> "Claim":
        """A claim out of a stranger's JSON, its form checked and nothing else.

        Raises:
            ClaimError: for text of another form: unknown, missing or repeated names, wrong types, values out of range.
        """
        document = _json_object(text)
        names = {"verisynth", "synthetic", *Origin.__dataclass_fields__, *Claim.__dataclass_fields__}
        names -= {"origin", "mask_sha256"}
        if document.keys() - {"mask_sha256"} != names:
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
        _check("mask_sha256" not in document or _matches(SHA256, document["mask_sha256"]), "mask_sha256")
        _check((document["key_id"] is None) == (document["signature"] is None), "signature")
        _check(document["key_id"] is None or _matches(SIGNING_KEY_ID, document["key_id"]), "key_id")
        _check(document["signature"] is None or _is_text(document["signature"]), "signature")
        origin = Origin(**{name: document[name] for name in Origin.__dataclass_fields__ if name in document})
        rest = {name: document[name] for name in Claim.__dataclass_fields__ if name != "origin"}
        return Claim(origin=origin, **rest)

    def document(self) -> dict[str, Any]:
        """The claim as JSON values."""
        return {
            "verisynth": SCHEMA,
            "synthetic": True,
            "kind": self.kind,
            **self.origin.document(),
            "index": self.index,
            "count": self.count,
            "pixel_sha256": self.pixel_sha256,
            "key_id": self.key_id,
            "signature": self.signature,
        }

    def text(self) -> str:
        """The claim as it is written into files: canonical JSON."""
        return canonical(self.document()).decode()


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
