"""`params.yaml` as dataclasses: one per section, every key documented where it is declared.

Unknown, missing, mistyped or contradictory keys are refused by name, with the valid ones listed.
What describes images is in `training.data.params`. Check a file without running anything:  python -m training.params
"""

import dataclasses
import re
import sys
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training import folders
from training.data.params import Prepare
from training.reading import ParamsError, at_least, one_of, read, share

PAIRED = "dual"
"""The recipe that draws an image and its mask."""
FLIPS = ("horizontal", "vertical")
MINIMUM_STUDIED_IMAGES = 50
"""Of each class; from fewer nothing can be said."""
KEEP = ("best", "last")


@dataclass(frozen=True)
class TrainGan:
    """What of a dataset its GAN's training depends on; None keeps the recipe's own setting."""

    images: int
    """Training length: real images shown to the discriminator, repeats counted."""
    width: int | None = None
    batch_size: int | None = None
    flips: list[str] = field(default_factory=list)
    """Flips under which this kind of image stays plausible: any of `horizontal`, `vertical`."""
    conditional: bool = False
    """Learn each label apart, so that samples can be asked for by label; every training image needs one."""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("images", self.images, 1)
        at_least("seed", self.seed, 0)
        for flip in self.flips:
            one_of("flips", flip, FLIPS)


@dataclass(frozen=True)
class Recipe:
    """Settings of a GAN recipe that hold for all datasets."""

    latent_size: int
    width: int
    """Channels of the widest-resolution layer; deeper layers double it."""
    batch_size: int
    learning_rate: float
    beta1: float
    checkpoint_every_seconds: int
    look_every_images: int
    """Distance between looks: a sample grid on fixed noise, KID against the validation split, diversity."""
    log_every_images: int
    keep: str = "best"
    """`best`: the generator of the look with the lowest KID; `last`: that of the last iteration."""
    averaging_halflife_images: int | None = None
    """Half-life of the moving average of the generator's weights; None: the generator itself."""
    augmentation_ramp_images: int | None = None
    """Images in which the probability of augmentation may rise from 0 to 1; None: no augmentation."""
    augmentation_limit: float = 0.6
    """The probability never exceeds this."""

    def __post_init__(self) -> None:
        for name in ("latent_size", "width", "look_every_images", "log_every_images"):
            at_least(name, getattr(self, name), 1)
        for name in ("averaging_halflife_images", "augmentation_ramp_images"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        share("augmentation_limit", self.augmentation_limit)
        one_of("keep", self.keep, KEEP)
        at_least("batch_size", self.batch_size, 2)
        at_least("checkpoint_every_seconds", self.checkpoint_every_seconds, 0)
        if not self.learning_rate > 0:
            raise ParamsError(f"learning_rate {self.learning_rate} must be above 0")
        if not 0 <= self.beta1 < 1:
            raise ParamsError(f"beta1 {self.beta1} must be at least 0 and below 1")


@dataclass(frozen=True)
class Sample:
    """Generated images kept for the detectors and the evaluation."""

    train: int
    validation: int
    test: int
    variants: int
    """Besides, for the training of detectors: images of earlier snapshots and of truncated latents."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test", "variants"):
            at_least(name, getattr(self, name), 16)
        at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class TrainDetector:
    """Both detectors, their calibration and their thresholds."""

    corrupted_copies: int
    """Copies of every training image, of both classes, each randomly corrupted."""
    regularisation: float
    """C of scikit-learn's LogisticRegression."""
    epochs: int
    """Epochs of the convolutional network."""
    width: int
    """Channels of its first layer."""
    batch_size: int
    learning_rate: float
    error_share: float
    """Share of real images that may be called synthetic, and of unknown generators' images that may be called real."""
    maximum_training_images: int
    """Real training images are thinned to this number, and so are those of all generators together."""
    forger_images: int
    """Images shown, repeats counted, to each autoencoder that forges real images."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "width", "maximum_training_images", "forger_images"):
            at_least(name, getattr(self, name), 1)
        for name in ("corrupted_copies", "seed"):
            at_least(name, getattr(self, name), 0)
        at_least("batch_size", self.batch_size, 2)
        if not 0 < self.error_share < 0.5:
            raise ParamsError(f"error_share {self.error_share} must be above 0 and below 0.5")
        if not (self.regularisation > 0 and self.learning_rate > 0):
            raise ParamsError("regularisation and learning_rate must be above 0")


@dataclass(frozen=True)
class Evaluate:
    """Sizes of the evaluation."""

    bootstrap_rounds: int
    """Resamples behind each confidence interval."""
    jackknife_blocks: int
    """Blocks of images left out in turn behind the interval of KID."""
    neighbours: int
    """k of precision, recall, density and coverage."""
    encoder_images: int
    """Training images shown, repeats counted, to the encoder whose features are one of the spaces."""
    privacy_samples: int
    """Generated images that are searched for copies of training images."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bootstrap_rounds", "neighbours", "encoder_images"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        at_least("jackknife_blocks", self.jackknife_blocks, 4)
        at_least("privacy_samples", self.privacy_samples, 16)


@dataclass(frozen=True)
class Utility:
    """What synthetic images are worth to a classifier: its training, repeated on real, both, and synthetic ones."""

    seeds: int
    """Classifiers trained per mixture; from one alone nobody knows what chance did."""
    images: int
    """Training length: images shown to each classifier, repeats counted."""
    width: int
    """Channels of its first layer."""
    batch_size: int
    learning_rate: float

    def __post_init__(self) -> None:
        for name in ("images", "width"):
            at_least(name, getattr(self, name), 1)
        for name in ("seeds", "batch_size"):
            at_least(name, getattr(self, name), 2)
        if not self.learning_rate > 0:
            raise ParamsError(f"learning_rate {self.learning_rate} must be above 0")


@dataclass(frozen=True)
class Segmentation:
    """What pairs of image and mask are worth to a U-Net: its training, repeated on real, synthetic and both kinds."""

    seeds: int
    """Networks trained per mixture."""
    images: int
    """Training length: images shown to each network, repeats counted."""
    pairs: int
    """Synthetic pairs to learn from."""
    few_patients: list[int]
    """Real patients to learn from, with and without synthetic pairs; counts that training has not are left out."""
    width: int
    """Channels of its first layer."""
    batch_size: int
    learning_rate: float

    def __post_init__(self) -> None:
        for name in ("images", "pairs", "width"):
            at_least(name, getattr(self, name), 1)
        for name in ("seeds", "batch_size"):
            at_least(name, getattr(self, name), 2)
        for count in self.few_patients:
            at_least("few_patients", count, 1)
        if not self.learning_rate > 0:
            raise ParamsError(f"learning_rate {self.learning_rate} must be above 0")


@dataclass(frozen=True)
class Study:
    """Classical models telling real from generated images over a GAN's training."""

    images: int
    """Real images are thinned to this number; as many are generated at every look."""
    epochs: int
    """Looks per recipe that are studied: evenly spread, the first and the last among them."""
    folds: int
    """Folds of the cross-validation; fewer where the real images have fewer groups."""
    bootstrap_rounds: int
    """Resamples behind each confidence interval."""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("images", self.images, MINIMUM_STUDIED_IMAGES)
        at_least("folds", self.folds, 2)
        for name in ("epochs", "bootstrap_rounds"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class Gate:
    """What a new release must not fall short of to take the champion's place."""

    maximum_kid_ratio: float
    """KID of the new generator over the champion's, both against the same held-out images."""
    maximum_auc_drop: float
    """How much less AUC the new detector may reach than the champion's, on the samples of both generators."""
    maximum_near_duplicates: int
    """Near-duplicates of training images among the samples searched."""
    maximum_membership_auc: float
    """The membership-inference AUC's lower bound must not exceed this; 0.5 is guessing."""

    def __post_init__(self) -> None:
        at_least("maximum_kid_ratio", self.maximum_kid_ratio, 0)
        at_least("maximum_near_duplicates", self.maximum_near_duplicates, 0)
        share("maximum_auc_drop", self.maximum_auc_drop)
        share("maximum_membership_auc", self.maximum_membership_auc)


@dataclass(frozen=True)
class Card:
    """What a reader of the model must know of the data; goes into the manifest."""

    title: str
    origin: str
    licence: str
    intended_use: str
    limitations: list[str]

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            lines = [value] if isinstance(value, str) else value
            if not lines or not all(line.strip() for line in lines):
                raise ParamsError(f"{name} {value!r} is empty; readers of the model card must find it there")


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
    studies: list[str] = field(default_factory=list)
    """Those of the datasets whose generators are studied too, see `Study`."""
    pairs: list[str] = field(default_factory=list)
    """Those of the datasets that the dual GAN is trained on too; it is what they are released with."""


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    run: Run
    datasets: dict[str, Dataset]
    recipes: dict[str, Recipe]
    sample: Sample
    train_detector: TrainDetector
    evaluate: Evaluate
    utility: Utility
    segmentation: Segmentation
    study: Study
    gate: Gate

    def __post_init__(self) -> None:
        for name, dataset in self.datasets.items():
            for path in dataset.prepare.source.paths:
                if path != folders.raw(name) and folders.raw(name) not in path.parents:
                    raise ParamsError(
                        f"datasets: {name}: {path} must lie in {folders.raw(name)}: link the images there"
                    )
            for recipe in self.recipes:
                try:
                    self.gan(name, recipe)
                except ParamsError as error:
                    raise ParamsError(f"datasets: {name}: train_gan: {error}") from error
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
                raise ParamsError(f"dataset name {name!r} must be lower-case letters, digits and underscores")
        for name in self.run.datasets:
            one_of("run.datasets", name, tuple(self.datasets))
        for name in self.run.studies:
            one_of("run.studies", name, tuple(self.run.datasets))
        self._check_pairs()
        if PAIRED in self.run.recipes:
            raise ParamsError(f"run.recipes names {PAIRED}; name its datasets, which need masks, under run.pairs")
        for name in self.run.recipes:
            one_of("run.recipes", name, tuple(self.recipes))
        if not self.run.recipes or len(set(self.run.recipes)) < len(self.run.recipes):
            raise ParamsError(f"run.recipes {self.run.recipes} must name at least one recipe, each once")
        if not self.run.datasets or len(set(self.run.datasets)) < len(self.run.datasets):
            raise ParamsError(f"run.datasets {self.run.datasets} must name at least one dataset, each once")

    def _check_pairs(self) -> None:
        if len(set(self.run.pairs)) < len(self.run.pairs):
            raise ParamsError(f"run.pairs {self.run.pairs} must name each dataset once")
        if self.run.pairs:
            one_of("run.pairs needs a recipe", PAIRED, tuple(self.recipes))
        for name in self.run.pairs:
            one_of("run.pairs", name, tuple(self.run.datasets))
            if not self.datasets[name].prepare.has_masks:
                raise ParamsError(
                    f"run.pairs: {name} has no masks; give it a masked-folder source or `prepare.masks`, or take it out"
                )
            if self.datasets[name].train_gan.conditional:
                raise ParamsError(f"run.pairs: {name} is `conditional`, and {PAIRED} draws no labels; set it to false")

    def dataset(self, name: str) -> Dataset:
        """The entry of a dataset.

        Raises:
            ParamsError: for a name that has no entry.
        """
        one_of("dataset", name, tuple(self.datasets))
        return self.datasets[name]

    def recipes_of(self, dataset: str) -> list[str]:
        """The recipes that a dataset is built with."""
        return self.run.recipes + ([PAIRED] if dataset in self.run.pairs else [])

    def gan(self, dataset: str, recipe: str) -> Recipe:
        """The recipe with the dataset's own settings laid over it.

        Raises:
            ParamsError: for a name that has no entry.
        """
        one_of("recipe", recipe, tuple(self.recipes))
        own = self.dataset(dataset).train_gan
        overrides = {key: getattr(own, key) for key in ("width", "batch_size") if getattr(own, key) is not None}
        return dataclasses.replace(self.recipes[recipe], **overrides)


class _UniqueKeys(yaml.SafeLoader):
    """YAML whose mappings name each key once; plain YAML would keep the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise ParamsError(f"{node.start_mark}: the key `{name}` stands there twice; keep one".strip())
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: naming the key, its value and what is valid.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from error
    params = read(Params, document, str(path))
    assert isinstance(params, Params)
    return params


if __name__ == "__main__":
    try:
        checked = load()
    except ParamsError as error:
        sys.exit(f"params.yaml is refused: {error}")
    print(f"params.yaml is valid: {len(checked.datasets)} datasets known, building {', '.join(checked.run.datasets)}")
