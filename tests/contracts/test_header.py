import struct
import zlib

import pytest
from PIL import Image

from contracts.errors import ImageError
from contracts.header import open_image
from contracts.imaging import DecodeLimits, decode
from tests.images import encoded, speckle

WEBPS = {
    "lossy": encoded(Image.fromarray(speckle(0, 24, 20)), "WEBP"),
    "lossless": encoded(Image.fromarray(speckle(0, 24, 20)), "WEBP", lossless=True),
    "extended": encoded(Image.fromarray(speckle(0, 24, 20)), "WEBP", xmp=b"<x/>"),
}


def refuse(width: int, height: int) -> None:
    raise ImageError("image_too_large", f"{width}x{height}")


@pytest.mark.parametrize("kind", WEBPS)
def test_the_canvas_of_a_webp_is_weighed_before_it_is_reserved(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageError, match="20x24"):
        open_image(WEBPS[kind], ("WEBP",), refuse)


def test_a_webp_bomb_is_refused_from_its_header_alone() -> None:
    bomb = bytearray(WEBPS["extended"])
    bomb[24:30] = (15_999).to_bytes(3, "little") * 2
    with pytest.raises(ImageError) as refused:
        decode(bytes(bomb))
    assert refused.value.code == "image_too_large"
    assert "16000x16000" in str(refused.value)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (header, b"IDAT")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_limit_above_that_of_pillow_rules() -> None:
    limits = DecodeLimits(maximum_pixels=200_000_000)
    with pytest.raises(ImageError) as refused:
        decode(png_header(16_000, 12_000), limits)
    # Nothing but its pixels is missing.
    assert refused.value.code == "broken_image"
    with pytest.raises(ImageError) as refused:
        decode(png_header(16_000, 13_000), limits)
    assert refused.value.code == "image_too_large"
