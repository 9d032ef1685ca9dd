"""How good a dataset's generators are: fidelity, privacy and utility in one report, beside what real images reach."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import device, folders, params, tracking
from training.data import prepared
from training.data.prepared import PreparedSplit
from training.evaluation import detection, fidelity, figures, privacy, spaces, utility
from training.evaluation.spaces import Space
from training.evaluation.utility import Labelled
from training.gans import recipes
from training.gans.recipes import Trained

WALKS, WALK_STEPS = 4, 10
PRIVACY_SEED = 2
"""Of the samples searched for copies: others than those that detectors and distances see."""


@dataclass(frozen=True)
class Judge:
    """The real images of a dataset and the spaces fitted to them, against which its generators are judged."""

    configuration: params.Params
    dataset: str
    real: dict[str, PreparedSplit]
    spaces: list[Space]

    @staticmethod
    def of(configuration: params.Params, dataset: str, real: dict[str, PreparedSplit]) -> "Judge":
        """Fit all spaces to the training images."""
        settings, train = configuration.evaluate, np.asarray(real["train"].images)
        found = [*spaces.weight_free(train), spaces.encoder(train, settings.encoder_images, settings.seed)]
        inception = spaces.inception(train)
        return Judge(configuration, dataset, real, found if inception is None else [*found, inception])

    @property
    def settings(self) -> params.Evaluate:
        return self.configuration.evaluate

    def images(self, split: str) -> np.ndarray:
        return np.asarray(self.real[split].images)

    def groups(self, split: str) -> np.ndarray:
        return detection.independent_groups(self.real[split].rows)[1]

    def floor(self) -> dict[str, Any]:
        """What every distance is for real training images in the place of generated ones."""
        settings = self.settings
        return fidelity.floor(
            self.spaces,
            self.images("train"),
            self.groups("train"),
            self.images("test"),
            self.groups("test"),
            self.configuration.sample.test,
            settings.neighbours,
            settings.jackknife_blocks,
            settings.seed,
        )

    def generator(self, recipe: str, out: Path) -> dict[str, Any]:
        """Fidelity, privacy and utility of a recipe's generator, with its figures."""
        settings, folder = self.settings, folders.samples(self.dataset, recipe)
        trained = Trained.load(folders.gan(self.dataset, recipe) / recipes.GENERATOR_FILE).to(device.choose())
        fakes = {split: np.load(folder / f"{split}.npy") for split in prepared.SPLITS}
        free = [space for space in self.spaces if space.name in spaces.WEIGHT_FREE]
        figures.latent_walk(
            trained.walk(settings.seed, WALKS, WALK_STEPS), WALK_STEPS, out / f"latent_walk_{recipe}.png"
        )
        return {
            "kid_against_validation": fidelity.mean_kernel_distance(
                free, fakes["validation"], self.images("validation")
            ),
            "spaces": fidelity.report(
                self.spaces,
                self.images("train"),
                self.images("test"),
                self.groups("test"),
                fakes["test"],
                settings.neighbours,
                settings.jackknife_blocks,
                settings.seed,
            ),
            "privacy": self._privacy(trained, out / f"closest_pairs_{recipe}.png"),
            "utility": self._utility(trained, fakes["train"], folder),
            "training": json.loads((folders.gan(self.dataset, recipe) / tracking.METRICS).read_text(encoding="utf-8"))
            | {"recipe_settings": asdict(trained.settings)},
        }

    def _privacy(self, trained: Trained, figure: Path) -> dict[str, Any]:
        settings, train = self.settings, self.images("train")
        flips = self.configuration.dataset(self.dataset).train_gan.flips
        fakes = trained.generate(PRIVACY_SEED, 0, settings.privacy_samples)
        found, neighbours = privacy.report(
            fakes,
            train,
            self.images("test"),
            self.groups("train"),
            self.groups("test"),
            flips,
            settings.bootstrap_rounds,
            settings.seed,
        )
        figures.closest_pairs(fakes, train[neighbours.rows], neighbours.distances, figure)
        limits = self.configuration.gate
        checks = privacy.checks(found, limits.maximum_near_duplicates, limits.maximum_membership_auc)
        return found | {"checks": [asdict(check) for check in checks]}

    def _utility(self, trained: Trained, fakes: np.ndarray, samples: Path) -> dict[str, Any] | None:
        """None where the generator draws no labels."""
        if not trained.labels.names:
            return None
        train, test = (_labelled(self.real[split]) for split in ("train", "test"))
        return utility.measure(
            train,
            Labelled(fakes, np.load(samples / "train_labels.npy")),
            test,
            self.groups("test")[self.real["test"].labels >= 0],
            len(trained.labels.names),
            self.configuration.dataset(self.dataset).train_gan.flips,
            self.configuration.utility,
            self.settings.bootstrap_rounds,
            self.settings.seed,
        )


def _labelled(split: PreparedSplit) -> Labelled:
    known = split.labels >= 0
    return Labelled(np.asarray(split.images)[known], split.labels[known])
