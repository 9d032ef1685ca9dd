"""Stage evaluate@D: numbers with intervals and figures on the test split.  python -m training.stages.evaluate D

Leaves `reports/evaluation/D/`: `metrics.json` and `figures/`. Fails when the fair-detector control fails.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts.manifest import VERDICTS, Thresholds
from training import device, folders, params, progress, tracking
from training.border import border
from training.data import prepared
from training.data.prepared import PreparedSplit, Row
from training.detectors import corruptions, detector, examples
from training.evaluation import control, detection, fidelity, figures, privacy, spaces, utility
from training.evaluation.spaces import Space
from training.evaluation.utility import Labelled
from training.gans import recipes
from training.gans.recipes import Trained

FIGURES = "figures"
WALKS, WALK_STEPS = 4, 10
PRIVACY_SEED = 2
"""Of the samples searched for copies: others than those that detectors and distances see."""


def evaluate(dataset: str) -> None:
    """Evaluate generators and detectors of a dataset."""
    configuration = params.load()
    settings, names = configuration.evaluate, configuration.run.recipes
    info = prepared.read_dataset(folders.prepared(dataset))
    sections = {"utility": asdict(configuration.utility), "gate": asdict(configuration.gate)}
    record = tracking.Record(
        "evaluate", dataset, dataset, asdict(settings) | sections | {"recipes": names}, tracking.lineage(info)
    )
    out = folders.evaluation(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    real = {split: prepared.load(folders.prepared(dataset), split) for split in prepared.SPLITS}
    with tracking.run(record) as run, progress.bar(len(names) + 3, f"evaluating {dataset}", "parts") as bar:
        judged = Judged(configuration, dataset, real, _spaces(np.asarray(real["train"].images), settings))
        bar.update()
        report: dict[str, Any] = {"generators": {"floor": judged.floor(), "recipes": {}}}
        for name in names:
            report["generators"]["recipes"][name] = judged.generator(name, out / FIGURES)
            bar.update()
        kid = {name: numbers["kid_against_validation"] for name, numbers in report["generators"]["recipes"].items()}
        best = min(kid, key=lambda name: kid[name])
        report["generators"]["champion"] = best
        fakes = np.load(folders.samples(dataset, best) / "test.npy")
        figures.real_beside_synthetic(
            np.asarray(real["test"].images), fakes, out / FIGURES / "real_beside_synthetic.png"
        )
        report["detectors"] = _detectors(dataset, names, real["test"].rows, settings, out / FIGURES)
        bar.update()
        champion, _ = detector.load(folders.detectors(dataset) / f"{report['detectors']['champion']}.pt")
        report["control"] = control.check(champion, np.array(real["test"].images))
        figures.losses({name: _rows(dataset, name, tracking.STATS) for name in names}, out / FIGURES / "losses.png")
        figures.looks({name: _rows(dataset, name, tracking.LOOKS) for name in names}, out / FIGURES / "looks.png")
        bar.update()
        (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)


def _spaces(train: np.ndarray, settings: params.Evaluate) -> list[Space]:
    found = [*spaces.weight_free(train), spaces.encoder(train, settings.encoder_images, settings.seed)]
    inception = spaces.inception(train)
    return found if inception is None else [*found, inception]


@dataclass(frozen=True)
class Judged:
    """The real images of a dataset, against which its generators are judged."""

    configuration: params.Params
    dataset: str
    real: dict[str, PreparedSplit]
    spaces: list[Space]

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


def _detectors(
    dataset: str, recipes: list[str], rows: list[Row], settings: params.Evaluate, out: Path
) -> dict[str, Any]:
    """Both detectors on the test split, clean and corrupted; `rows` describe its real images."""
    images, synthetic = examples.labelled(dataset, "test", recipes)
    unit, groups = detection.independent_groups(rows)
    report: dict[str, Any] = {
        "images": {"real": int((~synthetic).sum()), "synthetic": int(synthetic.sum())},
        "intervals_resample": {"unit": unit, "count": len(np.unique(groups))},
        "kinds": {},
    }
    groups = np.concatenate([groups, np.full(int(synthetic.sum()), "synthetic")])
    curves = {}
    for kind in detector.KINDS:
        model, _ = detector.load(folders.detectors(dataset) / f"{kind}.pt")
        probabilities, typicality = detector.judge(model, images)
        curves[kind] = (synthetic, probabilities)
        numbers: dict[str, Any] = dict(
            detection.with_intervals(synthetic, probabilities, groups, settings.bootstrap_rounds, settings.seed)
        )
        numbers["operating_points"] = detection.operating_points(synthetic, probabilities)
        numbers["auc_after"] = {
            name: detection.area_under_curve(
                synthetic, detector.judge(model, np.stack([corrupt(image) for image in images]))[0]
            )
            for name, corrupt in corruptions.FIXED.items()
        }
        limits = detector.load_thresholds(folders.detectors(dataset), kind)
        noise = np.random.default_rng(settings.seed).integers(0, 256, (64, *images.shape[1:]), dtype=np.uint8)
        numbers["verdicts"] = {
            "real": _verdicts(limits, probabilities[~synthetic], typicality[~synthetic]),
            "synthetic": _verdicts(limits, probabilities[synthetic], typicality[synthetic]),
            "noise": _verdicts(limits, *detector.judge(model, noise)),
        }
        report["kinds"][kind] = numbers
    champion: dict[str, str] = json.loads((folders.detectors(dataset) / detector.SELECTION).read_text(encoding="utf-8"))
    figures.roc(curves, out / "roc.png")
    figures.reliability_diagram(curves, out / "reliability.png")
    return report | champion


def _verdicts(limits: Thresholds, probabilities: np.ndarray, typicality: np.ndarray) -> dict[str, float]:
    """Share of each verdict."""
    given = [limits.verdict(float(p), float(t)) for p, t in zip(probabilities, typicality, strict=True)]
    return {verdict: given.count(verdict) / len(given) for verdict in VERDICTS}


def _rows(dataset: str, recipe: str, file: str) -> list[dict[str, float]]:
    text = (folders.gan(dataset, recipe) / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("evaluate", arguments.dataset):
        evaluate(arguments.dataset)
