"""The figure of the study, as a PNG file without a date so that it can be cached."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.study.detectability import DESCRIPTOR_SETS, IMITATED_BELOW, Detectability, best_by_snapshot
from training.study.tables import SEEN, named

HIGHEST_FLOOR = 0.9
"""The axis of F-measures begins here, or below where results are."""
MARKERS = "os^vD<>P"


def detectability(dataset: str, rows: Sequence[Detectability], path: Path) -> None:
    """F-measure of every model over epochs, with the interval of the best one as a band.

    One column of panels per recipe, one row per set of descriptors.
    """
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    size = (2.6 + 3.8 * len(recipes), 0.6 + 3.0 * len(DESCRIPTOR_SETS))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(DESCRIPTOR_SETS), len(recipes), squeeze=False, sharex="col", sharey="row")
    for line, seen in zip(panels, DESCRIPTOR_SETS, strict=True):
        for panel, recipe in zip(line, recipes, strict=True):
            _panel(panel, [row for row in rows if (row.recipe, row.descriptors) == (recipe, seen)])
        lowest = min(row.f_measure["value"] for row in rows if row.descriptors == seen)
        line[0].set(ylabel=f"F-measure {SEEN[seen]}", ylim=(min(HIGHEST_FLOOR, lowest - 0.03), 1.01))
    for top, bottom, recipe in zip(panels[0], panels[-1], recipes, strict=True):
        top.set(title=recipe)
        bottom.set(xlabel="epochs of the generator")
    figure.suptitle(f"{dataset}: generated images told from real ones")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axes: Axes, rows: Sequence[Detectability]) -> None:
    """One recipe's results under one set of descriptors."""
    tops = best_by_snapshot(rows, rows[0].recipe, rows[0].descriptors)
    axes.fill_between(
        [row.epoch for row in tops],
        [row.f_measure["low"] for row in tops],
        [row.f_measure["high"] for row in tops],
        color="grey",
        alpha=0.3,
        linewidth=0,
        label="best model, 95 % interval",
    )
    for number, model in enumerate(dict.fromkeys(row.model for row in rows)):
        own = [row for row in rows if row.model == model]
        axes.plot(
            [row.epoch for row in own],
            [row.f_measure["value"] for row in own],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=named(model),
        )
    axes.axhline(IMITATED_BELOW, color="black", linewidth=0.8, linestyle=":", label=f"F-measure {IMITATED_BELOW}")
    axes.grid(alpha=0.3)
