"""Bytes to pixels and back, the one resize and the one quantiser.

Real and generated images, in training and in the service, go through these functions and no others:
a difference between two copies of them would be a fingerprint that a detector learns instead of the image.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from contracts import dicom
from contracts.errors import ImageError
from contracts.header import open_image

MASK_FORMATS = ("PNG", "JPEG", "TIFF")
FORMATS = (*MASK_FORMATS, "WEBP")
MAXIMUM_TILES = 16
FOREGROUND_LEVELS = (1, 255, 65_535)
"""What foreground is called in masks of two values: one, or all bits of 8 or 16."""
BACKGROUND_LEVEL = 20
"""The highest grey level that counts as background where a tile's foreground is measured."""


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before any pixel is decoded."""

    maximum_side: int = 16_384
    maximum_pixels: int = 64_000_000
    minimum_side: int = 16


@dataclass(frozen=True)
class DecodedImage:
    """`pixels` uint8 [H, W, C] with C 1 or 3; `format` as Pillow names it, or `DICOM`."""

    pixels: np.ndarray
    format: str


@dataclass(frozen=True)
class ImageSpec:
    """The images a model knows: `size` pixels square, `channels` 1 or 3.

    `tile_side` None: a whole image is cropped to its central square and resized to `size`.
    `tile_side` n: the model knows n x n details; a larger image is judged by tiles of it, those with at least the
    share `minimum_foreground` of pixels above `BACKGROUND_LEVEL`: of others it has seen none.
    """

    size: int
    channels: int
    tile_side: int | None = None
    minimum_foreground: float = 0.0


def decode(data: bytes, limits: DecodeLimits = DecodeLimits(), dicom_range: str = "window") -> DecodedImage:
    """Decode PNG, JPEG, TIFF, WebP or DICOM bytes; `dicom_range` is `window` or `full`.

    Deeper pixels are converted by bit depth, palettes and CMYK to RGB, transparency is laid on
    black, EXIF orientation is applied, metadata is dropped.

    Raises:
        ImageError: for anything else, with the reason.
    """
    if dicom.is_dicom(data):
        pixels = dicom.decode(data, dicom_range, check_size=lambda width, height: _check_size(width, height, limits))
        return DecodedImage(pixels, "DICOM")
    with _opened(data, limits, FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return DecodedImage(_pixels(image), str(image.format))


def decode_mask(data: bytes, limits: DecodeLimits = DecodeLimits()) -> np.ndarray:
    """Foreground bool [H, W] of a PNG, JPEG or TIFF mask: whatever is not zero, at any bit depth.

    JPEG smears zero, so there foreground is what is nearer to white than to black.

    Raises:
        ImageError: as `decode`.
    """
    with _opened(data, limits, MASK_FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        # Instance masks number their objects from 1: scaled by depth, the first hundred of 16 bits would vanish.
        deep = upright.mode.startswith("I") or upright.mode == "F"
        levels = np.asarray(upright)[..., None] if deep else _pixels(upright)
        return np.asarray((levels >= 128 if image.format == "JPEG" else levels != 0).any(axis=2))


def decode_drawn_mask(data: bytes, limits: DecodeLimits = DecodeLimits()) -> np.ndarray:
    """A mask uint8 [H, W] of 0 and 255 that somebody drew: a PNG or TIFF of 0 and one other value.

    Stricter than `decode_mask`, so that a photograph is not taken for a mask. Colours must be greys, foreground one of
    `FOREGROUND_LEVELS`, and transparency is laid on black.

    Raises:
        ImageError: `not_a_mask` for other values, `empty_mask` where nothing is foreground, and as `decode`.
    """
    if dicom.is_dicom(data):
        raise ImageError("not_a_mask", "a DICOM file is no mask; send a PNG or TIFF")
    with _opened(data, limits, MASK_FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        deep = upright.mode.startswith("I") or upright.mode == "F"
        levels = np.asarray(upright)[..., None] if deep else _pixels(upright)
        if (levels != levels[..., :1]).any():
            raise ImageError("not_a_mask", "the mask is coloured; send one channel, of 0 and 255")
        plane = levels[..., 0]
        values = np.unique(plane).tolist()
        if values == [0]:
            raise ImageError("empty_mask", "all pixels of the mask are 0; draw what is to be painted in 255")
        if len(values) != 2 or values[0] != 0 or values[1] not in FOREGROUND_LEVELS:
            raise ImageError("not_a_mask", _of_other_values(values, str(image.format)))
        return np.where(plane != 0, np.uint8(255), np.uint8(0))


def _of_other_values(values: list[float], image_format: str) -> str:
    """Why these values, in ascending order, are none of a mask."""
    wanted = "a mask holds two values, 0 and 255 (or 0 and 1)"
    if len(values) == 1:
        return f"all pixels of the mask are {values[0]:g}: without background it has no shape; {wanted}"
    smeared = "; JPEG smears edges: send PNG" if image_format == "JPEG" else ""
    return f"the file holds {len(values)} grey levels from {values[0]:g} to {values[-1]:g}; {wanted}{smeared}"


@contextmanager
def _opened(data: bytes, limits: DecodeLimits, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """A loaded Pillow image; whatever goes wrong with it, inside the block too, is an ImageError."""
    try:
        with open_image(data, formats, lambda width, height: _check_size(width, height, limits)) as image:
            frames = getattr(image, "n_frames", 1)
            if frames != 1:
                raise ImageError("several_frames", f"the {image.format} holds {frames} frames; send one frame")
            image.load()
            yield image
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", f"the {len(data)} bytes are no {', '.join(formats)} or DICOM image") from error
    except Exception as error:  # Pillow raises many kinds on broken files; all mean the same to the user
        raise ImageError("broken_image", f"the image cannot be decoded: {error}") from error


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if max(width, height) > limits.maximum_side or width * height > limits.maximum_pixels:
        raise ImageError(
            "image_too_large",
            f"the image is {width}x{height}; at most {limits.maximum_side} pixels a side "
            f"and {limits.maximum_pixels} in all are taken",
        )
    if min(width, height) < limits.minimum_side:
        raise ImageError(
            "image_too_small", f"the image is {width}x{height}; at least {limits.minimum_side} pixels a side are needed"
        )


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "1":
        return np.asarray(image.convert("L"))[..., None]
    if image.mode == "L":
        return np.asarray(image)[..., None]
    if image.mode.startswith("I") or image.mode == "F":
        return to_uint8(np.asarray(image))[..., None]
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Grey levels of any depth to uint8 by depth: the type's full range becomes 0 to 255, rounded.

    Integers: boolean, 8, 16 and 32 bits (32-bit images holding 16-bit values count as 16 bits).
    Floats must lie in [0, 1].

    Raises:
        ImageError: for floats outside [0, 1], negative integers, NaN.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ImageError("unsupported_pixels", f"float pixels lie in [{low}, {high}]; scale them to [0, 1]")
        depth = 1.0
    elif values.dtype.kind in "iu" and low >= 0:
        depth = 65_535.0 if high <= 65_535 else 4_294_967_295.0
    else:
        raise ImageError("unsupported_pixels", f"pixels of type {values.dtype} start at {low}; use unsigned values")
    return np.rint(values.astype(np.float64) * (255.0 / depth)).astype(np.uint8)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H, W, 1 or 3] to uint8 [H, W, channels]: luminance (ITU-R 601) or repetition."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The one resize: antialiased bicubic on uint8 [H, W, C]."""
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, pixels.shape[2])


def central_square(pixels: np.ndarray) -> np.ndarray:
    """The largest central square of [H, W, ...]."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def fit(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """An image of any size as the model's input: uint8 [H, W, 1 or 3] to uint8 [K, size, size, channels].

    An image that already has the model's size is taken as it is. K is 1 unless the model knows
    tiles and the image is larger than one: then up to 16 tiles on an even grid, less those of background where there
    are others.
    """
    pixels = with_channels(pixels, spec.channels)
    height, width = pixels.shape[:2]
    if (height, width) == (spec.size, spec.size):
        return pixels[None]
    if spec.tile_side is None or min(height, width) < spec.tile_side:
        return resize(central_square(pixels), spec.size, spec.size)[None]
    per_side = int(MAXIMUM_TILES**0.5)
    tiles = [
        pixels[top : top + spec.tile_side, left : left + spec.tile_side]
        for top in _starts(height, spec.tile_side, per_side)
        for left in _starts(width, spec.tile_side, per_side)
    ]
    filled = [tile for tile in tiles if foreground(tile) >= spec.minimum_foreground]
    return np.stack([resize(tile, spec.size, spec.size) for tile in filled or tiles])


def foreground(pixels: np.ndarray) -> float:
    """Share of pixels of uint8 [H, W, 1 or 3] whose luminance is above `BACKGROUND_LEVEL`."""
    return float((with_channels(pixels, 1) > BACKGROUND_LEVEL).mean())


def _starts(length: int, side: int, most: int) -> list[int]:
    count = min(most, length // side)
    if count == 1:
        return [(length - side) // 2]
    return [round(start) for start in np.linspace(0, length - side, count)]


def quantise(images: np.ndarray) -> np.ndarray:
    """The one quantiser: float [-1, 1] to uint8, rounded to nearest: no grey level is lost on the way and back."""
    levels: np.ndarray = np.rint(np.clip(images * np.float32(127.5) + np.float32(127.5), 0, 255))
    return levels.astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 1 or 3] as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """uint8 [N, H, W, C] laid out row by row on white: uint8 [rows * (H + gap) + gap, columns * (W + gap) + gap, C]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet
