import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
