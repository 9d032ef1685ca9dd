"""Stage evaluate@D: numbers with intervals and figures on the test split.  python -m training.stages.evaluate D

Leaves `reports/evaluation/D/`: `metrics.json` and `figures/`. Fails when the fair-detector control fails.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from typing import Any

import numpy as np

from contracts.manifest import VERDICTS, Thresholds
from training import folders, params, progress, tracking
from training.border import border
from training.data import prepared
from training.detectors import corruptions, detector, examples
from training.evaluation import control, detection, fidelity, figures, memorisation
from training.gans.loop import STATS_FILE

FIGURES = "figures"
MOST_NEIGHBOURS = 400


def evaluate(dataset: str) -> None:
    """Evaluate generators and detectors of a dataset."""
    configuration = params.load()
    settings, recipes = configuration.evaluate, configuration.run.recipes
    entry = configuration.dataset(dataset)
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record(
        "evaluate", dataset, dataset, asdict(settings) | {"recipes": recipes}, tracking.lineage(info)
    )
    out = folders.evaluation(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    train = prepared.load(folders.prepared(dataset), "train")
    test = prepared.load(folders.prepared(dataset), "test")
    fakes = {recipe: np.load(folders.samples(dataset, recipe) / "test.npy") for recipe in recipes}
    with tracking.run(record) as run, progress.bar(3, f"evaluating {dataset}", "parts") as bar:
        report: dict[str, Any] = {
            "images": {"test_real": len(test.images), "test_synthetic": sum(map(len, fakes.values()))}
        }
        report["generators"] = _generators(train.images, test.images, fakes, entry.train_gan.flips, settings, out)
        bar.update()
        report["detectors"] = _detectors(dataset, recipes, np.array(test.patients), settings, out)
        bar.update()
        champion, _ = detector.load(folders.detectors(dataset) / f"{report['detectors']['champion']}.pt")
        report["control"] = control.check(champion, np.array(test.images))
        stats = {recipe: _rows(dataset, recipe) for recipe in recipes}
        figures.losses(stats, out / FIGURES / "losses.png")
        best = report["generators"]["champion"]
        figures.real_beside_synthetic(test.images, fakes[best], out / FIGURES / "real_beside_synthetic.png")
        bar.update()
        (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)


def _generators(
    train: np.ndarray,
    test: np.ndarray,
    fakes: dict[str, np.ndarray],
    flips: list[str],
    settings: params.Evaluate,
    out: Any,
) -> dict[str, Any]:
    """KID with its floor and nearest training neighbours, per recipe; the champion has the lowest KID."""
    spaces = fidelity.standardised(
        fidelity.features(train), fidelity.features(test), *map(fidelity.features, fakes.values())
    )
    train_features, test_features, fake_features = spaces[0], spaces[1], dict(zip(fakes, spaces[2:], strict=True))

    def distance(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
        estimate = fidelity.kernel_distance(one, other, settings.kid_subsets, settings.kid_subset_size, settings.seed)
        return asdict(estimate)

    report: dict[str, Any] = {
        "space": fidelity.SPACE,
        "kid_floor_real_train_against_real_test": distance(train_features, test_features),
        "recipes": {},
    }
    held_out = memorisation.nearest(test[:MOST_NEIGHBOURS], train, flips)
    for recipe, images in fakes.items():
        neighbours = memorisation.nearest(images[:MOST_NEIGHBOURS], train, flips)
        report["recipes"][recipe] = {
            "kid_against_train": distance(fake_features[recipe], train_features),
            "kid_against_test": distance(fake_features[recipe], test_features),
            "nearest_training_neighbour": memorisation.report(neighbours, held_out),
        }
        figures.closest_pairs(
            images[:MOST_NEIGHBOURS],
            train[neighbours.rows],
            neighbours.distances,
            out / FIGURES / f"closest_pairs_{recipe}.png",
        )
    by_recipe = report["recipes"]
    report["champion"] = min(by_recipe, key=lambda recipe: by_recipe[recipe]["kid_against_test"]["value"])
    return report


def _detectors(
    dataset: str, recipes: list[str], real_patients: np.ndarray, settings: params.Evaluate, out: Any
) -> dict[str, Any]:
    """Both detectors on the test split, clean and corrupted."""
    images, synthetic = examples.labelled(dataset, "test", recipes)
    patients = np.concatenate([real_patients, np.full(int(synthetic.sum()), "synthetic")])
    few = len(np.unique(real_patients)) < detection.MINIMUM_PATIENTS
    report: dict[str, Any] = {"intervals_resample": "images" if few else "patients", "kinds": {}}
    curves = {}
    for kind in detector.KINDS:
        model, _ = detector.load(folders.detectors(dataset) / f"{kind}.pt")
        probabilities, typicality = detector.judge(model, images)
        curves[kind] = (synthetic, probabilities)
        numbers: dict[str, Any] = dict(
            detection.with_intervals(synthetic, probabilities, patients, settings.bootstrap_rounds, settings.seed)
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
    figures.roc(curves, out / FIGURES / "roc.png")
    figures.reliability_diagram(curves, out / FIGURES / "reliability.png")
    return report | champion


def _verdicts(limits: Thresholds, probabilities: np.ndarray, typicality: np.ndarray) -> dict[str, float]:
    """Share of each verdict."""
    given = [limits.verdict(float(p), float(t)) for p, t in zip(probabilities, typicality, strict=True)]
    return {verdict: given.count(verdict) / len(given) for verdict in VERDICTS}


def _rows(dataset: str, recipe: str) -> list[dict[str, float]]:
    text = (folders.gan(dataset, recipe) / STATS_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("evaluate", arguments.dataset):
        evaluate(arguments.dataset)
