from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import ReleaseError
from contracts.golden import FILE, Golden, probe_mask, probes
from tests.releases import real_images

GRAPH = Path("a.onnx")


@pytest.fixture
def golden() -> Golden:
    scores = np.linspace(0, 1, 8, dtype=np.float32)
    return Golden(real_images(4), scores, scores[::-1].copy(), real_images(4, seed=1))


def test_they_come_back_from_their_file_and_the_same_ones_are_the_same_bytes(golden: Golden, tmp_path: Path) -> None:
    golden.write(tmp_path / FILE)
    found = Golden.read(tmp_path / FILE)
    for name in ("images", "probabilities", "typicalities", "painted"):
        np.testing.assert_array_equal(getattr(found, name), getattr(golden, name))
    replace(golden, painted=None).write(tmp_path / "unpainted.npz")
    assert Golden.read(tmp_path / "unpainted.npz").painted is None
    found.write(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / FILE).read_bytes()


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"images": np.zeros((3, 8, 8, 1), np.uint8)},
        {"images": np.zeros((4, 8, 8, 1), np.float32)},
        {"probabilities": np.zeros(4, np.float32)},
        {"typicalities": np.full(8, None)},
        {"painted": np.zeros(4, np.float32)},
    ],
)
def test_a_file_that_holds_none_is_refused(golden: Golden, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    whole = {"images": golden.images, "probabilities": golden.probabilities, "typicalities": golden.typicalities}
    np.savez(tmp_path / FILE, **(whole | arrays if arrays else {}))  # type: ignore[arg-type]
    with pytest.raises(ReleaseError, match=r"cannot be read|does not hold 4 images"):
        Golden.read(tmp_path / FILE)


def test_rounding_passes_and_other_pixels_do_not(golden: Golden) -> None:
    near = np.clip(golden.images.astype(int) + 2, 0, 255).astype(np.uint8)
    near.ravel()[: near.size // 1000] ^= 128
    golden.check_images(near, GRAPH)
    near.ravel()[: near.size // 500] ^= 128
    with pytest.raises(ReleaseError, match=r"a\.onnx does not draw the golden samples: .*% .* by up to 1"):
        golden.check_images(near ^ np.uint8(64), GRAPH)
    with pytest.raises(ReleaseError, match=r"draws .*; the golden samples are"):
        golden.check_images(golden.images[:, :16], GRAPH)
    with pytest.raises(ReleaseError, match="does not draw"):
        golden.check_painted(golden.images, GRAPH)
    with pytest.raises(ReleaseError, match=r"no golden samples of a\.onnx"):
        replace(golden, painted=None).check_painted(golden.images, GRAPH)


@pytest.mark.parametrize("wrong", [0.02, -0.02, np.nan, np.inf])
def test_other_scores_are_refused_and_so_is_what_is_no_number(golden: Golden, wrong: float) -> None:
    golden.check_scores(golden.probabilities + np.float32(0.009), golden.typicalities, GRAPH)
    other = golden.typicalities.copy()
    other[5] += wrong
    with pytest.raises(ReleaseError, match="does not judge the golden samples as it did: a typicality"):
        golden.check_scores(golden.probabilities, other, GRAPH)


def test_what_is_judged_and_painted_on_follows_from_the_samples(golden: Golden) -> None:
    assert probes(golden.images).shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(probes(golden.images)[4:, :, 0], golden.images[:, :, -1])
    assert probe_mask(4).tolist() == [[255, 255, 0, 0]] * 4
