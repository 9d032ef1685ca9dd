"""Small images for tests: pixels from a seed, and their bytes in every format that matters."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def speckle(seed: int, height: int = 40, width: int = 40, channels: int = 3) -> np.ndarray:
    """Random pixels uint8 [height, width, channels], different for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def discs(count: int = 60, contrast: float = 60) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 48, 48, 3] of a disc each, somewhere, and its mask uint8 [N, 48, 48]."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :48]
    centres, radii = random.integers(12, 36, (count, 2)), random.integers(4, 10, count)
    inside = np.stack(
        [np.hypot(rows - row, columns - column) < radius for (row, column), radius in zip(centres, radii, strict=True)]
    )
    levels = 80 + contrast * inside[..., None] + random.normal(0, 15, (count, 48, 48, 3))
    return levels.clip(0, 255).astype(np.uint8), inside.astype(np.uint8) * 255


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """A Pillow image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 1 or 3], [H, W], bool or uint16 [H, W] as PNG bytes."""
    return encoded(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), "PNG")


def write_pngs(folder: Path, count: int, prefix: str = "image", seed: int = 0, **size: int) -> None:
    """`count` different images, `prefix` and a number in their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{prefix}_{number}.png").write_bytes(png(speckle(1000 * seed + number, **size)))


def dicom(
    stored: np.ndarray,
    patient: str = "P1",
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    window: tuple[float, float] | None = None,
    frames: int = 1,
) -> bytes:
    """A DICOM file of the stored values uint16 [H, W]; `window` is (centre, width)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["verisynth"])
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientID = patient
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.NumberOfFrames = frames
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window
    dataset.PixelData = np.repeat(stored[None], frames, axis=0).astype("<u2").tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
