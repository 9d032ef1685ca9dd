import contextlib
import io

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import convert_color_space

from contracts.dicom import is_dicom, patient_of
from contracts.errors import ImageError
from contracts.imaging import DecodeLimits, decode
from tests.images import dicom

RAMP = np.linspace(0, 4095, 400).round().astype(np.uint16).reshape(20, 20)
WHOLE = dicom(RAMP)


def levels(data: bytes, pixel_range: str) -> np.ndarray:
    decoded = decode(data, dicom_range=pixel_range)
    assert decoded.format == "DICOM"
    return decoded.pixels[..., 0]


def test_full_maps_the_stored_bits() -> None:
    assert np.array_equal(levels(dicom(RAMP), "full"), np.rint(RAMP / 4095 * 255))


def test_window_maps_the_stored_window_and_clips() -> None:
    windowed = levels(dicom(RAMP, window=(2000, 1000)), "window")
    expected = np.clip((RAMP.astype(float) - 1500) / 1000, 0, 1)
    assert np.array_equal(windowed, np.rint(expected * 255))


def test_without_a_window_the_images_own_range_is_mapped() -> None:
    narrow = RAMP // 16 + 100
    assert (levels(dicom(narrow), "window").min(), levels(dicom(narrow), "window").max()) == (0, 255)


@pytest.mark.parametrize("pixel_range", ["window", "full"])
def test_monochrome1_is_inverted(pixel_range: str) -> None:
    upright, inverted = dicom(RAMP), dicom(RAMP, photometric="MONOCHROME1")
    assert np.abs(levels(upright, pixel_range) + levels(inverted, pixel_range).astype(int) - 255).max() <= 1


def test_several_frames_and_sizes_are_refused() -> None:
    with pytest.raises(ImageError) as refused:
        decode(dicom(RAMP, frames=3))
    assert refused.value.code == "several_frames"
    with pytest.raises(ImageError) as refused:
        decode(dicom(RAMP), DecodeLimits(maximum_side=19))
    assert refused.value.code == "image_too_large"


@pytest.mark.parametrize(
    ("photometric", "samples", "frames"), [("MONOCHROME2", 3, 1), ("RGB", 1, 1), ("MONOCHROME2", 1, 3)]
)
def test_pixels_that_contradict_their_header_are_refused(photometric: str, samples: int, frames: int) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(RAMP)))
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = photometric, samples, 0
    # The header says one frame.
    dataset.PixelData = bytes(2 * RAMP.size * samples * frames)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(ImageError, match="pixels have the shape") as refused:
        decode(buffer.getvalue())
    assert refused.value.code == "unsupported_pixels"


def test_patient_is_read() -> None:
    assert patient_of(dicom(RAMP, patient=" P7 ")) == "P7"
    assert patient_of(dicom(RAMP, patient="")) == ""


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_altered_headers_are_read_or_refused_as_an_image_error(data: st.DataObject) -> None:
    altered = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        altered[data.draw(st.integers(132, len(altered) - 1))] = data.draw(st.integers(0, 255))
    assert is_dicom(bytes(altered))
    for read in (patient_of, decode):
        with contextlib.suppress(ImageError):
            read(bytes(altered))


def colour(pixels: np.ndarray, photometric: str) -> bytes:
    """A colour DICOM file of RGB uint8 [H, W, 3], stored under the photometric interpretation."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(pixels[..., 0].astype(np.uint16))))
    stored = pixels if photometric == "RGB" else convert_color_space(pixels, "RGB", "YBR_FULL")
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = stored.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_come_back_as_they_were(photometric: str) -> None:
    pixels = np.full((20, 20, 3), (200, 60, 30), dtype=np.uint8)
    found = decode(colour(pixels, photometric)).pixels
    assert np.abs(found.astype(int) - pixels).max() <= 1


def test_palettes_are_refused_rather_than_read_as_grey() -> None:
    with pytest.raises(ImageError, match="PALETTE COLOR") as refused:
        decode(dicom(np.ones((20, 20), dtype=np.uint16), photometric="PALETTE COLOR"))
    assert refused.value.code == "unsupported_pixels"


def test_an_empty_window_counts_as_none() -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(np.arange(400, dtype=np.uint16).reshape(20, 20))))
    dataset.WindowCenter = dataset.WindowWidth = None
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert decode(buffer.getvalue()).pixels.max() == 255
