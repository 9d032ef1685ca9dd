"""Compressed frames that say one size outside and another one inside."""

import io
import struct
import tracemalloc

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from contracts.errors import ImageError
from contracts.imaging import decode
from tests.images import dicom, encoded

PIXELS = np.linspace(0, 255, 64 * 48).astype(np.uint8).reshape(48, 64)


def file(frames: list[bytes], syntax: UID, height: int = 48, width: int = 64) -> bytes:
    """A DICOM file of 8 bits that holds a compressed frame, in as many fragments as there are."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(PIXELS.astype(np.uint16))))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = height, width
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.WindowCenter, dataset.WindowWidth = 127.5, 255
    dataset.PixelData = encapsulate(frames, has_bot=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def run_lengths(segment: bytes) -> bytes:
    return struct.pack("<16I", 1, 64, *[0] * 14) + segment


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as refused:
        decode(data)
    return refused.value


FRAMES = {
    JPEGBaseline8Bit: encoded(Image.fromarray(PIXELS), "JPEG", quality=100),
    JPEG2000Lossless: encoded(Image.fromarray(PIXELS), "JPEG2000", no_jp2=True),
    JPEG2000: encoded(Image.fromarray(PIXELS), "JPEG2000"),
    RLELossless: run_lengths(b"".join(b"\x3f" + row.tobytes() for row in PIXELS)),
}


@pytest.mark.parametrize("syntax", FRAMES, ids=lambda syntax: syntax.name)
def test_compressed_frames_are_decoded(syntax: UID) -> None:
    assert np.abs(decode(file([FRAMES[syntax]], syntax)).pixels[..., 0].astype(int) - PIXELS).max() <= 2


def test_a_frame_in_fragments_is_one_frame() -> None:
    frame = FRAMES[JPEG2000Lossless]
    whole = decode(file([frame], JPEG2000Lossless)).pixels
    assert np.array_equal(decode(file([frame[:40], frame[40:]], JPEG2000Lossless)).pixels, whole)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000], ids=lambda syntax: syntax.name)
def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(
    syntax: UID, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = file([FRAMES[syntax]], syntax, 16, 16)
    monkeypatch.setattr("contracts.dicom.get_decoder", lambda _: pytest.fail("decoded"))
    refused = refusal(bomb)
    assert refused.code == "broken_image"
    assert "says 16x16, its codestream 64x48" in str(refused)


def test_run_lengths_that_would_fill_the_memory_are_refused() -> None:
    bomb = file([run_lengths(b"\x81\0" * 2**19)], RLELossless)
    tracemalloc.start()
    try:
        assert "run lengths make more than the 3072 pixels" in str(refusal(bomb))
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_every_kind_of_run_is_counted() -> None:
    # 3072 pixels: repeated ones, literal ones, a code that stands for none, and what makes the length even.
    runs = b"\x81\7" * 23 + b"\x7f" + bytes(128) + b"\x80" + b"\0"
    assert decode(file([run_lengths(runs)], RLELossless)).pixels.shape == (48, 64, 1)
    assert "run lengths" in str(refusal(file([run_lengths(b"\xff\7" + runs)], RLELossless)))


def test_other_transfer_syntaxes_are_refused_by_name() -> None:
    refused = refusal(file([b"\xff\xd8"], JPEGLSLossless))
    assert refused.code == "unsupported_pixels"
    assert JPEGLSLossless.name in str(refused)


def test_compressed_pixels_must_be_encapsulated_and_whole() -> None:
    whole = file([FRAMES[JPEG2000]], JPEG2000)
    start = b"\xe0\x7f\x10\x00OW\0\0"
    before, after = whole.split(start + b"\xff\xff\xff\xff")
    assert "not encapsulated" in str(refusal(before + start + struct.pack("<I", len(after)) + after))
    assert "do not end" in str(refusal(whole[:-8]))
