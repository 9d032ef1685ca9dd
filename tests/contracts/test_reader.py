"""Files that are small and cost their decoder minutes or gigabytes: none is decoded, and none is waited for."""

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from contracts.errors import ImageError
from contracts.imaging import DecodeLimits, decode
from contracts.reader import MAXIMUM_READS, BoundedReader
from tests.images import dicom, encoded, speckle

STORED = np.arange(1024, dtype=np.uint16).reshape(32, 32)
DICOM = dicom(STORED)
# The data set begins after the preamble, the mark, and the meta group, whose length its first element tells.
BODY = 144 + struct.unpack("<I", DICOM[140:144])[0]
PIXEL_DATA = DICOM.index(b"\xe0\x7f\x10\x00")


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as refused:
        decode(data)
    assert refused.value.code == "broken_image"
    return str(refused.value)


def dicom_of_empty_items() -> bytes:
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 2 * MAXIMUM_READS
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return DICOM[:BODY] + sequence + DICOM[BODY:]


def dicom_of_empty_elements() -> bytes:
    elements = b"".join(
        struct.pack("<HH", 9, 0x1000 + number % 0xE000) + b"LO\0\0" for number in range(2 * MAXIMUM_READS)
    )
    return DICOM[:BODY] + elements + DICOM[BODY:]


def dicom_with_a_table_of_empty_items() -> bytes:
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 2 * MAXIMUM_READS
    return DICOM[:PIXEL_DATA] + b"\x28\x00\x00\x30SQ\0\0" + struct.pack("<I", len(items)) + items + DICOM[PIXEL_DATA:]


def png_of_empty_chunks() -> bytes:
    whole = encoded(Image.fromarray(speckle(0)), "PNG")
    chunk = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return whole[:33] + chunk * MAXIMUM_READS + whole[33:]


def jpeg_of_empty_markers() -> bytes:
    whole = encoded(Image.fromarray(speckle(0)), "JPEG")
    return whole[:2] + b"\xff\xe1\x00\x02" * MAXIMUM_READS + whole[2:]


def jpeg_of_padding() -> bytes:
    whole = encoded(Image.fromarray(speckle(0)), "JPEG")
    return whole[:2] + b"\xff" * 2 * MAXIMUM_READS + whole[2:]


def tiff_of_many_frames() -> bytes:
    whole = encoded(Image.fromarray(speckle(0, channels=1)[..., 0]), "TIFF")
    start = struct.unpack("<I", whole[4:8])[0]
    end = start + 2 + 12 * struct.unpack("<H", whole[start : start + 2])[0]
    directory = whole[start:end]
    frames, position = bytearray(whole[:end]), end + 4
    frames += struct.pack("<I", position)
    for _ in range(MAXIMUM_READS):
        position += len(directory) + 4
        frames += directory + struct.pack("<I", position)
    return bytes(frames)


@pytest.mark.parametrize(
    "file",
    [
        dicom_of_empty_items,
        dicom_of_empty_elements,
        dicom_with_a_table_of_empty_items,
        png_of_empty_chunks,
        jpeg_of_empty_markers,
        jpeg_of_padding,
        tiff_of_many_frames,
    ],
)
def test_a_file_of_too_many_parts_is_refused(file: Callable[[], bytes]) -> None:
    assert re.search("made of more parts than any image|has [0-9]+ bytes, more than any has", refusal(file()))


def test_the_bytes_read_are_bounded_by_the_length() -> None:
    reader = BoundedReader(bytes(2**20))
    for _ in range(9):
        reader.seek(0)
        assert len(reader.read()) == 2**20
    reader.seek(0)
    with pytest.raises(ImageError):
        reader.read()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_large_images_need_few_reads(form: str) -> None:
    image = Image.fromarray(speckle(1, 3000, 3000))
    assert decode(encoded(image, form), DecodeLimits()).pixels.shape == (3000, 3000, 3)
