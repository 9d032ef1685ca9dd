"""How often fingerprints find what they should, and what they should not: the rates in docs/provenance.md.

    python -m tests.fingerprint_rates models data/prepared

Of every release in the first folder, and of a small one for tests, images are generated and written into a store. Some
are looked up as other software leaves them; so are the real images of the second folder, and pictures that come with
scikit-image, cut into squares.
"""

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from contracts.balances import EQUAL
from contracts.claims import Origin
from contracts.imaging import resize
from serving.provenance.evidence import confirmed
from serving.provenance.fingerprint_store import FingerprintStore
from serving.provenance.fingerprints import MAXIMUM_DISTANCE, distances, fingerprint, fingerprints
from serving.runtime import BATCH_SIZE, Model
from tests.releases import write_small_release

LOOKED_UP = 400
SEED = 7
PICTURES = ("astronaut", "brick", "camera", "cat", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field")
PICTURE_SIDE = 64


def jpeg(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(pixels.shape)


def half(pixels: np.ndarray) -> np.ndarray:
    return resize(pixels, pixels.shape[0] // 2, pixels.shape[1] // 2)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mark stripped": lambda pixels: pixels,
    "JPEG 75": jpeg,
    "resized to 50 %": half,
    "both": lambda pixels: jpeg(half(pixels)),
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
}


def loaded(folder: Path) -> Iterator[Model]:
    for release in sorted(path for path in folder.iterdir() if (path / "manifest.json").is_file()):
        yield Model.load(release)


def generated(model: Model, count: int) -> np.ndarray:
    return np.concatenate(
        [model.generate(SEED, start, BATCH_SIZE, 1.0, None, EQUAL).images for start in range(0, count, BATCH_SIZE)]
    )


def pictures() -> Iterator[np.ndarray]:
    """Squares uint8 [64, 64, C] of pictures that come with scikit-image; those that need a download are left out."""
    for name in PICTURES:
        try:
            picture = getattr(skimage.data, name)()
        except Exception as error:  # pooch, a missing network and a missing file fail in many ways
            print(f"left out: {name} ({type(error).__name__})")
            continue
        pixels = picture[..., None] if picture.ndim == 2 else picture[..., :3]
        for top in range(0, pixels.shape[0] - PICTURE_SIDE + 1, PICTURE_SIDE):
            for left in range(0, pixels.shape[1] - PICTURE_SIDE + 1, PICTURE_SIDE):
                yield np.ascontiguousarray(pixels[top : top + PICTURE_SIDE, left : left + PICTURE_SIDE])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="a folder of releases")
    parser.add_argument("prepared", type=Path, help="a folder of prepared datasets, real images")
    parser.add_argument("--generated", type=int, default=8192, help="images of each release in the store")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_small_release(Path(folder) / "small", size=64)
        models = {model.name: model for model in [*loaded(wanted.models), *loaded(Path(folder))]}
        store = FingerprintStore(f"sqlite:///{folder}/fingerprints.db", maximum_images=10**6)
        images = {name: generated(model, wanted.generated) for name, model in models.items()}
        for name, model in models.items():
            store.remember(Origin(name, model.version, SEED, 1.0, None, None), fingerprints(images[name]))

        def look_up(pixels: np.ndarray) -> tuple[bool, bool, int, str]:
            """Whether something is near, whether it is confirmed, and which image of which model it is."""
            words = fingerprint(pixels)
            match = None if words is None else store.nearest(words)
            if match is None:
                return False, False, -1, ""
            return True, confirmed(match, pixels, models) is not None, match.index, match.origin.model

        print(f"\n{len(models) * wanted.generated} generated images in the store; {LOOKED_UP} of each model looked up")
        print(f"| generated | {' | '.join(CHANGES)} |")
        for name in models:
            shares = []
            for change in CHANGES.values():
                answers = [look_up(change(images[name][index])) for index in range(LOOKED_UP)]
                right = [answer[1] and answer[2:] == (index, name) for index, answer in enumerate(answers)]
                shares.append(f"{np.mean(right):.3f}")
            print(f"| `{name}` | {' | '.join(shares)} |")
        print("\n| real | images | something near | confirmed |")
        real = {path.name: _prepared(path) for path in sorted(wanted.prepared.iterdir()) if path.is_dir()}
        for name, found in (real | {"scikit-image": list(pictures())}).items():
            answers = [look_up(pixels) for pixels in found]
            near, sure = (sum(answer[part] for answer in answers) for part in (0, 1))
            print(f"| {name} | {len(answers)} | {near} | {sure} |")
        print(f"\nshare of pairs at most {MAXIMUM_DISTANCE} apart, each image with all others of its model")
        for name in models:
            known = fingerprints(images[name])
            near = sum(int((distances(words, known) <= MAXIMUM_DISTANCE).sum()) - 1 for words in known[:1000])
            print(f"| `{name}` | {near / (1000 * (wanted.generated - 1)):.1e} |")
        store.close()


def _prepared(folder: Path) -> list[np.ndarray]:
    return [pixels for path in sorted(folder.glob("*/images.npy")) for pixels in np.load(path)]


if __name__ == "__main__":
    main()
