"""Stage evaluate@D: numbers with intervals and figures on the test split.  python -m training.stages.evaluate D

Leaves `reports/evaluation/D/`: `metrics.json` and `figures/`. Fails when the fair-detector control fails.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contracts.manifest import VERDICTS, Thresholds
from training import folders, params, progress, tracking
from training.border import border
from training.data import prepared
from training.data.prepared import PreparedSplit, Row
from training.detectors import corruptions, detector, examples
from training.evaluation import control, detection, fidelity, figures, memorisation

FIGURES = "figures"
MOST_NEIGHBOURS = 400


def evaluate(dataset: str) -> None:
    """Evaluate generators and detectors of a dataset."""
    configuration = params.load()
    settings, recipes = configuration.evaluate, configuration.run.recipes
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record(
        "evaluate", dataset, dataset, asdict(settings) | {"recipes": recipes}, tracking.lineage(info)
    )
    out = folders.evaluation(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    real = {split: prepared.load(folders.prepared(dataset), split) for split in prepared.SPLITS}
    with tracking.run(record) as run, progress.bar(3, f"evaluating {dataset}", "parts") as bar:
        flips = configuration.dataset(dataset).train_gan.flips
        report: dict[str, Any] = {"generators": _generators(dataset, recipes, real, flips, settings, out / FIGURES)}
        bar.update()
        report["detectors"] = _detectors(dataset, recipes, real["test"].rows, settings, out / FIGURES)
        bar.update()
        champion, _ = detector.load(folders.detectors(dataset) / f"{report['detectors']['champion']}.pt")
        report["control"] = control.check(champion, np.array(real["test"].images))
        figures.losses({recipe: _stats(dataset, recipe) for recipe in recipes}, out / FIGURES / "losses.png")
        bar.update()
        (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)


def _generators(
    dataset: str,
    recipes: list[str],
    real: dict[str, PreparedSplit],
    flips: list[str],
    settings: params.Evaluate,
    out: Path,
) -> dict[str, Any]:
    """KID with its floor, and nearest training neighbours, per recipe; the validation split chooses the champion."""

    def distance(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
        estimate = fidelity.kernel_distance(one, other, settings.kid_subsets, settings.kid_subset_size, settings.seed)
        return asdict(estimate)

    train, validation, test = (np.asarray(real[split].images) for split in ("train", "validation", "test"))
    chosen = np.random.default_rng(settings.seed).permutation(len(test))[:MOST_NEIGHBOURS]
    held_out = memorisation.nearest(test[chosen], train, flips)
    spaces = fidelity.standardised(*map(fidelity.features, (train, validation, test)))
    report: dict[str, Any] = {
        "space": fidelity.SPACE,
        "kid_floor_real_train_against_real_test": distance(spaces[0], spaces[2]),
        "recipes": {},
    }
    samples = {}
    for recipe in recipes:
        folder = folders.samples(dataset, recipe)
        samples[recipe] = np.load(folder / "test.npy")
        sets = (train, np.load(folder / "validation.npy"), samples[recipe])
        _, validation_fakes, test_fakes = fidelity.standardised(*map(fidelity.features, sets))
        fakes = samples[recipe][:MOST_NEIGHBOURS]
        neighbours = memorisation.nearest(fakes, train, flips)
        report["recipes"][recipe] = {
            "kid_against_train": distance(test_fakes, spaces[0]),
            "kid_against_validation": distance(validation_fakes, spaces[1]),
            "kid_against_test": distance(test_fakes, spaces[2]),
            "nearest_training_neighbour": memorisation.report(neighbours, held_out),
        }
        path = out / f"closest_pairs_{recipe}.png"
        figures.closest_pairs(fakes, train[neighbours.rows], neighbours.distances, path)
    kid = {recipe: numbers["kid_against_validation"]["value"] for recipe, numbers in report["recipes"].items()}
    report["champion"] = min(kid, key=lambda recipe: kid[recipe])
    figures.real_beside_synthetic(test, samples[report["champion"]], out / "real_beside_synthetic.png")
    return report


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


def _stats(dataset: str, recipe: str) -> list[dict[str, float]]:
    text = (folders.gan(dataset, recipe) / tracking.STATS).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("evaluate", arguments.dataset):
        evaluate(arguments.dataset)
