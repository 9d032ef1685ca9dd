"""DICOM bytes to pixels. Only pixels leave this module: no tag is kept."""

from collections.abc import Callable, Iterator

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut, convert_color_space, get_decoder
from pydicom.tag import Tag

from contracts.dicom_elements import SHORT_BYTES, read_elements
from contracts.dicom_frame import check_frame
from contracts.errors import ImageError

RANGES = ("window", "full")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
LUMINANCE = ("YBR_FULL", "YBR_FULL_422")
"""What decoders leave as luminance and chrominance: JPEG 2000's own transforms are undone on the way."""
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TABLE_BYTES = 2 * 65_536 + 4096
"""A lookup table of as many entries as there can be, and what stands around them."""
BAND_PIXELS = 2**16
"""Half a mebibyte in float64: a few such arrays lie in a processor's cache."""
NUMBERS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
)

_Modality = tuple[np.ndarray, float, float]
"""Values [H, W], and what they are multiplied by, and then added to, for the unit that a window is told in."""


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
        stored, described = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, raw=True)
        _check_shape(stored, dataset)
        if interpretation in COLOUR:
            return _colour(stored, described["photometric_interpretation"])
        return _grey(stored, dataset, pixel_range)[..., None]
    except ImageError:
        raise
    except Exception as error:  # pydicom raises many kinds on broken files; all mean the same to the user
        raise ImageError("broken_image", f"the DICOM file cannot be decoded: {error}") from error


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
    if syntax is None:
        raise ImageError("broken_image", "the DICOM file does not tell its transfer syntax")
    if not syntax.is_encapsulated:
        return
    if not dataset["PixelData"].is_undefined_length:
        raise ImageError("broken_image", "the DICOM file's pixels are compressed and not encapsulated")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    check_frame(frame, syntax, int(dataset.Columns), int(dataset.Rows))


def _limits(*keywords: str, longest: int = SHORT_BYTES) -> dict[int, int]:
    """By tag the bytes that elements may have."""
    return {Tag(keyword): longest for keyword in keywords}


def _colour(stored: np.ndarray, interpretation: str) -> np.ndarray:
    """RGB uint8 [H, W, 3]; a codestream may tell another interpretation than the header, and is right."""
    if stored.dtype != np.uint8:
        raise ImageError("unsupported_pixels", f"colour DICOM of type {stored.dtype}; only 8 bits are taken")
    if interpretation in LUMINANCE:
        for rows in _bands(stored):
            stored[rows] = convert_color_space(stored[rows], interpretation, "RGB")
    return stored


def _grey(stored: np.ndarray, dataset: pydicom.Dataset, pixel_range: str) -> np.ndarray:
    """Levels uint8 [H, W] of stored values [H, W]."""
    if pixel_range == "full":
        modality: _Modality = (stored, 1.0, 0.0)
        lowest, width = _full_range(dataset)
    else:
        modality = _modality(stored, dataset)
        lowest, width = _window(modality, dataset)
    levels = np.empty(stored.shape, dtype=np.uint8)
    for rows, values in _rescaled(*modality):
        shares = (values - lowest) / width
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shares = 1.0 - shares
        levels[rows] = np.rint(np.clip(shares, 0, 1) * 255)
    return levels


def _modality(stored: np.ndarray, dataset: pydicom.Dataset) -> _Modality:
    """DICOM PS3.3, C.11.1: by a lookup table, or by slope and intercept."""
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset)), 1.0, 0.0
    if "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        return stored, dataset.RescaleSlope, dataset.RescaleIntercept
    return stored, 1.0, 0.0


def _rescaled(values: np.ndarray, slope: float, intercept: float) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows after the other, and their values float64 [rows, W]."""
    for rows in _bands(values):
        yield rows, values[rows].astype(np.float64) * slope + intercept


def _bands(pixels: np.ndarray) -> list[slice]:
    """The rows of [H, W, ...] that are converted together: as floats, a whole image takes many times its own memory."""
    height, width = pixels.shape[:2]
    together = max(1, BAND_PIXELS // width)
    return [slice(top, top + together) for top in range(0, height, together)]


def _full_range(dataset: pydicom.Dataset) -> tuple[float, float]:
    """The lowest value that could be stored, and how far above it the highest lies."""
    bits = int(dataset.BitsStored)
    return -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0, 2**bits - 1


def _window(modality: _Modality, dataset: pydicom.Dataset) -> tuple[float, float]:
    """Lowest value and width of the stored window; where there is none, of the range that the image has."""
    if dataset.get("WindowWidth") and dataset.get("WindowCenter") is not None:
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        low, high = centre - width / 2, centre + width / 2
    else:
        ranges = [(values.min(), values.max()) for _, values in _rescaled(*modality)]
        low, high = np.min(ranges), np.max(ranges)
    return low, max(high - low, 1e-9)


def _first(value: object) -> float:
    return float(value[0]) if isinstance(value, pydicom.multival.MultiValue) else float(str(value))
