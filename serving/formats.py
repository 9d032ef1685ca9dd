"""Generated images as bytes: NumPy arrays, PNG files, a grid to look at, DICOM files.

The same samples give the same bytes: archives carry the date 1980-01-01, DICOM files none.
"""

import hashlib
import io
import json
import math
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from contracts.imaging import encode_png, grid
from serving.runtime import Samples

PROVENANCE_FILE = "manifest.json"


@dataclass(frozen=True)
class Origin:
    """Where samples come from: enough to make them again."""

    model: str
    version: str
    seed: int
    truncation: float
    label: str | None
    """The label asked for."""
    balance: str | None
    """How often each label was drawn, one of `serving.runtime.BALANCES`; None without labels, or with one asked for."""


@dataclass(frozen=True)
class Format:
    """`write(samples, origin)` gives the bytes of one answer."""

    media_type: str
    extension: str
    write: Callable[[Samples, Origin], bytes]


def write_npz(samples: Samples, _: Origin) -> bytes:
    """Arrays `images` uint8 [N, H, W, C], and `masks` uint8 [N, H, W], `labels` int64 [N] where the model has them."""
    optional = {"masks": samples.masks, "labels": samples.labels}
    arrays = {"images": samples.images}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                # What numpy.savez does, without its copies of the pixels.
                np.lib.format.write_array_header_1_0(entry, np.lib.format.header_data_from_array_1_0(array))
                entry.write(np.ascontiguousarray(array).data.cast("B"))
    return buffer.getvalue()


def write_png_archive(samples: Samples, origin: Origin) -> bytes:
    """A ZIP of PNG files `000000.png`, masks beside them as `000000-mask.png`, and `manifest.json`."""
    files: dict[str, bytes] = {}
    for index, image in enumerate(samples.images):
        files[f"{index:06d}.png"] = encode_png(image)
        if samples.masks is not None:
            files[f"{index:06d}-mask.png"] = encode_png(samples.masks[index][..., None])
    return _archive(files, origin)


def write_grid(samples: Samples, _: Origin) -> bytes:
    """One PNG with all images in a nearly square grid."""
    return encode_png(grid(samples.images, columns=math.ceil(math.sqrt(len(samples.images)))))


def write_dicom_archive(samples: Samples, origin: Origin) -> bytes:
    """A ZIP of DICOM files `000000.dcm` (Secondary Capture, marked as synthetic) and `manifest.json`; no masks."""
    files = {f"{index:06d}.dcm": dicom_file(image, index, origin) for index, image in enumerate(samples.images)}
    return _archive(files, origin)


FORMATS = {
    "npz": Format("application/octet-stream", "npz", write_npz),
    "zip": Format("application/zip", "zip", write_png_archive),
    "png": Format("image/png", "png", write_grid),
    "dicom": Format("application/zip", "dicom.zip", write_dicom_archive),
}


def dicom_file(image: np.ndarray, index: int, origin: Origin) -> bytes:
    """One image, uint8 [H, W, 1 or 3], as a DICOM file that cannot be taken for a patient's.

    Its identifiers follow from the model, the request and the index; it bears no date.
    """
    request = " ".join(str(part) for part in asdict(origin).values())
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = _uid(f"instance {request} {index}")
    dataset.StudyInstanceUID = _uid(f"study {request}")
    dataset.SeriesInstanceUID = _uid(f"series {request}")
    dataset.SyntheticData = "YES"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "SYN"
    dataset.Modality = "OT"
    dataset.PatientName = "SYNTHETIC^NO PATIENT"
    dataset.PatientID = "SYNTHETIC"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Generated; there is no patient"
    dataset.StudyDate = ""
    dataset.StudyTime = ""
    dataset.StudyID = ""
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = index + 1
    dataset.PatientOrientation = ""
    dataset.Manufacturer = "Verisynth"
    dataset.ManufacturerModelName = origin.model
    dataset.SoftwareVersions = origin.version
    dataset.DerivationDescription = f"Generated: {request} {index}"
    dataset.BurnedInAnnotation = "NO"
    _set_pixels(dataset, image)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _set_pixels(dataset: Dataset, image: np.ndarray) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = image.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = "RGB"
        dataset.PlanarConfiguration = 0
    else:
        dataset.PhotometricInterpretation = "MONOCHROME2"
        # Without a window, viewers stretch each image to its own range.
        dataset.WindowCenter, dataset.WindowWidth = 127.5, 255
    data = image.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)


def _uid(text: str) -> UID:
    """DICOM's UUID-derived form (2.25), from a name-based UUID: the same text, the same identifier."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'verisynth:{text}').int}")


def _archive(files: dict[str, bytes], origin: Origin) -> bytes:
    images = [
        {"file": name, "index": int(name[:6]), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    provenance = {"synthetic": True} | asdict(origin) | {"files": images}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (files | {PROVENANCE_FILE: json.dumps(provenance, indent=2).encode()}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
