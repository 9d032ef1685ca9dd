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
from training.data.prepared import Row
from training.detectors import corruptions, detector, examples
from training.evaluation import control, detection, figures
from training.evaluation.generation import Judge

FIGURES = "figures"


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
        judge = Judge.of(configuration, dataset, real)
        bar.update()
        report: dict[str, Any] = {"generators": {"floor": judge.floor(), "recipes": {}}}
        for name in names:
            report["generators"]["recipes"][name] = judge.generator(name, out / FIGURES)
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
