"""How a set of images is described in `params.yaml`: its source, its size, its details, its split."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from contracts.dicom import RANGES
from contracts.imaging import ImageSpec
from training.data.medmnist_sets import SETS
from training.reading import ParamsError, at_least, one_of, pattern, share

SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class SkimageSource:
    """One of the real images that scikit-image carries: works offline on any machine."""

    kind: ClassVar = "skimage"

    image: str
    """`ihc` (stained tissue) or `retina` (fundus photograph, with vessel masks from a ridge filter)."""

    def __post_init__(self) -> None:
        one_of("image", self.image, ("ihc", "retina"))

    @property
    def paths(self) -> tuple[Path, ...]:
        return ()


@dataclass(frozen=True)
class FolderSource:
    """A folder of images, or one folder per class."""

    kind: ClassVar = "folder"

    path: str
    """Folder that is searched, subfolders included."""
    labels: str = "none"
    """`none`; `folder` (the first folder below `path` is the class); `metadata` (a column of `metadata`)."""
    patient_pattern: str | None = None
    """Regular expression searched in the file's relative path; its first group is the patient.
    None: every file is a patient."""
    metadata: str | None = None
    """A CSV file below `path` that names files, and patients or labels."""
    metadata_file_column: str | None = None
    """Column of `metadata` with file names, with or without the ending."""
    metadata_patient_column: str | None = None
    """Column of `metadata` with patients."""
    metadata_label_column: str | None = None
    """Column of `metadata` with labels."""

    def __post_init__(self) -> None:
        one_of("labels", self.labels, ("none", "folder", "metadata"))
        pattern("patient_pattern", self.patient_pattern)
        if self.metadata is not None and self.metadata_file_column is None:
            raise ParamsError("`metadata` needs `metadata_file_column`: the column that names the files")
        if self.labels == "metadata" and self.metadata_label_column is None:
            raise ParamsError("labels: metadata needs `metadata_label_column`")
        if self.metadata is None and (self.metadata_patient_column or self.metadata_label_column):
            raise ParamsError(
                "`metadata_patient_column` and `metadata_label_column` need `metadata`: the CSV they stand in"
            )
        if self.patient_pattern and self.metadata_patient_column:
            raise ParamsError("`patient_pattern` and `metadata_patient_column` both name the patient: keep one")

    @property
    def paths(self) -> tuple[Path, ...]:
        return (Path(self.path),)


@dataclass(frozen=True)
class MaskedFolderSource:
    """A folder of images and a folder of masks; a mask's name begins with its image's name."""

    kind: ClassVar = "masked-folder"

    images: str
    """Folder of images."""
    masks: str
    """Folder of masks: one channel, nonzero is foreground."""
    patient_pattern: str | None = None
    """Regular expression searched in the file name; its first group is the patient.
    None: every file is a patient."""
    shows: str = "objects"
    """What the masks show, `vessels` or `nuclei` for example; reports say so."""

    def __post_init__(self) -> None:
        pattern("patient_pattern", self.patient_pattern)
        if Path(self.images) == Path(self.masks):
            raise ParamsError(f"images and masks are both {self.images!r}; move or link masks to a folder of their own")

    @property
    def paths(self) -> tuple[Path, ...]:
        return (Path(self.images), Path(self.masks))


@dataclass(frozen=True)
class MedmnistSource:
    """A MedMNIST `npz` file, with MedMNIST's own splits."""

    kind: ClassVar = "medmnist"

    name: str
    """One of the twelve 2-D sets, for example `pneumoniamnist`."""
    path: str
    """Folder holding the npz file; `python -m training.data.medmnist NAME FOLDER` downloads it there."""
    side: int = 28
    """Pixels a side in the file: 28, 64, 128 or 224 (each is a file of its own)."""

    def __post_init__(self) -> None:
        one_of("name", self.name, tuple(SETS))
        one_of("side", self.side, tuple(SETS[self.name].md5))

    @property
    def paths(self) -> tuple[Path, ...]:
        return (Path(self.path),)


@dataclass(frozen=True)
class DicomSource:
    """A folder of single-frame DICOM files; the patient is the file's PatientID."""

    kind: ClassVar = "dicom"

    path: str
    """Folder that is searched, subfolders included."""
    range: str = "window"
    """`window` (the stored window) or `full` (the full range of the stored bits)."""

    def __post_init__(self) -> None:
        one_of("range", self.range, RANGES)

    @property
    def paths(self) -> tuple[Path, ...]:
        return (Path(self.path),)


Source = SkimageSource | FolderSource | MaskedFolderSource | MedmnistSource | DicomSource


@dataclass(frozen=True)
class Tiles:
    """Cut details out of larger images instead of taking each image whole."""

    side: int
    """Side of a detail in pixels of the original image, then resized to `size`."""
    stride: int
    """Distance between details in pixels of the original image."""
    minimum_foreground: float = 0.0
    """Details whose share of pixels brighter than grey level 20 is less are left out."""

    def __post_init__(self) -> None:
        at_least("side", self.side, 16)
        at_least("stride", self.stride, 1)
        share("minimum_foreground", self.minimum_foreground)


@dataclass(frozen=True)
class VesselMasks:
    """Draw masks of vessels by a ridge filter. The defaults fit photographs about 1400 pixels wide."""

    kind: ClassVar = "vessels"

    scales_pixels: list[float] = field(default_factory=lambda: [2.0, 3.0, 4.0])
    """Half widths of vessels that are looked for."""
    low: float = 0.013
    """Response of the filter from which a pixel is vessel where it touches one above `high`."""
    high: float = 0.026
    smallest_pixels: int = 200
    """Smaller pieces are left out."""

    def __post_init__(self) -> None:
        if not self.scales_pixels or min(self.scales_pixels) <= 0:
            raise ParamsError(f"scales_pixels {self.scales_pixels} must be numbers above 0, at least one")
        if not 0 < self.low <= self.high:
            raise ParamsError(f"low {self.low} must be above 0 and at most high {self.high}")
        at_least("smallest_pixels", self.smallest_pixels, 0)


@dataclass(frozen=True)
class NucleusMasks:
    """Draw masks of nuclei, or of other bodies on a plain ground, by threshold and watershed."""

    kind: ClassVar = "nuclei"

    bright: bool
    """Whether they are brighter than their surroundings, as in fluorescence; stained ones are darker."""
    radius_pixels: int = 5
    """Of the smallest: centres nearer than this are of one nucleus."""
    smoothing_pixels: float = 1.0
    smallest_pixels: int = 30
    """Smaller pieces are left out."""

    def __post_init__(self) -> None:
        at_least("radius_pixels", self.radius_pixels, 1)
        at_least("smoothing_pixels", self.smoothing_pixels, 0)
        at_least("smallest_pixels", self.smallest_pixels, 0)


@dataclass(frozen=True)
class Split:
    """Shares of images held out, patients kept whole (or of the area, where there is one image). The rest trains."""

    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        share("validation", self.validation)
        share("test", self.test)
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 0.9):
            raise ParamsError(f"validation {self.validation} + test {self.test}: both above 0, together below 0.9")


@dataclass(frozen=True)
class Prepare:
    """How a set of images becomes arrays on disk."""

    source: Source
    """Where the images come from: `kind` and the keys of that kind."""
    size: int
    """Pixels a side of the arrays and of all models of this set: 32, 64, 128 or 256."""
    channels: int
    """1 (grey) or 3 (RGB); others are converted."""
    tiles: Tiles | None = None
    masks: VesselMasks | NucleusMasks | None = None
    """How masks are drawn for images that have none."""
    split: Split = field(default_factory=Split)
    minimum_images: int = 50
    """The stage fails where fewer images (or details) than this can be used, or an eighth of it in a split."""

    @property
    def has_masks(self) -> bool:
        """Whether images come with masks, or masks are drawn for them."""
        return self.masks is not None or isinstance(self.source, MaskedFolderSource)

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ParamsError(f"size {self.size} must be a power of two from 32 to 256: {', '.join(map(str, SIZES))}")
        if self.channels not in (1, 3):
            raise ParamsError(f"channels {self.channels} must be 1 (grey) or 3 (RGB)")
        if self.tiles is not None and self.tiles.side * 2 < self.size:
            raise ParamsError(
                f"tiles.side {self.tiles.side} is less than half of size {self.size}: details would be invented"
            )
        if isinstance(self.source, MaskedFolderSource) and self.masks is not None:
            raise ParamsError("a masked-folder source brings its own masks; leave masks out")
        if isinstance(self.source, MedmnistSource) and self.tiles is not None:
            raise ParamsError("a medmnist source takes no tiles: its images are whole")
        if isinstance(self.source, SkimageSource) and self.tiles is None:
            raise ParamsError("a skimage source needs tiles: it is one image, split by region")

    @property
    def image(self) -> ImageSpec:
        if self.tiles is None:
            return ImageSpec(self.size, self.channels)
        return ImageSpec(self.size, self.channels, self.tiles.side, self.tiles.minimum_foreground)
