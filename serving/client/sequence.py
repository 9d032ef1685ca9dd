"""An endless sequence of synthetic images, of which requests take parts: image i is the same whatever the part."""

import operator
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contracts.errors import VerisynthError

SEED_BITS = 32


@dataclass(frozen=True)
class SampleSequence:
    """What decides on the images besides the model's version; the service says what the values may be."""

    seed: int
    model: str | None = None
    """May be left out where exactly one model is served."""
    label: str | None = None
    balance: str | None = None
    truncation: float = 1.0

    @staticmethod
    def of(
        seed: int | None, model: str | None, label: str | None, balance: str | None, truncation: float
    ) -> "SampleSequence":
        """With a random seed where none is given: a request that is sent twice must mean the same images.

        Raises:
            VerisynthError: for values that cannot be sent; what they may be is the service's to say.
        """
        try:
            seed = secrets.randbits(SEED_BITS) if seed is None else operator.index(seed)
        except TypeError as error:
            raise VerisynthError(f"the seed is {seed!r}; it must be a whole number") from error
        if not 0 <= truncation <= 1:
            raise VerisynthError(f"the truncation is {truncation!r}; it must be a number from 0 to 1")
        return SampleSequence(seed, model, label, balance, float(truncation))

    def request(self, start: int, count: int, form: str) -> dict[str, Any]:
        """The body of `POST /v1/generate` for the images `start` to `start + count - 1`, without what is left open."""
        fields = {
            "model": self.model,
            "count": count,
            "seed": self.seed,
            "label": self.label,
            "balance": self.balance,
            "truncation": self.truncation,
            "format": form,
            "start": start or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


def painting(mask: bytes, fields: dict[str, Any]) -> dict[str, Any]:
    """The form of `POST /v1/paint` for the same fields, on the mask in the bytes of an image file."""
    texts = {name: str(value) for name, value in fields.items()}
    return {"files": {"mask": ("mask", mask, "application/octet-stream")}, "data": texts}


def parts(start: int, count: int, most: int) -> Iterator[tuple[int, int]]:
    """`count` images from `start` on as consecutive (start, count), each of at most `most`.

    Raises:
        VerisynthError: for less than one image, or a start before the first.
    """
    if type(count) is not int or count < 1:
        raise VerisynthError(f"the count is {count!r}; ask for at least 1 image")
    if type(start) is not int or start < 0:
        raise VerisynthError(f"the start is {start!r}; the first image is 0")
    for first in range(start, start + count, most):
        yield first, min(most, start + count - first)
