"""An image file's header: what it is and how large, before anything of its size is reserved or decoded."""

from collections.abc import Callable

from PIL import Image

from contracts.reader import BoundedReader


def open_image(
    data: bytes, formats: tuple[str, ...], check_size: Callable[[int, int], None] = lambda *_: None
) -> Image.Image:
    """A Pillow image of one of the formats, its pixels not decoded yet; `check_size(width, height)` may refuse it.

    Raises:
        ImageError: what `check_size` raises, and `broken_image` for a file of more parts than any image has.
        Exception: of many kinds, for files that are broken or no image.
    """
    # Pillow's limit is one for the whole process, and in the way of a higher one of ours.
    Image.MAX_IMAGE_PIXELS = None
    if (canvas := _webp_canvas(data)) is not None:
        # Pillow has libwebp reserve the canvas when it opens the file.
        check_size(*canvas)
    image = Image.open(BoundedReader(data), formats=formats)
    check_size(*image.size)
    return image


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP file names; None for any other file, and for one that is broken there."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    chunk, head = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return None
