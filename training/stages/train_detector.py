"""Stage train_detector@D: tell real from generated images.  python -m training.stages.train_detector D

Trains both kinds of detector on real images, samples of all recipes and forgeries, clean and corrupted alike; and, of
every recipe, both kinds once more without its images. What these say of the generator that they never saw calibrates
the probabilities, sets thresholds and chooses between the kinds. Leaves one `.pt` and one `.decision.json` per kind,
`unseen/RECIPE/`, the scikit-learn original and `metrics.json`.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import Pipeline
from torch import nn

from contracts.imaging import ImageSpec
from training import folders, params, tracking
from training.border import border
from training.data import prepared
from training.detectors import (
    calibration,
    corruptions,
    detector,
    examples,
    forgeries,
    linear_evidence,
    residual_network,
)
from training.detectors.calibration import Calibration, Scale
from training.detectors.detector import Detector
from training.detectors.examples import REAL, Examples
from training.detectors.typicality import Typicality
from training.evaluation.detection import area_under_curve, independent_groups


@dataclass(frozen=True)
class Lesson:
    """What both kinds learn from: the examples with their corrupted copies, and their evidence features."""

    examples: Examples
    features: np.ndarray
    spec: ImageSpec
    settings: params.TrainDetector

    @staticmethod
    def of(clean: Examples, spec: ImageSpec, settings: params.TrainDetector) -> "Lesson":
        """Real and synthetic images are corrupted alike."""
        copies = [
            Examples(corruptions.corrupt_randomly(clean.images, settings.seed + copy), clean.origins)
            for copy in range(settings.corrupted_copies)
        ]
        whole = Examples.joined([clean, *copies])
        features = linear_evidence.features_of(whole.images, linear_evidence.LinearEvidence(spec).features)
        return Lesson(whole, features, spec, settings)

    def scorer(self, kind: str, unseen: str | None, name: str) -> tuple[nn.Module, Pipeline | None]:
        """A trained scorer of a kind, without the images of a recipe; and its scikit-learn original, if it has one."""
        known = self.examples.origins != unseen
        if kind == "linear_evidence":
            return linear_evidence.fit(self.features[known], self.examples.synthetic[known], self.spec, self.settings)
        chosen = self.examples if unseen is None else self.examples.rows(known)
        return residual_network.fit(chosen.images, chosen.synthetic, self.spec, self.settings, name), None


def train_detector(dataset: str) -> None:
    """Train, choose and calibrate the detectors of a dataset."""
    configuration = params.load()
    settings, recipes = configuration.train_detector, configuration.run.recipes
    spec = configuration.dataset(dataset).prepare.image
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record(
        "train_detector", dataset, dataset, asdict(settings) | {"recipes": recipes}, tracking.lineage(info)
    )
    out = folders.detectors(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tracking.run(record) as run:
        train = np.asarray(prepared.load(folders.prepared(dataset), "train").images)
        forgers = forgeries.forgers(train, settings.forger_images, settings.seed)
        lesson = Lesson.of(
            examples.teaching(dataset, recipes, forgers, settings.maximum_training_images, settings.seed),
            spec,
            settings,
        )
        held_out = examples.held_out(dataset, "validation", recipes)
        _, groups = independent_groups(prepared.load(folders.prepared(dataset), "validation").rows)
        corrupted = Examples(
            corruptions.corrupt_randomly(held_out.images, settings.seed + settings.corrupted_copies), held_out.origins
        )

        # Typicality knows real images only
        typicality = Typicality(spec)
        typicality.take(
            linear_evidence.features_of(train, typicality.content),
            linear_evidence.features_of(held_out.only(REAL).images, typicality.content),
        )

        numbers: dict[str, dict[str, float]] = {}
        for kind in detector.KINDS:
            scorer, original = lesson.scorer(kind, None, dataset)
            if original is not None:
                joblib.dump(original, out / detector.ORIGINAL)
            unseen = {recipe: lesson.scorer(kind, recipe, f"{dataset} without {recipe}")[0] for recipe in recipes}
            numbers[kind] = {
                recipe: (_area(one, held_out.only(REAL, recipe)) + _area(one, corrupted.only(REAL, recipe))) / 2
                for recipe, one in unseen.items()
            }
            _calibrate(kind, scorer, unseen, held_out, groups, typicality, settings, spec, out)
        champion = detector.choose({kind: float(np.mean(list(aucs.values()))) for kind, aucs in numbers.items()})
        (out / detector.SELECTION).write_text(json.dumps({"champion": champion}) + "\n", encoding="utf-8")
        (out / tracking.METRICS).write_text(
            json.dumps({"unseen_validation_auc": numbers}, indent=2) + "\n", encoding="utf-8"
        )
        record.write(out)
        run.finish(out)
    print(f"validation AUC of {dataset} on unseen generators, clean and corrupted: {numbers}; champion: {champion}")


def _calibrate(
    kind: str,
    scorer: nn.Module,
    unseen: dict[str, nn.Module],
    held_out: Examples,
    groups: np.ndarray,
    typicality: Typicality,
    settings: params.TrainDetector,
    spec: ImageSpec,
    out: Path,
) -> None:
    """Calibrate a kind on generators that its scorers never saw, decide, and write all its detectors."""
    real = ~held_out.synthetic
    logits = {recipe: detector.log_odds(one, held_out.images) for recipe, one in unseen.items()}
    scales = {recipe: Scale.of(found[real]) for recipe, found in logits.items()}
    parts = {recipe: np.isin(held_out.origins, (REAL, recipe)) for recipe in unseen}
    scaled = {recipe: scales[recipe](found[parts[recipe]]) for recipe, found in logits.items()}
    targets = {recipe: held_out.synthetic[parts[recipe]] for recipe in unseen}
    general = _platt(scaled, targets, list(unseen))
    whole = Detector(scorer, typicality, general.of(Scale.of(detector.log_odds(scorer, held_out.images)[real]))).eval()
    detector.save(detector.path(out, kind), whole, kind, spec, settings.width)
    for recipe, one in unseen.items():
        # Nor is it calibrated on its own images, where there are others.
        others = [other for other in unseen if other != recipe] or [recipe]
        path = detector.path(out, kind, recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        calibrated = Detector(one, typicality, _platt(scaled, targets, others).of(scales[recipe]))
        detector.save(path, calibrated, kind, spec, settings.width)
    probabilities, typical = detector.judge(whole, held_out.images)
    fakes = [general.probabilities(scaled[recipe][targets[recipe]]) for recipe in unseen]
    decision = calibration.decide(probabilities[real], groups, np.concatenate(fakes), typical, settings.error_share)
    detector.save_decision(out, kind, decision)


def _platt(logits: dict[str, np.ndarray], targets: dict[str, np.ndarray], recipes: list[str]) -> Calibration:
    return calibration.platt(
        np.concatenate([logits[recipe] for recipe in recipes]), np.concatenate([targets[recipe] for recipe in recipes])
    )


def _area(scorer: nn.Module, found: Examples) -> float:
    return area_under_curve(found.synthetic, detector.log_odds(scorer, found.images))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("train_detector", arguments.dataset):
        train_detector(arguments.dataset)
