"""The detectors of several datasets in one table, out of their evaluations: what `docs/detection.md` shows.

    python -m training.evaluation.summary ihc retina        # after `dvc repro`

Prints Markdown made of `reports/evaluation/NAME/metrics.json`; parentheses hold 95 % intervals.
"""

import argparse
from collections.abc import Callable
from typing import Any

from training import folders, markdown, tracking
from training.border import border

Numbers = dict[str, Any]
"""What the evaluation says of a dataset's detectors."""

HANDLED = ("jpeg_75", "blur_1.2", "resize_0.75")


def table(found: dict[str, Numbers]) -> str:
    """A column per dataset, a row per number of the released detector; `found` are `detectors` of each evaluation."""
    header = ["", *(f"`{name}`" for name in found)]
    return markdown.table(header, [[title, *(of(one) for one in found.values())] for title, of in ROWS.items()])


def _released(detectors: Numbers) -> Numbers:
    found: Numbers = detectors["kinds"][detectors["champion"]]
    return found


def _of(name: str) -> Callable[[Numbers], str]:
    return lambda detectors: markdown.interval(_released(detectors)[name])


def _unseen(name: str) -> Callable[[Numbers], str]:
    def cell(detectors: Numbers) -> str:
        generators = _released(detectors)["unseen"]["generators"]
        return "; ".join(
            f"{recipe} {markdown.interval(numbers[name])}" for recipe, numbers in generators.items() if name in numbers
        )

    return cell


def _lost_after(corruption: str) -> Callable[[Numbers], str]:
    return lambda detectors: f"{_released(detectors)['auc_loss_after'][corruption]:.3f}"


def _verdicts(detectors: Numbers, of_real: bool) -> str:
    parts = {
        origin: shares for origin, shares in _released(detectors)["verdicts"].items() if (origin == "real") == of_real
    }
    said = (
        ", ".join(f"{share:.0%} {verdict.replace('_', ' ')}" for verdict, share in shares.items() if share >= 0.005)
        for shares in parts.values()
    )
    return "; ".join(text if of_real else f"{origin}: {text}" for origin, text in zip(parts, said, strict=True))


ROWS: dict[str, Callable[[Numbers], str]] = {
    "test images": lambda detectors: ", ".join(f"{count} {origin}" for origin, count in detectors["images"].items()),
    "intervals resample": lambda detectors: "{count} {unit}".format(**detectors["intervals_resample"]),
    "detector released": lambda detectors: f"`{detectors['champion']}`",
    "AUC, generators known": _of("auc"),
    "AUC, generator never seen": _unseen("auc"),
    "found at 1 % false alarms, known": _of("tpr_at_1_percent_fpr"),
    "found at 1 % false alarms, never seen": _unseen("tpr_at_1_percent_fpr"),
    "calibration error, known": _of("calibration_error"),
    "calibration error, never seen": _unseen("calibration_error"),
    **{f"AUC lost after `{name}`": _lost_after(name) for name in HANDLED},
    "worst AUC after any corruption": lambda detectors: "{1:.3f} (`{0}`)".format(
        *min(_released(detectors)["auc_after"].items(), key=lambda item: item[1])
    ),
    "verdicts on real images": lambda detectors: _verdicts(detectors, of_real=True),
    "verdicts on samples": lambda detectors: _verdicts(detectors, of_real=False),
    "typicality against strangers, lowest AUC": lambda detectors: "{1:.3f} ({0})".format(
        *min(detectors["typicality_auc_against"].items(), key=lambda item: item[1])
    ),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    with border("evaluate", "summary"):
        names = parser.parse_args().datasets
        found = {name: tracking.found(folders.evaluation(name), name, "run.datasets")["detectors"] for name in names}
        print(table(found), end="")
