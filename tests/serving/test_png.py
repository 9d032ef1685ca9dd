import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contracts.imaging import decode, encode_png
from serving.png import encode
from tests.releases import real_images


@given(st.integers(16, 70), st.integers(16, 70), st.sampled_from([1, 3]), st.integers(0, 2**32))
def test_pixels_come_back(height: int, width: int, channels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    assert np.array_equal(decode(encode(pixels)).pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_is_like_pillows(channels: int) -> None:
    image = real_images(1, size=64, channels=channels)[0]
    ours, pillows = encode(image), encode_png(image)
    assert ours[:33] == pillows[:33]
    assert len(ours) < 1.15 * len(pillows)
    with Image.open(io.BytesIO(ours)) as opened:
        opened.verify()


def test_a_part_of_a_larger_array_is_encoded() -> None:
    sheet = real_images(1, size=64)[0]
    assert np.array_equal(decode(encode(sheet[8:40, 8:40])).pixels, sheet[8:40, 8:40])
