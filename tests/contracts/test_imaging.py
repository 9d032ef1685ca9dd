import contextlib
import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import ImageError
from contracts.imaging import (
    DecodeLimits,
    ImageSpec,
    central_square,
    decode,
    decode_drawn_mask,
    decode_mask,
    encode_png,
    fit,
    foreground,
    grid,
    quantise,
    resize,
    to_uint8,
    with_channels,
)
from tests.images import dicom, encoded, png, speckle

RGB = Image.fromarray(speckle(0, 24, 20))
FILES = {
    "png": encoded(RGB, "PNG"),
    "png palette": encoded(RGB.quantize(16), "PNG"),
    "png 16-bit": png(speckle(1, 20, 20, 1)[..., 0].astype(np.uint16) * 257),
    "jpeg": encoded(RGB, "JPEG"),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "tiff": encoded(RGB, "TIFF"),
    "tiff deflate": encoded(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "webp": encoded(RGB, "WEBP"),
    "webp lossless": encoded(RGB.convert("RGBA"), "WEBP", lossless=True),
    "dicom": dicom(np.arange(400, dtype=np.uint16).reshape(20, 20)),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_decodes_to_uint8(kind: str) -> None:
    pixels = decode(FILES[kind]).pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(FILES)), data=st.data())
def test_altered_bytes_are_decoded_or_refused_as_an_image_error(kind: str, data: st.DataObject) -> None:
    altered = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(altered)))
    for read in (decode, decode_mask, decode_drawn_mask):
        with contextlib.suppress(ImageError):
            read(bytes(altered[:end] if end % 2 else altered))


@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


def test_quantiser_keeps_all_256_levels() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(quantise(levels.astype(np.float32) / np.float32(127.5) - np.float32(1)), levels)


def test_quantiser_rounds_to_the_nearest_level_and_clips() -> None:
    between = np.array([-9.0, 99.6, 100.4, 300.0], dtype=np.float32) / np.float32(127.5) - np.float32(1)
    assert quantise(between).tolist() == [0, 100, 100, 255]


def test_sixteen_bits_are_converted_by_depth_not_clipped() -> None:
    values = np.linspace(0, 65_535, 400).round().astype(np.uint16).reshape(20, 20)
    decoded = decode(png(values)).pixels[..., 0]
    assert np.array_equal(decoded, np.rint(values / 257).astype(np.uint8))
    assert decode(png(np.full((20, 20), 256, dtype=np.uint16))).pixels.max() == 1


@pytest.mark.parametrize(
    "values", [np.array([[0.0, 1.5]]), np.array([[-0.1, 0.5]]), np.array([[np.nan, 0.5]]), np.array([[-3, 7]])]
)
def test_values_without_a_known_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ImageError) as refused:
        to_uint8(values)
    assert refused.value.code == "unsupported_pixels"


def test_transparency_is_laid_on_black() -> None:
    image = Image.new("RGBA", (20, 20), (200, 100, 50, 0))
    image.paste((200, 100, 50, 255), (0, 0, 10, 20))
    pixels = decode(encoded(image, "PNG")).pixels
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[0, 19].tolist() == [0, 0, 0]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(RGB, "JPEG", exif=exif)).pixels.shape == (20, 24, 3)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as refused:
        decode(data)
    return refused.value.code


def test_several_frames_are_refused() -> None:
    frames = [Image.fromarray(speckle(seed)) for seed in range(3)]
    assert refusal(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])) == "several_frames"
    assert refusal(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])) == "several_frames"
    assert refusal(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])) == "several_frames"


def test_foreign_tiny_and_truncated_files_are_refused() -> None:
    assert refusal(encoded(RGB, "GIF")) == "not_an_image"
    assert refusal(encoded(RGB, "BMP")) == "not_an_image"
    assert refusal(b"") == "not_an_image"
    assert refusal(png(speckle(0, 8, 8))) == "image_too_small"
    assert refusal(FILES["png"][:-200]) == "broken_image"


def test_a_bomb_is_refused_from_its_header_alone() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (header, b"IDAT")
    ]
    assert refusal(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)) == "image_too_large"
    with pytest.raises(ImageError, match="at most 100 pixels a side"):
        decode(png(speckle(0, 101, 20)), DecodeLimits(maximum_side=100))


def test_masks_are_whatever_is_not_zero() -> None:
    numbered = np.zeros((20, 20), dtype=np.uint16)
    numbered[:5], numbered[5:8] = 1, 40_000
    assert decode_mask(png(numbered)).sum() == 8 * 20
    assert decode_mask(png(numbered > 0)).sum() == 8 * 20
    smeared = Image.fromarray((numbered > 0).astype(np.uint8) * 255)
    assert np.array_equal(decode_mask(encoded(smeared, "JPEG", quality=60)), numbered > 0)


SQUARE = np.zeros((20, 24), dtype=np.uint8)
SQUARE[4:9, 5:12] = 1
PHOTOGRAPH = speckle(0, 20, 24)
DRAWN = {
    "0 and 255": png(SQUARE * np.uint8(255)),
    "0 and 1": png(SQUARE),
    "three channels": png(np.repeat(SQUARE[..., None], 3, axis=2) * np.uint8(255)),
    "a canvas": encoded(Image.fromarray(SQUARE * np.uint8(255)).convert("RGBA"), "PNG"),
    "1 bit": png(SQUARE > 0),
    "16 bits": png(SQUARE.astype(np.uint16) * 65_535),
    "16 bits, 0 and 1": png(SQUARE.astype(np.uint16)),
    "tiff": encoded(Image.fromarray(SQUARE * np.uint8(255)), "TIFF"),
    "float tiff": encoded(Image.fromarray(SQUARE.astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_drawn_mask_becomes_0_and_255(kind: str) -> None:
    mask = decode_drawn_mask(DRAWN[kind])
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, SQUARE * 255)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (png(PHOTOGRAPH), "not_a_mask", "coloured"),
        (png(PHOTOGRAPH[..., :1]), "not_a_mask", r"grey levels from \d+ to \d+; a mask holds two values"),
        (png(SQUARE * np.uint8(3)), "not_a_mask", "2 grey levels from 0 to 3"),
        (png(SQUARE + np.uint8(1)), "not_a_mask", "2 grey levels from 1 to 2"),
        (png(np.full((20, 24), 255, np.uint8)), "not_a_mask", "without background"),
        (png(np.zeros((20, 24), np.uint8)), "empty_mask", "all pixels of the mask are 0"),
        (encoded(Image.fromarray(SQUARE * np.uint8(255)), "JPEG"), "not_a_mask", "JPEG smears edges"),
        (dicom(np.arange(400, dtype=np.uint16).reshape(20, 20)), "not_a_mask", "DICOM"),
        (png(np.zeros((20, 8), np.uint8)), "image_too_small", "at least 16"),
        (b"no image", "not_an_image", "no PNG"),
    ],
)
def test_what_is_no_drawn_mask_is_refused_in_words(data: bytes, code: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as refused:
        decode_drawn_mask(data)
    assert refused.value.code == code


def test_channels_are_repeated_or_made_luminance() -> None:
    grey = speckle(0, 20, 20, 1)
    assert np.array_equal(with_channels(with_channels(grey, 3), 1), grey)
    red = np.zeros((20, 20, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert with_channels(red, 1).max() == 76


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "tile_side", "tiles"),
    [(64, 64, 48, 1), (90, 70, None, 1), (100, 100, 48, 4), (300, 60, 48, 4), (40, 300, 48, 1), (1000, 1000, 48, 16)],
)
def test_fit_makes_the_models_input(height: int, width: int, tile_side: int | None, tiles: int, channels: int) -> None:
    fitted = fit(speckle(0, height, width, 3), ImageSpec(64, channels, tile_side))
    assert fitted.shape == (tiles, 64, 64, channels)
    assert fitted.dtype == np.uint8


def test_fit_leaves_out_tiles_of_background_where_there_are_others() -> None:
    spec = ImageSpec(32, 3, tile_side=32, minimum_foreground=0.5)
    pixels = speckle(0, 64, 64) // 2 + 100
    pixels[:, :32] = 20
    assert np.array_equal(fit(pixels, spec), fit(pixels, replace(spec, minimum_foreground=0.0))[[1, 3]])
    assert len(fit(np.zeros_like(pixels), spec)) == 4


def test_foreground_counts_pixels_above_grey_level_20() -> None:
    assert foreground(np.array([[20, 21], [0, 255]], dtype=np.uint8)[..., None]) == 0.5


def test_fit_leaves_an_image_of_the_models_size_alone() -> None:
    pixels = speckle(0, 64, 64)
    assert np.array_equal(fit(pixels, ImageSpec(64, 3, 48))[0], pixels)


def test_central_square_is_central() -> None:
    pixels = np.zeros((10, 20, 1), dtype=np.uint8)
    pixels[:, 5:15] = 1
    assert central_square(pixels).shape == (10, 10, 1)
    assert central_square(pixels).min() == 1


def test_resize_keeps_flat_images_flat() -> None:
    assert np.unique(resize(np.full((90, 70, 3), 137, dtype=np.uint8), 32, 32)).tolist() == [137]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip(channels: int) -> None:
    pixels = speckle(0, 20, 30, channels)
    assert np.array_equal(decode(encode_png(pixels)).pixels, pixels)
    assert Image.open(io.BytesIO(encode_png(pixels))).size == (30, 20)


def test_grid_lays_images_out_row_by_row() -> None:
    images = np.stack([np.full((4, 4, 1), value, dtype=np.uint8) for value in (10, 20, 30)])
    sheet = grid(images, columns=2, gap=1)
    assert sheet.shape == (11, 11, 1)
    assert [sheet[1, 1, 0], sheet[1, 6, 0], sheet[6, 1, 0], sheet[6, 6, 0]] == [10, 20, 30, 255]
