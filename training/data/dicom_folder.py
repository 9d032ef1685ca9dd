"""A folder of single-frame DICOM files; the patient is each file's PatientID, and no tag goes any further."""

from functools import partial
from pathlib import Path

from contracts.dicom import is_dicom, patient_of
from contracts.errors import ImageError
from contracts.imaging import decode
from training.data.items import Collection, Item, LeftOut, Pixels, UnusableError, files_below, name_of, read_bytes
from training.data.params import DicomSource


def collect(source: DicomSource) -> Collection:
    """One item per DICOM file below `source.path`; files without PatientID are left out by name.

    Patients are numbered in the order of their PatientID, which itself is written nowhere.

    Raises:
        VerisynthError: for a folder that is missing.
    """
    root = Path(source.path)
    collection = Collection()
    identifiers: dict[Path, str] = {}
    for path in files_below(root):
        try:
            identifiers[path] = _identifier(path)
        except ImageError as error:
            collection.left_out.append(LeftOut(name_of(path, root), error.code, str(error)))
    numbers = {identifier: number for number, identifier in enumerate(sorted(set(identifiers.values())), start=1)}
    for path, identifier in identifiers.items():
        patient = f"patient {numbers[identifier]}"
        collection.items.append(Item(name_of(path, root), patient, None, partial(_read, path, source.range)))
    return collection


def _identifier(path: Path) -> str:
    data = read_bytes(path)
    if not is_dicom(data):
        raise ImageError("not_an_image", "no DICOM file")
    identifier = patient_of(data)
    if not identifier:
        raise UnusableError("no_patient", "its PatientID is empty; set it, or export PNG files for a `folder` source")
    return identifier


def _read(path: Path, pixel_range: str) -> Pixels:
    return Pixels(decode(read_bytes(path), dicom_range=pixel_range).pixels)
