"""DICOM bytes to pixels. Only pixels leave this module: no tag is kept."""

from collections.abc import Callable

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut
from pydicom.tag import Tag

from contracts.dicom_elements import SHORT_BYTES, read_elements
from contracts.dicom_frame import check_frame
from contracts.errors import ImageError

RANGES = ("window", "full")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TABLE_BYTES = 2 * 65_536 + 4096
"""A lookup table of as many entries as there can be, and what stands around them."""
NUMBERS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes carry DICOM's mark (`DICM` after a preamble of 128 bytes)."""
    return data[128:132] == b"DICM"


def patient_of(data: bytes) -> str:
    """The patient identifier of a DICOM file, empty where there is none.

    Raises:
        ImageError: for a header that cannot be read.
    """
    try:
        dataset = read_elements(data, _limits("PatientID", "SpecificCharacterSet").get)
        return str(dataset.get("PatientID", "") or "").strip()
    except ImageError:
        raise
    except Exception as error:  # pydicom raises many kinds on broken files; all mean the same to the user
        raise ImageError("broken_image", f"the DICOM header cannot be read: {error}") from error


def decode(data: bytes, pixel_range: str, check_size: Callable[[int, int], None]) -> np.ndarray:
    """Pixels uint8 [H, W, 1 or 3] of a single-frame DICOM file.

    `pixel_range`: `window` applies the stored window, or the image's own range where
    there is none; `full` maps the full range of the stored bit depth. `check_size(width, height)`
    is called before any pixel is decoded.

    Raises:
        ImageError: broken files, several frames, transfer syntaxes that cannot be decoded.
    """
    try:
        limits = _limits(*NUMBERS) | _limits("ModalityLUTSequence", longest=TABLE_BYTES)
        dataset = read_elements(data, (limits | _limits(*PIXELS, longest=len(data))).get)
        check_size(int(dataset.Columns), int(dataset.Rows))
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        if frames != 1:
            raise ImageError("several_frames", f"the DICOM file holds {frames} frames; send one frame")
        interpretation = str(dataset.PhotometricInterpretation)
        if interpretation not in GREY + COLOUR:
            raise ImageError(
                "unsupported_pixels",
                f"the DICOM file's pixels are {interpretation}; taken are {', '.join(GREY + COLOUR)}",
            )
        _check_frame(dataset)
        stored = dataset.pixel_array
        _check_shape(stored, dataset)
        if interpretation in COLOUR:
            return _colour(stored)
        levels = _full_range(stored, dataset) if pixel_range == "full" else _window(stored, dataset)
    except ImageError:
        raise
    except Exception as error:  # pydicom raises many kinds on broken files; all mean the same to the user
        raise ImageError("broken_image", f"the DICOM file cannot be decoded: {error}") from error
    if interpretation == "MONOCHROME1":
        levels = 1.0 - levels
    rounded: np.ndarray = np.rint(np.clip(levels, 0, 1) * 255)
    return rounded.astype(np.uint8)[..., None]


def _check_shape(stored: np.ndarray, dataset: pydicom.Dataset) -> None:
    """Headers may contradict themselves, and pydicom goes by more of them than are looked at here."""
    interpretation = str(dataset.PhotometricInterpretation)
    expected = (int(dataset.Rows), int(dataset.Columns), *([3] if interpretation in COLOUR else []))
    if stored.shape != expected:
        raise ImageError(
            "unsupported_pixels",
            f"the DICOM file's pixels have the shape {stored.shape}; as {interpretation} they should have {expected}",
        )


def _check_frame(dataset: pydicom.FileDataset) -> None:
    """What is compressed is told by the transfer syntax alone, and then must be encapsulated."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_encapsulated:
        return
    if not dataset["PixelData"].is_undefined_length:
        raise ImageError("broken_image", "the DICOM file's pixels are compressed and not encapsulated")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    check_frame(frame, syntax, int(dataset.Columns), int(dataset.Rows))


def _limits(*keywords: str, longest: int = SHORT_BYTES) -> dict[int, int]:
    """By tag the bytes that elements may have."""
    return {Tag(keyword): longest for keyword in keywords}


def _colour(stored: np.ndarray) -> np.ndarray:
    if stored.dtype != np.uint8:
        raise ImageError("unsupported_pixels", f"colour DICOM of type {stored.dtype}; only 8 bits are taken")
    # pydicom has converted YBR to RGB already.
    return stored


def _full_range(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    bits = int(dataset.BitsStored)
    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    return np.asarray((stored.astype(np.float64) - lowest) / (2**bits - 1))


def _window(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if dataset.get("WindowWidth") and dataset.get("WindowCenter") is not None:
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        low, high = centre - width / 2, centre + width / 2
    else:
        low, high = values.min(), values.max()
    return np.asarray((values - low) / max(high - low, 1e-9))


def _first(value: object) -> float:
    return float(value[0]) if isinstance(value, pydicom.multival.MultiValue) else float(str(value))
