"""The results of the study of a dataset as CSV and Markdown."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training import markdown
from training.study.detectability import DESCRIPTOR_SETS, METRICS, Detectability, Real, best_by_snapshot

TITLES = {"precision": "precision", "recall": "recall", "f_measure": "F-measure", "accuracy": "accuracy", "auc": "AUC"}
SEEN = {"appearance": "by appearance alone", "all": "by all descriptors"}


def write_csv(dataset: str, real: Real, rows: Sequence[Detectability], path: Path) -> None:
    """One line per recipe, epoch, set of descriptors and model; of every metric its value and its interval's bounds."""
    bounds = [(metric, bound) for metric in METRICS for bound in ("value", "low", "high")]
    chosen = "held out" if real.held_out else "all splits"
    columns = ["dataset", "recipe", "epoch", "images_seen", "descriptors", "model", "images_per_class", "real_images"]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns + [metric if bound == "value" else f"{metric}_{bound}" for metric, bound in bounds])
        for row in rows:
            what = [dataset, row.recipe, f"{row.epoch:.2f}", row.images_seen, row.descriptors, row.model]
            numbers = [f"{getattr(row, metric)[bound]:.4f}" for metric, bound in bounds]
            table.writerow([*what, len(real.images), chosen, *numbers])


def document(dataset: str, real: Real, rows: Sequence[Detectability]) -> str:
    """The same for readers, with what the numbers rest on; the best model of every epoch is in bold."""
    tops = {
        id(top)
        for recipe in {row.recipe for row in rows}
        for seen in DESCRIPTOR_SETS
        for top in best_by_snapshot(rows, recipe, seen)
    }
    header = ["dataset", "recipe", "epoch", "descriptors", "model", *(TITLES[metric] for metric in METRICS)]
    lines = []
    for row in rows:
        bold = "**" if id(row) in tops else ""
        numbers = [markdown.interval(getattr(row, metric)) for metric in METRICS]
        model = f"{bold}{named(row.model)}{bold}"
        lines.append([dataset, row.recipe, f"{row.epoch:.1f}", row.descriptors, model, *numbers])
    source = "held out: the GANs were trained on none of them"
    if not real.held_out:
        source = "of all splits, since few are held out: the GANs were trained on part of them"
    return (
        f"# How well models tell generated from real images of {dataset}\n\n"
        f"{len(real.images)} real images, {source}; as many generated ones at every epoch. Predictions are "
        f"cross-validated, and no fold divides {_groups(real.fold_unit, real.fold_groups)}. Synthetic is positive. "
        f"Parentheses hold 95 % intervals, which resample {_groups(real.interval_unit, real.interval_groups)} and the "
        "generated images. In bold the best model of the epoch by F-measure; it is chosen on the images it is measured "
        "on, so its numbers flatter a little.\n\n" + markdown.table(header, lines)
    )


def named(model: str) -> str:
    """The name of a model in a text."""
    return model.replace("_", " ")


def _groups(unit: str, groups: np.ndarray) -> str:
    return f"the {len(np.unique(groups))} {unit}"
