"""What detectors are worth on the other datasets: transfer, leave one dataset out, and who answers for whose images.

Images of another dataset come into a detector's form as an upload does.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.imaging import ImageSpec, fit
from contracts.manifest import Thresholds
from training import folders
from training.data import prepared
from training.detectors import corruptions, detector, examples, linear_evidence
from training.detectors.detector import Detector
from training.detectors.examples import REAL, Examples
from training.evaluation import detection, scope
from training.params import Evaluate, TrainDetector

AUC = {"auc": detection.area_under_curve}
NONE = "none"
"""Where no model takes an image for its kind: the request is out of scope."""


@dataclass(frozen=True)
class Known:
    """A dataset with its released detector, held-out images, and what may be learned from it."""

    spec: ImageSpec
    released: Detector
    thresholds: Thresholds
    held_out: Examples
    groups: np.ndarray
    """Of the held-out images, str [N]: real ones by what is independent, generated ones all of one."""
    unit: str
    """What the groups of real images are: `patients`, `places` or `images`."""
    teaching: Examples

    @staticmethod
    def of(dataset: str, recipes: list[str], most: int, seed: int) -> "Known":
        """Read what the stages before left; at most `most` real images teach, and as many generated ones."""
        info, folder = prepared.read_dataset(folders.prepared(dataset)), folders.detectors(dataset)
        champion = detector.champion(folder)
        held_out = examples.held_out(dataset, "test", recipes)
        unit, real_groups = detection.independent_groups(prepared.load(folders.prepared(dataset), "test").rows)
        return Known(
            info.image,
            detector.load(detector.path(folder, champion)),
            detector.load_decision(folder, champion).thresholds,
            held_out,
            np.concatenate([real_groups, np.full(int(held_out.synthetic.sum()), "synthetic")]),
            unit,
            examples.teaching(dataset, recipes, {}, most, seed),
        )


def report(known: dict[str, Known], training: TrainDetector, settings: Evaluate) -> dict[str, Any]:
    """All of it, by dataset: `transfer[own][other]`, `left_out[other]`, `typicality_auc[own][other]`, `answered[own]`.

    The first two are areas under the ROC curve of real against generated test images, with intervals; `answered` the
    shares of held-out real images that each model, or `none`, answers for when a request names none.
    """
    real = {name: one.held_out.only(REAL).images for name, one in known.items()}
    scorers = {name: one.released for name, one in known.items()}
    specs = {name: one.spec for name, one in known.items()}
    return {
        "intervals_resample": {name: one.unit for name, one in known.items()},
        "transfer": {
            own: {
                name: _area(
                    other, detector.judge(one.released, as_uploaded(other.held_out.images, one.spec))[0], settings
                )
                for name, other in known.items()
                if name != own
            }
            for own, one in known.items()
        },
        "left_out": {name: _left_out(known, name, training, settings) for name in known} if len(known) > 1 else {},
        "typicality_auc": scope.pairs(scorers, real, specs),
        "answered": {name: answered(known, images) for name, images in real.items()},
    }


def as_uploaded(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Images uint8 [N, H, W, C] of one dataset in the form of another, [N, size, size, channels]."""
    return np.concatenate([fit(image, spec) for image in images])


def answered(known: dict[str, Known], images: np.ndarray) -> dict[str, float]:
    """Shares of the images that each model answers for, as the service chooses: the highest typicality in scope."""
    scores = np.full((len(known), len(images)), -1.0)
    for row, one in enumerate(known.values()):
        typicality = scope.typicality(one.released, as_uploaded(images, one.spec))
        scores[row] = np.where(typicality >= one.thresholds.typicality, typicality, -1.0)
    chosen = np.where(scores.max(axis=0) < 0, len(known), scores.argmax(axis=0))
    return {name: float((chosen == number).mean()) for number, name in enumerate([*known, NONE])}


def _left_out(known: dict[str, Known], name: str, training: TrainDetector, settings: Evaluate) -> dict[str, float]:
    """The linear model taught by all other datasets, evenly, their images clean and corrupted, on this one."""
    spec = known[name].spec
    parts = [
        Examples(as_uploaded(one.teaching.images, spec), one.teaching.origins)
        for other, one in known.items()
        if other != name
    ]
    clean = Examples.joined(parts)
    taught = Examples.joined(
        [clean, Examples(corruptions.corrupt_randomly(clean.images, training.seed), clean.origins)]
    )
    features = linear_evidence.features_of(taught.images, linear_evidence.LinearEvidence(spec).features)
    scorer, _ = linear_evidence.fit(features, taught.synthetic, spec, training)
    return _area(known[name], detector.log_odds(scorer, known[name].held_out.images), settings)


def _area(one: Known, scores: np.ndarray, settings: Evaluate) -> dict[str, float]:
    found = detection.with_intervals(
        one.held_out.synthetic, scores, one.groups, settings.bootstrap_rounds, settings.seed, AUC
    )
    return found["auc"]


def values(part: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """A part of the report by row and column, estimates without their intervals."""
    return {
        row: {column: cell["value"] if isinstance(cell, dict) else cell for column, cell in cells.items()}
        for row, cells in part.items()
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown tables."""
    names = list(report["answered"])
    sections = [
        _table(
            "Real or generated: the AUC of a row's detector on a column's images",
            "detector of",
            names,
            {
                own: {other: _interval(cell) for other, cell in cells.items()}
                for own, cells in report["transfer"].items()
            },
        ),
        _table(
            "Real or generated: the AUC of a linear model taught by all other datasets",
            "tried on",
            ["AUC"],
            {name: {"AUC": _interval(cell)} for name, cell in report["left_out"].items()},
        ),
        _table(
            "Of another kind: the AUC by which a row's typicality tells a column's images from its own",
            "typicality of",
            names,
            {own: {other: f"{x:.3f}" for other, x in cells.items()} for own, cells in report["typicality_auc"].items()},
        ),
        _table(
            "Who answers for held-out real images when a request names no model",
            "images of",
            [*names, NONE],
            {own: {other: f"{x:.0%}" for other, x in cells.items()} for own, cells in report["answered"].items()},
        ),
    ]
    return "\n".join(sections)


def _table(title: str, corner: str, columns: list[str], rows: dict[str, dict[str, str]]) -> str:
    lines = [[corner, *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(cells.get(column, "") for column in columns)] for name, cells in rows.items()]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
