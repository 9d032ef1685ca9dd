"""Stage train_detector@D: tell real from generated images.  python -m training.stages.train_detector D

Trains both kinds of detector on real images, samples of all recipes and forgeries, clean and corrupted alike; and, of
every recipe, both kinds once more without its images; and puts both together as an ensemble. What those say of the
generator that they never saw calibrates the probabilities, sets thresholds and chooses between the three kinds. Leaves
one `.pt` and one `.decision.json` per kind, `unseen/RECIPE/`, the scikit-learn original and `metrics.json`.
"""

import argparse
import json
import shutil
from dataclasses import asdict

import joblib
import numpy as np

from training import folders, params, tracking
from training.border import border
from training.data import prepared
from training.detectors import corruptions, detector, examples, forgeries, linear_evidence, unseen
from training.detectors.examples import REAL, Examples
from training.detectors.lesson import Lesson
from training.detectors.typicality import Typicality
from training.evaluation.detection import independent_groups


def train_detector(dataset: str) -> None:
    """Train, choose and calibrate the detectors of a dataset."""
    configuration = params.load()
    settings, recipes = configuration.train_detector, configuration.recipes_of(dataset)
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

        scorers: dict[str, unseen.Scorers] = {}
        for kind in detector.MEMBERS:
            scorer, original = lesson.scorer(kind, None, dataset)
            if original is not None:
                joblib.dump(original, out / detector.ORIGINAL)
            without = {recipe: lesson.scorer(kind, recipe, f"{dataset} without {recipe}")[0] for recipe in recipes}
            scorers[kind] = unseen.Scorers(scorer, without)
        both = Examples.joined([held_out, corrupted])
        scorers["ensemble"] = unseen.Scorers.together(scorers, both.only(REAL).images)

        aucs: dict[str, dict[str, float]] = {}
        for kind in detector.KINDS:
            tried = unseen.Trial.of(scorers[kind], held_out, corrupted)
            aucs[kind] = tried.aucs
            whole, of_recipe = tried.calibrate(groups, typicality, settings.error_share)
            paths = [detector.path(out, kind), *(detector.path(out, kind, recipe) for recipe in of_recipe)]
            for path, calibrated in zip(paths, [whole, *of_recipe.values()], strict=True):
                detector.save(path, calibrated.detector, kind, spec, settings.width)
                detector.save_decision(path, calibrated.decision)
        champion = detector.choose({kind: float(np.mean(list(found.values()))) for kind, found in aucs.items()})
        detector.save_champion(out, champion)
        (out / tracking.METRICS).write_text(
            json.dumps({"unseen_validation_auc": aucs}, indent=2) + "\n", encoding="utf-8"
        )
        record.write(out)
        run.finish(out)
    print(f"validation AUC of {dataset} on unseen generators, clean and corrupted: {aucs}; champion: {champion}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("train_detector", arguments.dataset):
        train_detector(arguments.dataset)
