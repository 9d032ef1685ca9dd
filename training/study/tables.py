"""The results of the study as CSV and Markdown, and its answer over several datasets in words."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.study.detectability import (
    DESCRIPTOR_SETS,
    IMITATED_BELOW,
    METRICS,
    Detectability,
    Estimate,
    Real,
    best_by_snapshot,
)

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


def markdown(dataset: str, real: Real, rows: Sequence[Detectability]) -> str:
    """The same for readers, with what the numbers rest on; the best model of every epoch is in bold."""
    tops = {
        id(top)
        for recipe in {row.recipe for row in rows}
        for seen in DESCRIPTOR_SETS
        for top in best_by_snapshot(rows, recipe, seen)
    }
    header = ["dataset", "recipe", "epoch", "descriptors", "model", *(TITLES[metric] for metric in METRICS)]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        bold = "**" if id(row) in tops else ""
        numbers = [interval(getattr(row, metric)) for metric in METRICS]
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
        "on, so its numbers flatter a little.\n\n" + _table(lines)
    )


def answer(studies: Sequence[dict[str, Any]]) -> str:
    """Which kinds of bioimage are imitated well, in Markdown, of the `metrics.json` of several datasets.

    A dataset is judged by the last look of the recipe that imitates it best. The harder it is to tell, the lower is the
    best model's F-measure by all descriptors; of those that agree in the second digit, by appearance. It is imitated
    well where the interval of the F-measure reaches below 0.95, which is said of both sets of descriptors.
    """
    if not studies:
        return "No dataset was studied.\n"
    judged = sorted(
        ((study["dataset"], *_best_imitation(study)) for study in studies),
        key=lambda found: (*_hardness(found[2]), found[0]),
    )
    sentences = []
    for seen in reversed(DESCRIPTOR_SETS):
        well = [dataset for dataset, _, recipe in judged if recipe[seen]["imitated_at_last"]]
        badly = [dataset for dataset, _, recipe in judged if not recipe[seen]["imitated_at_last"]]
        sentences.append(
            f"Told apart {SEEN[seen]}, imitated well at the last epoch "
            f"(the best model's F-measure may be below {IMITATED_BELOW}): {_listed(well)}; not well: {_listed(badly)}."
        )
    header = ["rank", "dataset", "recipe", "epochs"]
    for seen in reversed(DESCRIPTOR_SETS):
        header += [f"best model {SEEN[seen]}", TITLES["f_measure"], TITLES["auc"]]
    lines = [header, ["---"] * len(header)]
    for rank, (dataset, name, recipe) in enumerate(judged, 1):
        cells = [str(rank), dataset, name, f"{recipe['all']['last']['epoch']:.0f}"]
        for seen in reversed(DESCRIPTOR_SETS):
            last = recipe[seen]["last"]
            cells += [named(last["best_model"]), interval(last["f_measure"]), interval(last["auc"])]
        lines.append(cells)
    return "\n\n".join(sentences) + "\n\nFrom the hardest to tell to the easiest:\n\n" + _table(lines)


def interval(estimate: Estimate) -> str:
    """A number with its interval."""
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def named(model: str) -> str:
    """The name of a model in a text."""
    return model.replace("_", " ")


def _best_imitation(study: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The recipe that is hardest to tell, and its part of the summary."""
    recipes: dict[str, dict[str, Any]] = study["recipes"]
    name = min(recipes, key=lambda recipe: (*_hardness(recipes[recipe]), recipe))
    return name, recipes[name]


def _hardness(recipe: dict[str, Any]) -> tuple[float, float, float, float]:
    """What a recipe is ordered by, the hardest to tell first."""
    everything, appearance = recipe["all"]["last"], recipe["appearance"]["last"]
    return (
        round(everything["f_measure"]["value"], 2),
        appearance["f_measure"]["value"],
        appearance["auc"]["value"],
        everything["auc"]["value"],
    )


def _groups(unit: str, groups: np.ndarray) -> str:
    return f"the {len(np.unique(groups))} {unit}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
