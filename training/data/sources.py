"""Every kind of source behind one function."""

from training.data import dicom_folder, folder, masked_folder, medmnist, skimage_bundled
from training.data.items import Collection
from training.data.params import DicomSource, FolderSource, MaskedFolderSource, MedmnistSource, SkimageSource, Source


def collect(source: Source) -> Collection:
    """All items of a source, and what it left out.

    Raises:
        VerisynthError: where the source is missing or cannot be used.
    """
    match source:
        case SkimageSource():
            return skimage_bundled.collect(source)
        case FolderSource():
            return folder.collect(source)
        case MaskedFolderSource():
            return masked_folder.collect(source)
        case MedmnistSource():
            return medmnist.collect(source)
        case DicomSource():
            return dicom_folder.collect(source)
