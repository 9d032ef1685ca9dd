"""Golden samples: what a release drew and judged when it was made, `golden.npz`, so that a service can try it again.

Checksums say that files are whole; golden samples say that these graphs do, on this machine, what was measured.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts.errors import ReleaseError

FILE = "golden.npz"
COUNT = 4
"""Images 0 to 3 of seed 0, labels in turn."""

# Another processor or a GPU sums in another order, and a value on the border of two levels rounds either way; networks
# before it make of that a level more. A graph with other weights differs in most pixels.
TOLERATED_LEVELS = 2
TOLERATED_SHARE = 0.001
TOLERATED_SCORE = 0.01


@dataclass(frozen=True)
class Golden:
    """`images` uint8 [4, H, W, C] as drawn, `painted` the same on `probe_mask` where there is a painter.

    Of the images of `probes`, `probabilities` and `typicalities` float32 [8].
    """

    images: np.ndarray
    probabilities: np.ndarray
    typicalities: np.ndarray
    painted: np.ndarray | None = None

    @staticmethod
    def read(path: Path) -> "Golden":
        """The golden samples in a file.

        Raises:
            ReleaseError: for a file that holds none.
        """
        try:
            with np.load(path) as arrays:
                golden = Golden(
                    arrays["images"], arrays["probabilities"], arrays["typicalities"], arrays.get("painted")
                )
        except Exception as error:  # numpy and zipfile raise many kinds on malformed files
            raise ReleaseError(f"{path} cannot be read: {error}") from error
        pictures = [golden.images] if golden.painted is None else [golden.images, golden.painted]
        scores = [golden.probabilities, golden.typicalities]
        if not all(array.dtype == np.uint8 and array.shape[:1] == (COUNT,) for array in pictures) or not all(
            array.dtype == np.float32 and array.shape == (2 * COUNT,) for array in scores
        ):
            raise ReleaseError(f"{path} does not hold {COUNT} images and {2 * COUNT} scores; export the release again")
        return golden

    def write(self, path: Path) -> None:
        """Write them as compressed arrays; the same samples give the same bytes."""
        arrays = {"images": self.images, "probabilities": self.probabilities, "typicalities": self.typicalities}
        painted = {} if self.painted is None else {"painted": self.painted}
        np.savez_compressed(path, allow_pickle=False, **arrays, **painted)

    def check_images(self, images: np.ndarray, graph: Path) -> None:
        """Raises ReleaseError where `graph` draws other images, uint8 [4, H, W, C]."""
        _check_pixels(images, self.images, graph)

    def check_painted(self, images: np.ndarray, graph: Path) -> None:
        """Raises ReleaseError where `graph` paints other images, uint8 [4, H, W, C], or none were kept of it."""
        if self.painted is None:
            raise ReleaseError(f"there are no golden samples of {graph}; export the release again")
        _check_pixels(images, self.painted, graph)

    def check_scores(self, probabilities: np.ndarray, typicalities: np.ndarray, graph: Path) -> None:
        """Raises ReleaseError where `graph` gives the images of `probes` other scores, float32 [8] each, or none."""
        for name, found, expected in (
            ("probability", probabilities, self.probabilities),
            ("typicality", typicalities, self.typicalities),
        ):
            difference = float(np.abs(found.astype(np.float64) - expected).max())
            # So written, what is no number is refused as well.
            if not difference <= TOLERATED_SCORE:
                raise ReleaseError(
                    f"{graph} does not judge the golden samples as it did: a {name} differs by {difference:.3g}, "
                    f"allowed {TOLERATED_SCORE}"
                )


def probes(images: np.ndarray) -> np.ndarray:
    """What the detector judges, uint8 [8, H, W, C]: the samples [4, H, W, C], and the same mirrored.

    No real image leaves training this way.
    """
    return np.concatenate([images, images[:, :, ::-1]])


def probe_mask(size: int) -> np.ndarray:
    """What is painted on, uint8 [size, size]: the left half is inside."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, : size // 2] = 255
    return mask


def _check_pixels(found: np.ndarray, expected: np.ndarray, graph: Path) -> None:
    if found.shape != expected.shape:
        raise ReleaseError(f"{graph} draws {found.shape}; the golden samples are {expected.shape}")
    differences = np.abs(found.astype(int) - expected)
    share = float((differences > TOLERATED_LEVELS).mean())
    if share > TOLERATED_SHARE:
        raise ReleaseError(
            f"{graph} does not draw the golden samples: {share:.1%} of the values differ by more than "
            f"{TOLERATED_LEVELS} grey levels, by up to {differences.max()}"
        )
