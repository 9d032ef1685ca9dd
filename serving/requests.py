"""What a client asks for, parsed strictly: wrong types, unknown names and missing parts are refused by name."""

import json
import reprlib
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from contracts.balances import BALANCES
from contracts.limits import MAXIMUM_COUNT, MAXIMUM_SEED, MAXIMUM_START
from serving.formats import FORMATS
from serving.refusals import Refusal
from serving.uploads import content_options, read_file

GENERATE_BODY_BYTES = 64 * 1024


@dataclass(frozen=True)
class GenerateRequest:
    """The body of `POST /v1/generate`; None where the client leaves the choice to the service."""

    count: int
    model: str | None = None
    seed: int | None = None
    label: str | None = None
    balance: str | None = None
    truncation: float = 1.0
    format: str = "npz"
    start: int = 0

    def __post_init__(self) -> None:
        _check(self.model is None or type(self.model) is str, "model", self.model, "a string")
        _check(
            type(self.count) is int and 1 <= self.count <= MAXIMUM_COUNT,
            "count",
            self.count,
            f"a whole number from 1 to {MAXIMUM_COUNT}",
        )
        _check(
            self.seed is None or (type(self.seed) is int and 0 <= self.seed <= MAXIMUM_SEED),
            "seed",
            self.seed,
            f"a whole number from 0 to {MAXIMUM_SEED}",
        )
        _check(self.label is None or type(self.label) is str, "label", self.label, "a string")
        _check(
            self.balance is None or (type(self.balance) is str and self.balance in BALANCES),
            "balance",
            self.balance,
            f"one of {', '.join(BALANCES)}",
        )
        _check(
            self.balance is None or self.label is None, "balance", self.balance, "left out where label names one label"
        )
        _check(
            type(self.truncation) in (int, float) and 0 <= self.truncation <= 1,
            "truncation",
            self.truncation,
            "a number from 0 to 1",
        )
        _check(
            type(self.format) is str and self.format in FORMATS,
            "format",
            self.format,
            f"one of {', '.join(FORMATS)}",
        )
        _check(
            type(self.start) is int and 0 <= self.start <= MAXIMUM_START,
            "start",
            self.start,
            f"a whole number from 0 to {MAXIMUM_START}",
        )


PAINT_FIELDS = ("model", "count", "seed", "truncation", "format", "start")
"""What `POST /v1/paint` has in common with `generate`."""


@dataclass(frozen=True)
class PaintRequest:
    """The parts of `POST /v1/paint`: the bytes of a mask, and which images to paint on it."""

    mask: bytes
    images: GenerateRequest


@dataclass(frozen=True)
class AuthenticityRequest:
    """The parts of `POST /v1/authenticity`: the uploaded bytes, and the model where the client names one."""

    image: bytes
    model: str | None = None


def parse_generate(body: bytes) -> GenerateRequest:
    """JSON bytes to a request.

    Raises:
        Refusal: `malformed_json` or `invalid_request`.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("malformed_json", f"the body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refusal("invalid_request", f"the body is {reprlib.repr(document)}; send a JSON object")
    known = GenerateRequest.__dataclass_fields__
    unknown = sorted(document.keys() - known.keys())
    if unknown:
        raise Refusal("invalid_request", f"unknown field {reprlib.repr(unknown)}; the fields are {', '.join(known)}")
    if "count" not in document:
        raise Refusal("invalid_request", f"count is missing; say how many images, from 1 to {MAXIMUM_COUNT}")
    return GenerateRequest(**document)


async def read_generate(request: Request) -> GenerateRequest:
    """Read and parse the JSON body.

    Raises:
        Refusal: `unsupported_media_type`, `body_too_large`, and what `parse_generate` raises.
    """
    content_options(request, "application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        # Parsed, JSON takes many times its size: what an image may weigh, a few numbers may not.
        if len(body) > GENERATE_BODY_BYTES:
            raise Refusal("body_too_large", f"the body is larger than the {GENERATE_BODY_BYTES} bytes that are taken")
    return parse_generate(bytes(body))


async def read_authenticity(request: Request) -> AuthenticityRequest:
    """Read and check the multipart body: one file `image`, at most one text `model`, nothing else.

    Raises:
        Refusal: `unsupported_media_type`, `malformed_multipart`, `invalid_request`.
    """
    image, fields = await read_file(request, "image", ("model",))
    return AuthenticityRequest(image, **fields)


async def read_paint(request: Request) -> PaintRequest:
    """Read and check the multipart body: one file `mask`, and texts of `PAINT_FIELDS`, numbers as JSON writes them.

    Raises:
        Refusal: `unsupported_media_type`, `malformed_multipart`, `invalid_request`.
    """
    mask, fields = await read_file(request, "mask", PAINT_FIELDS)
    values: dict[str, Any] = {
        name: text if name in ("model", "format") else _number(name, text) for name, text in fields.items()
    }
    return PaintRequest(mask, GenerateRequest(**{"count": 1} | values))


def _number(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal("invalid_request", f"{name} is {reprlib.repr(text)}; it must be a number") from error


def _check(fine: bool, name: str, value: object, wanted: str) -> None:
    if not fine:
        raise Refusal("invalid_request", f"{name} is {reprlib.repr(value)}; it must be {wanted}")
