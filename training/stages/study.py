"""Stage study@D: how well classical models tell generated from real images.  python -m training.stages.study D

Studies the snapshots of every recipe. Leaves `reports/study/D/`: `table.csv`, `table.md`, `metrics.json` and
`figures/`. A stopped study goes on where it was.
"""

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict

from training import checkpoints, folders, params, tracking
from training.border import border
from training.data import prepared
from training.gans import watch
from training.study import detectability, figures, tables

WORK = "study"
FIGURES = "figures"


def study(dataset: str) -> None:
    """Study the generators of a dataset."""
    configuration = params.load()
    configuration.dataset(dataset)
    settings, names = configuration.study, configuration.recipes_of(dataset)
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record("study", dataset, dataset, asdict(settings) | {"recipes": names}, tracking.lineage(info))
    found = [
        shot
        for name in names
        for shot in detectability.snapshots(
            folders.gan(dataset, name) / watch.SNAPSHOTS_FOLDER, name, info.counts["train"], settings.epochs
        )
    ]
    splits = {split: prepared.load(folders.prepared(dataset), split) for split in prepared.SPLITS}
    real = detectability.real_images(splits, settings)
    work, out = folders.checkpoints(WORK, dataset), folders.study(dataset)
    checkpoints.claim(work, detectability.identity(info.content_hash, found, settings))
    with tracking.run(record, work) as run:
        rows = detectability.measure(real, found, settings, work, run.metrics, f"studying {dataset}")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        tables.write_csv(dataset, real, rows, out / "table.csv")
        (out / "table.md").write_text(tables.document(dataset, real, rows), encoding="utf-8")
        figures.detectability(dataset, rows, out / FIGURES / "detectability.png")
        report = detectability.summary(dataset, real, rows, settings)
        (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)
    shutil.rmtree(work)
    print(f"study@{dataset} took {time.process_time() / 60:.1f} minutes of CPU time", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("study", arguments.dataset):
        study(arguments.dataset)
