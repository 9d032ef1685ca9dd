"""`params.yaml` as dataclasses: one per section, every key documented where it is declared.

Unknown, missing, mistyped or contradictory keys are refused by name, with the valid ones listed.
Check a file without running anything:  python -m training.params
"""

import dataclasses
import difflib
import re
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from contracts.dicom import RANGES
from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec
from training.data.medmnist_sets import SETS

SIZES = (32, 64, 128, 256)
FLIPS = ("horizontal", "vertical")


class ParamsError(VerisynthError):
    """A key or value of params.yaml that cannot be used."""


@dataclass(frozen=True)
class SkimageSource:
    """One of the real images that scikit-image carries: works offline on any machine."""

    image: str
    """`ihc` (stained tissue) or `retina` (fundus photograph, with vessel masks from a ridge filter)."""

    def __post_init__(self) -> None:
        _one_of("image", self.image, ("ihc", "retina"))


@dataclass(frozen=True)
class FolderSource:
    """A folder of images, or one folder per class."""

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
        _one_of("labels", self.labels, ("none", "folder", "metadata"))
        _pattern("patient_pattern", self.patient_pattern)
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


@dataclass(frozen=True)
class MaskedFolderSource:
    """A folder of images and a folder of masks; a mask's name begins with its image's name."""

    images: str
    """Folder of images."""
    masks: str
    """Folder of masks: one channel, nonzero is foreground."""
    patient_pattern: str | None = None
    """Regular expression searched in the file name; its first group is the patient.
    None: every file is a patient."""

    def __post_init__(self) -> None:
        _pattern("patient_pattern", self.patient_pattern)


@dataclass(frozen=True)
class MedmnistSource:
    """A MedMNIST `npz` file, with MedMNIST's own splits."""

    name: str
    """One of the twelve 2-D sets, for example `pneumoniamnist`."""
    path: str
    """Folder holding the npz file; `python -m training.data.medmnist NAME FOLDER` downloads it there."""
    side: int = 28
    """Pixels a side in the file: 28, 64, 128 or 224 (each is a file of its own)."""

    def __post_init__(self) -> None:
        _one_of("name", self.name, tuple(SETS))
        _one_of("side", self.side, tuple(SETS[self.name].md5))


@dataclass(frozen=True)
class DicomSource:
    """A folder of single-frame DICOM files; the patient is the file's PatientID."""

    path: str
    """Folder that is searched, subfolders included."""
    range: str = "window"
    """`window` (the stored window) or `full` (the full range of the stored bits)."""

    def __post_init__(self) -> None:
        _one_of("range", self.range, RANGES)


Source = SkimageSource | FolderSource | MaskedFolderSource | MedmnistSource | DicomSource
SOURCES: dict[str, type] = {
    "skimage": SkimageSource,
    "folder": FolderSource,
    "masked-folder": MaskedFolderSource,
    "medmnist": MedmnistSource,
    "dicom": DicomSource,
}


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
        _at_least("side", self.side, 16)
        _at_least("stride", self.stride, 1)
        _share("minimum_foreground", self.minimum_foreground)


@dataclass(frozen=True)
class Split:
    """Shares of images held out, patients kept whole (or of the area, where there is one image). The rest trains."""

    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _share("validation", self.validation)
        _share("test", self.test)
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
    split: Split = field(default_factory=Split)
    minimum_images: int = 50
    """The stage fails where fewer images (or details) than this can be used."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ParamsError(f"size {self.size} must be a power of two from 32 to 256: {', '.join(map(str, SIZES))}")
        if self.channels not in (1, 3):
            raise ParamsError(f"channels {self.channels} must be 1 (grey) or 3 (RGB)")
        if self.tiles is not None and self.tiles.side * 2 < self.size:
            raise ParamsError(
                f"tiles.side {self.tiles.side} is less than half of size {self.size}: details would be invented"
            )
        if isinstance(self.source, MedmnistSource) and self.tiles is not None:
            raise ParamsError("a medmnist source takes no tiles: its images are whole")
        if isinstance(self.source, SkimageSource) and self.tiles is None:
            raise ParamsError("a skimage source needs tiles: it is one image, split by region")

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(self.size, self.channels, self.tiles.side if self.tiles else None)


@dataclass(frozen=True)
class TrainGan:
    """What of a dataset its GAN's training depends on; None keeps the recipe's own setting."""

    images: int
    """Training length: real images shown to the discriminator, repeats counted."""
    width: int | None = None
    batch_size: int | None = None
    flips: list[str] = field(default_factory=list)
    """Flips under which this kind of image stays plausible: any of `horizontal`, `vertical`."""
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("images", self.images, 1)
        for flip in self.flips:
            _one_of("flips", flip, FLIPS)


@dataclass(frozen=True)
class Recipe:
    """Settings of a GAN recipe that hold for all datasets."""

    latent_size: int
    width: int
    """Channels of the widest-resolution layer; deeper layers double it."""
    batch_size: int
    learning_rate: float
    beta1: float
    averaging_halflife_images: int
    """Half-life of the moving average of the generator's weights."""
    checkpoint_every_seconds: int
    grid_every_images: int
    """Distance between sample grids on fixed noise."""
    log_every_images: int

    def __post_init__(self) -> None:
        for name in ("latent_size", "width", "averaging_halflife_images", "grid_every_images", "log_every_images"):
            _at_least(name, getattr(self, name), 1)
        _at_least("batch_size", self.batch_size, 2)
        _at_least("checkpoint_every_seconds", self.checkpoint_every_seconds, 0)
        if not self.learning_rate > 0:
            raise ParamsError(f"learning_rate {self.learning_rate} must be above 0")
        _share("beta1", self.beta1)


@dataclass(frozen=True)
class Sample:
    """Generated images kept for the detectors and the evaluation."""

    train: int
    validation: int
    test: int
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            _at_least(name, getattr(self, name), 16)


@dataclass(frozen=True)
class TrainDetector:
    """Both detectors, their calibration and their thresholds."""

    corrupted_copies: int
    """Copies of every training image, of both classes, passed through blur, JPEG, resizing or noise."""
    regularisation: float
    """C of scikit-learn's LogisticRegression."""
    epochs: int
    """Epochs of the convolutional network."""
    width: int
    """Channels of its first layer."""
    batch_size: int
    learning_rate: float
    error_share: float
    """Share of held-out real images that may be called synthetic, and of synthetic ones called real."""
    maximum_training_images: int
    """Training images of each class are thinned to this number."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "width", "maximum_training_images"):
            _at_least(name, getattr(self, name), 1)
        _at_least("corrupted_copies", self.corrupted_copies, 0)
        _at_least("batch_size", self.batch_size, 2)
        _share("error_share", self.error_share)
        if not (self.regularisation > 0 and self.learning_rate > 0):
            raise ParamsError("regularisation and learning_rate must be above 0")


@dataclass(frozen=True)
class Evaluate:
    """Sizes of the evaluation."""

    bootstrap_rounds: int
    """Resamples behind each confidence interval."""
    kid_subsets: int
    kid_subset_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bootstrap_rounds", "kid_subsets"):
            _at_least(name, getattr(self, name), 1)
        _at_least("kid_subset_size", self.kid_subset_size, 4)


@dataclass(frozen=True)
class Card:
    """What a reader of the model must know of the data; goes into the manifest."""

    title: str
    origin: str
    licence: str
    intended_use: str
    limitations: list[str]


@dataclass(frozen=True)
class Dataset:
    """One set of images that we know how to read."""

    card: Card
    prepare: Prepare
    train_gan: TrainGan


@dataclass(frozen=True)
class Run:
    """What `dvc repro` builds."""

    datasets: list[str]
    recipes: list[str]


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    run: Run
    datasets: dict[str, Dataset]
    recipes: dict[str, Recipe]
    sample: Sample
    train_detector: TrainDetector
    evaluate: Evaluate

    def __post_init__(self) -> None:
        for name in self.datasets:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
                raise ParamsError(f"dataset name {name!r} must be lower-case letters, digits and underscores")
        for name in self.run.datasets:
            _one_of("run.datasets", name, tuple(self.datasets))
        for name in self.run.recipes:
            _one_of("run.recipes", name, tuple(self.recipes))
        if not self.run.recipes or len(set(self.run.recipes)) < len(self.run.recipes):
            raise ParamsError(f"run.recipes {self.run.recipes} must name at least one recipe, each once")
        if len(set(self.run.datasets)) < len(self.run.datasets):
            raise ParamsError(f"run.datasets {self.run.datasets} names a dataset twice")

    def dataset(self, name: str) -> Dataset:
        """The entry of a dataset.

        Raises:
            ParamsError: for a name that has no entry.
        """
        _one_of("dataset", name, tuple(self.datasets))
        return self.datasets[name]

    def gan(self, dataset: str, recipe: str) -> Recipe:
        """The recipe with the dataset's own settings laid over it.

        Raises:
            ParamsError: for a name that has no entry.
        """
        _one_of("recipe", recipe, tuple(self.recipes))
        own = self.dataset(dataset).train_gan
        overrides = {key: getattr(own, key) for key in ("width", "batch_size") if getattr(own, key) is not None}
        return dataclasses.replace(self.recipes[recipe], **overrides)


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: naming the key, its value and what is valid.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from error
    params = _read(Params, document, str(path))
    assert isinstance(params, Params)
    return params


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind`, refusing what does not fit by its place `where`."""
    if isinstance(kind, types.UnionType):
        return _read_union(kind, value, where)
    origin = typing.get_origin(kind)
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: {value!r} must be a list")
        return [_read(typing.get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise ParamsError(f"{where}: {value!r} must be a mapping")
        return {key: _read(typing.get_args(kind)[1], item, f"{where}: {key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParamsError(f"{where}: {value!r} must be of type {kind.__name__}")
    return value


def _read_union(kind: types.UnionType, value: Any, where: str) -> Any:
    if kind == Source:
        if not isinstance(value, dict) or "kind" not in value:
            raise ParamsError(f"{where}: needs `kind`, one of {', '.join(SOURCES)}")
        _one_of(f"{where}: kind", value["kind"], tuple(SOURCES))
        return _read(SOURCES[value["kind"]], {key: item for key, item in value.items() if key != "kind"}, where)
    if value is None:
        return None
    (present,) = (member for member in typing.get_args(kind) if member is not type(None))
    return _read(present, value, where)


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict):
        raise ParamsError(f"{where}: {value!r} must be a mapping with the keys {', '.join(fields)}")
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise ParamsError(f"{where}: unknown key `{key}`; {hint}valid keys: {', '.join(fields)}")
    missing = [
        name
        for name, item in fields.items()
        if name not in value and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ParamsError(f"{where}: missing key `{missing[0]}`; valid keys: {', '.join(fields)}")
    arguments = {key: _read(hints[key], item, f"{where}: {key}") for key, item in value.items()}
    try:
        return kind(**arguments)
    except ParamsError as error:
        if str(error).startswith(where):
            raise
        raise ParamsError(f"{where}: {error}") from error


def _one_of(name: str, value: object, valid: tuple[object, ...]) -> None:
    if value not in valid:
        raise ParamsError(f"{name}: {value!r} is unknown; valid: {', '.join(map(str, valid))}")


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ParamsError(f"{name} {value} must be at least {least}")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ParamsError(f"{name} {value} must lie in [0, 1]")


def _pattern(name: str, value: str | None) -> None:
    if value is None:
        return
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ParamsError(f"{name} {value!r} is no regular expression: {error}") from error
    if groups < 1:
        raise ParamsError(f"{name} {value!r} needs a group in parentheses: the patient")


if __name__ == "__main__":
    try:
        checked = load()
    except ParamsError as error:
        sys.exit(f"params.yaml is refused: {error}")
    print(f"params.yaml is valid: {len(checked.datasets)} datasets known, building {', '.join(checked.run.datasets)}")
