import contextlib
import io
import tracemalloc
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, convert_color_space

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


def plain_levels(stored: np.ndarray, dataset: Dataset, pixel_range: str) -> np.ndarray:
    """What `decode` makes of stored values, all of them at once in float64."""
    if pixel_range == "full":
        lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
        shares = (stored.astype(np.float64) - lowest) / (2**dataset.BitsStored - 1)
    else:
        values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
        low, high = values.min(), values.max()
        if "WindowWidth" in dataset:
            low = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2
            high = float(dataset.WindowCenter) + float(dataset.WindowWidth) / 2
        shares = (values - low) / max(high - low, 1e-9)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shares = 1.0 - shares
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def grey(stored: np.ndarray, bits: int, photometric: str = "MONOCHROME2", **elements: Any) -> Dataset:
    """A data set of stored values [H, W], integers of any type."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored.astype(np.uint16), photometric=photometric)))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def table(random: np.random.Generator) -> Dataset:
    """A lookup table of 256 levels in no order, for the stored values from 10 on."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 10, 16])
    item.add_new("LUTData", "US", random.integers(0, 2**16, 256).tolist())
    return item


def file(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@settings(deadline=None)
@given(data=st.data())
def test_levels_are_those_of_a_plain_computation(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4"])))
    bits = data.draw(st.integers(2, 8 * dtype.itemsize))
    lowest = -(2 ** (bits - 1)) if dtype.kind == "i" else 0
    low, high, last = data.draw(st.tuples(*[st.integers(lowest, lowest + 2**bits - 1)] * 3))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # In one band, and in bands of which the last one is shorter.
    shape = data.draw(st.sampled_from([(16, 17), (16, 9000), (300, 500)]))
    stored = random.integers(min(low, high), max(low, high), shape, dtype=dtype, endpoint=True)
    stored[-1] = last
    numbers = st.floats(-1000, 1000).map(lambda value: round(value, 3))
    elements: dict[str, Any] = {}
    if data.draw(st.booleans()):
        elements |= {"WindowCenter": data.draw(numbers), "WindowWidth": data.draw(numbers.filter(bool))}
    if data.draw(st.booleans()):
        elements |= {"RescaleSlope": data.draw(numbers), "RescaleIntercept": data.draw(numbers)}
    if data.draw(st.booleans()):
        elements |= {"ModalityLUTSequence": [table(random)]}
    dataset = grey(stored, bits, data.draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])), **elements)
    pixel_range = data.draw(st.sampled_from(["window", "full"]))
    found = decode(file(dataset), dicom_range=pixel_range).pixels[..., 0]
    assert np.array_equal(found, plain_levels(stored, dataset, pixel_range))


@pytest.mark.parametrize("pixel_range", ["window", "full"])
def test_ten_bytes_a_pixel_are_enough(pixel_range: str) -> None:
    """Twice the file, once the pixels decoded and the levels; nothing of the size of the image in float64."""
    stored = np.arange(2**21, dtype=np.uint16).reshape(1024, 2048)
    data = file(grey(stored, 16, RescaleSlope=2, RescaleIntercept=-1024))
    tracemalloc.start()
    try:
        decode(data, dicom_range=pixel_range)
        assert tracemalloc.get_traced_memory()[1] < 10 * stored.size
    finally:
        tracemalloc.stop()


def test_a_file_without_a_transfer_syntax_is_refused() -> None:
    with pytest.raises(ImageError, match="does not tell its transfer syntax") as refused:
        decode(WHOLE.replace(b"\2\0\x10\0UI", b"\2\0\x11\0UI"))
    assert refused.value.code == "broken_image"


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


def test_every_band_is_converted() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    luminance = convert_color_space(pixels, "RGB", "YBR_FULL")
    expected = convert_color_space(luminance, "YBR_FULL", "RGB")
    assert np.array_equal(decode(colour(pixels, "YBR_FULL")).pixels, expected)


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
