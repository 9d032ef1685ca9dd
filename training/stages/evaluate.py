"""Stage evaluate@D: numbers with intervals and figures on the test split.  python -m training.stages.evaluate D

Leaves `reports/evaluation/D/`: `metrics.json` and `figures/`. Fails when the fair-detector control fails.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from typing import Any

import numpy as np

from training import folders, params, progress, tracking
from training.border import border
from training.data import prepared
from training.detectors import detector
from training.evaluation import control, figures, verdicts
from training.evaluation.generation import Judge
from training.params import PAIRED

FIGURES = "figures"


def evaluate(dataset: str) -> None:
    """Evaluate generators and detectors of a dataset."""
    configuration = params.load()
    settings, names = configuration.evaluate, configuration.recipes_of(dataset)
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
        best = PAIRED if PAIRED in names else min(kid, key=lambda name: kid[name])
        report["generators"]["champion"] = best
        fakes = np.load(folders.samples(dataset, best) / "test.npy")
        figures.real_beside_synthetic(
            np.asarray(real["test"].images), fakes, out / FIGURES / "real_beside_synthetic.png"
        )
        report["detectors"] = verdicts.report(dataset, names, real["test"].rows, settings, out / FIGURES)
        bar.update()
        champion = detector.load(detector.path(folders.detectors(dataset), report["detectors"]["champion"]))
        report["control"] = control.check(champion, np.array(real["test"].images))
        figures.losses({name: _rows(dataset, name, tracking.STATS) for name in names}, out / FIGURES / "losses.png")
        figures.looks({name: _rows(dataset, name, tracking.LOOKS) for name in names}, out / FIGURES / "looks.png")
        bar.update()
        (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)


def _rows(dataset: str, recipe: str, file: str) -> list[dict[str, float]]:
    text = (folders.gan(dataset, recipe) / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("evaluate", arguments.dataset):
        evaluate(arguments.dataset)
