"""Generated images as bytes: NumPy arrays, PNG files, a grid to look at, DICOM files. All carry their claims.

The same samples and key give the same bytes: archives carry the date 1980-01-01, DICOM files none, and Ed25519 draws
no random numbers. (Content Credentials do.)
"""

import hashlib
import io
import json
import math
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from contracts.claims import GRID, IMAGE, MASK, SCHEMA, Claim, Origin, canonical, pixel_sha256
from contracts.imaging import encode_png, grid
from contracts.marks import mark_dicom, mark_png
from serving.provenance.claims import ClaimKeys
from serving.runtime import Samples

if TYPE_CHECKING:
    from serving.provenance.content_credentials import Credentials

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Signing:
    """What stands behind the claims: the keys, and Content Credentials for PNG files where the operator has them."""

    keyring: ClaimKeys
    credentials: "Credentials | None" = None


@dataclass(frozen=True)
class Format:
    """`write(samples, origin, signing)` gives the bytes of one answer."""

    media_type: str
    extension: str
    write: Callable[[Samples, Origin, Signing], bytes]


def write_npz(samples: Samples, origin: Origin, signing: Signing) -> bytes:
    """Arrays `images` uint8 [N, H, W, C], and `masks` uint8 [N, H, W], `labels` int64 [N] where the model has them.

    `provenance`, one string without dimensions, is the JSON of what is claimed of them all, under one signature.
    """
    optional = {"masks": samples.masks, "labels": samples.labels}
    arrays = {"images": samples.images}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    claimed = [_entry(kind, index, pixels) for kind, index, pixels in _pictures(samples)]
    document = signing.keyring.sealed(_description(origin, samples.start) | {"images": claimed})
    arrays["provenance"] = np.array(canonical(document).decode())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                # What numpy.savez does, without its copies of the pixels.
                np.lib.format.write_array_header_1_0(entry, np.lib.format.header_data_from_array_1_0(array))
                entry.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return buffer.getvalue()


def write_png_archive(samples: Samples, origin: Origin, signing: Signing) -> bytes:
    """A ZIP of PNG files `000000.png`, masks beside them as `000000-mask.png`, and `manifest.json`."""
    files: dict[str, bytes] = {}
    claims: list[Claim] = []
    for kind, index, pixels in _pictures(samples):
        claims.append(signing.keyring.claim(kind, origin, index, pixels))
        name = f"{index:06d}-mask.png" if kind == MASK else f"{index:06d}.png"
        files[name] = _png(pixels, claims[-1], signing)
    return _archive(files, claims, origin, signing.keyring)


def write_grid(samples: Samples, origin: Origin, signing: Signing) -> bytes:
    """One PNG with all images in a nearly square grid."""
    count = len(samples.images)
    sheet = grid(samples.images, columns=math.ceil(math.sqrt(count)))
    return _png(sheet, signing.keyring.claim(GRID, origin, samples.start, sheet, count), signing)


def write_dicom_archive(samples: Samples, origin: Origin, signing: Signing) -> bytes:
    """A ZIP of DICOM files `000000.dcm` (Secondary Capture, marked as synthetic) and `manifest.json`; no masks."""
    claims = [
        signing.keyring.claim(IMAGE, origin, index, image) for index, image in enumerate(samples.images, samples.start)
    ]
    files = {
        f"{claim.index:06d}.dcm": dicom_file(image, claim) for image, claim in zip(samples.images, claims, strict=True)
    }
    return _archive(files, claims, origin, signing.keyring)


FORMATS = {
    "npz": Format("application/octet-stream", "npz", write_npz),
    "zip": Format("application/zip", "zip", write_png_archive),
    "png": Format("image/png", "png", write_grid),
    "dicom": Format("application/zip", "dicom.zip", write_dicom_archive),
}


def dicom_file(image: np.ndarray, claim: Claim) -> bytes:
    """One image, uint8 [H, W, 1 or 3], as a DICOM file that cannot be taken for a patient's.

    Its identifiers follow from the model, the request and the index; it bears no date. Where the request starts is not
    in them: parts of one sequence are one series.
    """
    origin, index = claim.origin, claim.index
    request = " ".join(str(part) for part in origin.document().values())
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # What a label is called, and the claim, may hold any letter.
    dataset.SpecificCharacterSet = "ISO_IR 192"
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
    mark_dicom(dataset, claim)
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


def _png(pixels: np.ndarray, claim: Claim, signing: Signing) -> bytes:
    data = mark_png(encode_png(pixels), claim)
    return data if signing.credentials is None else signing.credentials.sign_png(data)


def _pictures(samples: Samples) -> Iterator[tuple[str, int, np.ndarray]]:
    """Kind, index and pixels uint8 [H, W, C] of every image, and of its mask after it."""
    for row, image in enumerate(samples.images):
        yield IMAGE, samples.start + row, image
        if samples.masks is not None:
            yield MASK, samples.start + row, samples.masks[row][..., None]


def _description(origin: Origin, start: int) -> dict[str, Any]:
    """What all claims of a set have in common, and the index of its first image."""
    return {"verisynth": SCHEMA, "synthetic": True, "kind": "set"} | origin.document() | {"start": start}


def _entry(kind: str, index: int, pixels: np.ndarray) -> dict[str, Any]:
    """What a claim adds to those of its set."""
    return {"kind": kind, "index": index, "pixel_sha256": pixel_sha256(pixels)}


def _archive(files: dict[str, bytes], claims: list[Claim], origin: Origin, keyring: ClaimKeys) -> bytes:
    entries = [
        {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
        | {"kind": claim.kind, "index": claim.index, "pixel_sha256": claim.pixel_sha256}
        for (name, data), claim in zip(files.items(), claims, strict=True)
    ]
    manifest = keyring.sealed(_description(origin, claims[0].index) | {"files": entries})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (files | {MANIFEST: json.dumps(manifest, indent=2).encode()}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
