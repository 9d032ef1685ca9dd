"""Perceptual fingerprints: what is left of a generated image whose mark was stripped, that was compressed or resized.

A fingerprint is 128 signs of the low frequencies of the luminance (a discrete cosine transform), in two words of 64:
the frequencies 1 to 8 both ways, and those around them. Frequencies are counted per image, so that they are nearly the
same at any size. Flips, rotations and crops change them; `docs/provenance.md` has the measured rates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.claims import Origin
from contracts.imaging import central_square, resize

MAXIMUM_DISTANCE = 20
"""Of 128 signs: the most that an image may differ in from what it is taken for."""
MINIMUM_SIMILARITY = 0.9
"""To the image made again, for a match to be proof."""
# Below this deviation in grey levels an image has no structure whose signs mean anything.
MINIMUM_CONTRAST = 1.0
LARGEST_SIDE = 64
FREQUENCIES = 16
CONCORDANCE_SIDE = 32
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class StoreError(Exception):
    """Fingerprints that could not be written or read. Bears no credentials."""


@dataclass(frozen=True)
class Match:
    """The generated image that an upload is like.

    `distance` in differing signs, at most `MAXIMUM_DISTANCE`; `similarity` in [-1, 1] to that image made again, None
    where its model is not served here in that version, or where it was painted on a client's mask.
    """

    origin: Origin
    index: int
    distance: int
    similarity: float | None = None

    @property
    def proves_synthetic(self) -> bool:
        """Whether the image made again is like the upload."""
        return self.similarity is not None and self.similarity >= MINIMUM_SIMILARITY

    def document(self) -> dict[str, Any]:
        """The match as JSON values."""
        return self.origin.document() | {
            "index": self.index,
            "distance": self.distance,
            "similarity": None if self.similarity is None else round(self.similarity, 4),
        }


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Fingerprints uint64 [N, 2] of images uint8 [N, H, W, 1 or 3], at least 16 pixels a side."""
    waves = _waves(images, frequencies=12)
    square = waves[:, 1:9, 1:9].reshape(len(waves), -1)
    around = (waves[:, 0, 1:9], waves[:, 1:9, 0], waves[:, 9:12, 1:9], waves[:, 1:9, 9:12])
    signs = np.concatenate([square, *(part.reshape(len(waves), -1) for part in around)], axis=1) > 0
    words: np.ndarray = np.packbits(signs, axis=1).view("<u8")
    return words


def fingerprint(pixels: np.ndarray) -> np.ndarray | None:
    """The fingerprint uint64 [2] of pixels uint8 [H, W, 1 or 3]; None for an image without contrast."""
    return None if _luminance(_fitted(pixels[None])).std() < MINIMUM_CONTRAST else fingerprints(pixels[None])[0]


def distances(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Differing signs uint8 [N] between a fingerprint uint64 [2] and others uint64 [N, 2]."""
    return np.asarray(np.bitwise_count(known[:, 0] ^ wanted[0]) + np.bitwise_count(known[:, 1] ^ wanted[1]))


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """How alike two images uint8 [H, W, 1 or 3] of any size are, in [-1, 1]: the lesser of two agreements.

    One is the correlation of their low frequencies, the weaker ones raised: natural images lose strength with
    frequency. It cannot tell a faint spot from a bright one, and some images hold little else: so the other is Lin's
    concordance correlation of their luminance (Biometrics 1989, 45(1), 255), which sees level and contrast, at a size
    where resizing has changed neither.
    """
    return min(_correlation(one, other), _concordance(one, other))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    radius = np.hypot(*np.ogrid[:FREQUENCIES, :FREQUENCIES])
    counted = (radius > 0) & (radius < FREQUENCIES)
    first, second = (
        (_waves(pixels[None], FREQUENCIES)[0] * radius**1.5)[counted].astype(np.float64) for pixels in (one, other)
    )
    # Of an image without structure rounding alone is left, and like any other rounding.
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-3))


def _concordance(one: np.ndarray, other: np.ndarray) -> float:
    squares = [_fitted(pixels[None])[0] for pixels in (one, other)]
    side = min(CONCORDANCE_SIDE, *(len(square) for square in squares))
    first, second = (_luminance(resize(square, side, side)[None]).astype(np.float64) for square in squares)
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    return float(2 * covariance / max(first.var() + second.var() + (first.mean() - second.mean()) ** 2, 1e-3))


def _waves(images: np.ndarray, frequencies: int) -> np.ndarray:
    """The lowest coefficients float32 [N, frequencies, frequencies] of a cosine transform (DCT-II) of the luminance."""
    luminance = _luminance(_fitted(images))
    height, width = luminance.shape[1:]
    assert height == width, f"{height}x{width} is no square"
    positions = (np.arange(height, dtype=np.float32) + 0.5) / height
    cosines = np.cos(np.pi * np.arange(frequencies, dtype=np.float32)[:, None] * positions)
    return np.asarray(cosines @ luminance @ cosines.T / height**2)


def _luminance(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 1 or 3] to float32 [N, H, W] (ITU-R 601)."""
    levels = images.astype(np.float32)
    return levels[..., 0] if levels.shape[3] == 1 else levels @ LUMINANCE


def _fitted(images: np.ndarray) -> np.ndarray:
    """The central squares, at most 64 pixels a side."""
    side = min(*images.shape[1:3], LARGEST_SIDE)
    if images.shape[1:3] == (side, side):
        return images
    return np.stack([resize(central_square(image), side, side) for image in images])
