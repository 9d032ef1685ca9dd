import numpy as np
import torch

from contracts import imaging
from training import pixels


def test_both_quantisers_are_one() -> None:
    images = np.concatenate([np.linspace(-1.2, 1.2, 100_001), (np.arange(256) / 127.5 - 1)]).astype(np.float32)
    found = pixels.quantise(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(found, imaging.quantise(images))


def test_no_level_is_lost_on_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    there = pixels.to_signed_unit(pixels.tensor(levels))
    assert (float(there.min()), float(there.max())) == (-1, 1)
    np.testing.assert_array_equal(pixels.quantise(there).permute(0, 2, 3, 1).numpy(), levels)
    assert float(pixels.to_unit(pixels.tensor(levels)).max()) == 1


def test_a_read_only_memory_map_becomes_a_tensor_of_its_own(tmp_path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4, 3), dtype=np.uint8))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    changed = pixels.tensor(mapped)
    changed += 1
    assert mapped.max() == 0
    assert changed.shape == (2, 3, 4, 4)
