"""What is known of where an uploaded image comes from.

Its mark is read and checked, and the image made again from what the mark says. Where that proves nothing, the generated
image whose fingerprint is nearest is made again, too.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contracts.balances import EQUAL
from contracts.claims import GRID, MASK, Claim, ClaimError, Origin, pixel_sha256
from contracts.marks import read_mark
from serving.provenance.claims import ABSENT, BROKEN, VALID, ClaimKeys
from serving.provenance.fingerprints import Match, similarity
from serving.runtime import Model, ModelError, Samples

# Another processor may round to the next grey level.
ROUNDING_LEVELS = 1
SYNTHETIC = "synthetic"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """`status` is one of `serving.provenance.claims.STATUSES`; `claim` is None where none is made or none can be read.

    `reproduced`: whether the model of the claim draws this very image; None where that version is not served here, and
    for what cannot be made again from a claim alone: grids, and what was painted on a client's mask.
    """

    status: str
    claim: Claim | None = None
    reproduced: bool | None = None
    match: Match | None = None

    @property
    def proves_synthetic(self) -> bool:
        """Whether the image is known to be generated, whatever a detector says."""
        matched = self.match is not None and self.match.proves_synthetic
        return self.status == VALID or self.reproduced is True or matched

    def verdict(self, detected: str) -> str:
        """The verdict on the image, beside a detector's."""
        return SYNTHETIC if self.proves_synthetic else detected

    def document(self) -> dict[str, Any]:
        """The evidence as JSON values."""
        return {
            "status": self.status,
            "claim": None if self.claim is None else self.claim.document(),
            "key_id": None if self.claim is None else self.claim.key_id,
            "reproduced": self.reproduced,
            "match": None if self.match is None else self.match.document(),
        }


def examine(data: bytes, pixels: np.ndarray, keyring: ClaimKeys, models: Mapping[str, Model]) -> Evidence:
    """What the mark in an uploaded file is worth, `pixels` uint8 [H, W, C] being what the file was decoded to.

    At most one image is generated. No file makes this raise.
    """
    try:
        claim = read_mark(data)
    except ClaimError as error:
        logger.info("a mark of origin cannot be read: %s", error)
        return Evidence(BROKEN)
    if claim is None:
        return Evidence(ABSENT)
    unaltered = claim.pixel_sha256 == pixel_sha256(pixels)
    status = keyring.status(claim.document()) if unaltered else BROKEN
    return Evidence(status, claim, _reproduced(claim, pixels, models))


def _reproduced(claim: Claim, pixels: np.ndarray, models: Mapping[str, Model]) -> bool | None:
    model = _maker(claim.origin, models)
    if model is None or claim.kind == GRID:
        return None
    try:
        samples = remake(model, claim.origin, claim.index)
    except ModelError:
        logger.exception("%s cannot make the image of a claim", model.name)
        return None
    if samples is None or (claim.kind == MASK and samples.masks is None):
        return False
    drawn = samples.images[0] if claim.kind != MASK else np.asarray(samples.masks)[0][..., None]
    return drawn.shape == pixels.shape and bool(np.abs(drawn.astype(int) - pixels).max() <= ROUNDING_LEVELS)


def confirmed(match: Match, pixels: np.ndarray, models: Mapping[str, Model]) -> Match | None:
    """The match of an upload uint8 [H, W, C] with its similarity; None where the image made again is unlike it.

    Where it cannot be made again, the match stays as it is, a hint and no proof.
    """
    model = _maker(match.origin, models)
    if model is None:
        return match
    try:
        samples = remake(model, match.origin, match.index)
    except ModelError:
        logger.exception("%s cannot make the image that an upload is like", model.name)
        return match
    if samples is None:
        return match
    found = replace(match, similarity=similarity(samples.images[0], pixels))
    return found if found.proves_synthetic else None


def _maker(origin: Origin, models: Mapping[str, Model]) -> Model | None:
    """The model that can make images of an origin again; None where it is not served here, or a mask is missing."""
    model = models.get(origin.model)
    return model if model is not None and model.version == origin.version and origin.mask_sha256 is None else None


def remake(model: Model, origin: Origin, index: int) -> Samples | None:
    """The one sample again; None where the model has no such label.

    Raises:
        ModelError: when the graph cannot be run.
    """
    if origin.label is not None and origin.label not in model.release.labels:
        return None
    return model.generate(origin.seed, index, 1, origin.truncation, origin.label, origin.balance or EQUAL)
