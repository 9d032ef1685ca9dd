"""Stage across: what every dataset's detector is worth on the others.  python -m training.stages.across

Over all datasets of `run.datasets`; with a single one there is little to say. Leaves `reports/across/`: `metrics.json`,
`table.md` and `figures/`.
"""

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training import folders, params, tracking
from training.border import border
from training.data import prepared
from training.evaluation import across as evaluation
from training.evaluation import figures

FIGURES = "figures"
MAXIMUM_TEACHING_IMAGES = 400
"""Real images of each dataset that teach the model that is tried on another one; as many generated ones."""


def across() -> None:
    """Try every detector on every other dataset."""
    configuration = params.load()
    run, training = configuration.run, configuration.train_detector
    infos = [prepared.read_dataset(folders.prepared(name)) for name in run.datasets]
    record = tracking.Record(
        "across",
        "across",
        "across",
        asdict(configuration.evaluate) | asdict(run),
        tracking.lineage(*infos),
    )
    known = {
        name: evaluation.Known.of(name, configuration.recipes_of(name), MAXIMUM_TEACHING_IMAGES, training.seed)
        for name in run.datasets
    }
    out = folders.ACROSS
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tracking.run(record) as live:
        report = evaluation.report(known, training, configuration.evaluate)
        _write(report, out)
        record.write(out)
        live.finish(out)
    print(f"across took {time.process_time() / 60:.1f} minutes of CPU time", file=sys.stderr)


def _write(report: dict[str, Any], out: Path) -> None:
    for part, title in (
        ("transfer", "AUC of a row's detector on a column's real and generated images"),
        ("typicality_auc", "AUC of a row's typicality against a column's images"),
        ("answered", "share of a row's images that a column's model answers for"),
    ):
        figures.matrix(evaluation.values(report[part]), title, out / FIGURES / f"{part}.png")
    (out / "table.md").write_text(evaluation.document(report), encoding="utf-8")
    (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with border("across"):
        across()
