"""The study's answer over several datasets: which kinds of bioimage are imitated well, and which are told at once.

    python -m training.study.answer ihc retina      # after `dvc repro` with both in `run.studies`

Prints Markdown made of their `reports/study/NAME/metrics.json`.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from training import folders, markdown, tracking
from training.border import border
from training.study import tables
from training.study.detectability import DESCRIPTOR_SETS, IMITATED_BELOW


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
            f"Told apart {tables.SEEN[seen]}, imitated well at the last epoch "
            f"(the best model's F-measure may be below {IMITATED_BELOW}): {_listed(well)}; not well: {_listed(badly)}."
        )
    header = ["rank", "dataset", "recipe", "epochs"]
    for seen in reversed(DESCRIPTOR_SETS):
        header += [f"best model {tables.SEEN[seen]}", tables.TITLES["f_measure"], tables.TITLES["auc"]]
    lines = []
    for rank, (dataset, name, recipe) in enumerate(judged, 1):
        cells = [str(rank), dataset, name, f"{recipe['all']['last']['epoch']:.0f}"]
        for seen in reversed(DESCRIPTOR_SETS):
            last = recipe[seen]["last"]
            cells += [
                tables.named(last["best_model"]),
                markdown.interval(last["f_measure"]),
                markdown.interval(last["auc"]),
            ]
        lines.append(cells)
    return "\n\n".join(sentences) + "\n\nFrom the hardest to tell to the easiest:\n\n" + markdown.table(header, lines)


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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    with border("study", "answer"):
        studies = [tracking.found(folders.study(name), name, "run.studies") for name in parser.parse_args().datasets]
        print(answer(studies), end="")
