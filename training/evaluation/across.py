"""What detectors are worth on the other datasets: transfer, leave one dataset out, and who answers for whose images.

Images of another dataset come into a detector's form whole, as small uploads do.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contracts.imaging import ImageSpec
from contracts.manifest import Thresholds
from training import folders, markdown
from training.data import prepared
from training.detectors import corruptions, detector, examples, linear_evidence
from training.detectors.detector import Detector
from training.detectors.examples import Examples
from training.detectors.ranking import area_under_curve
from training.evaluation import detection, scope
from training.params import Evaluate, TrainDetector

AUC = {"auc": area_under_curve}
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
            detector.load_decision(detector.path(folder, champion)).thresholds,
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
    transfer: dict[str, dict[str, Any]] = {own: {} for own in known}
    typicality: dict[str, dict[str, np.ndarray]] = {own: {} for own in known}
    for own, one in known.items():
        for name, other in known.items():
            images = other.held_out.images
            probabilities, typical = detector.judge(one.released, images if own == name else whole(images, one.spec))
            typicality[own][name] = typical[~other.held_out.synthetic]
            if own != name:
                transfer[own][name] = _area(other, probabilities, settings)
    return {
        "intervals_resample": {name: one.unit for name, one in known.items()},
        "transfer": transfer,
        "left_out": {name: _left_out(known, name, training, settings) for name in known} if len(known) > 1 else {},
        "typicality_auc": {
            own: {name: scope.area(of[own], typical) for name, typical in of.items() if name != own}
            for own, of in typicality.items()
        },
        "answered": {name: answered(known, {own: of[name] for own, of in typicality.items()}) for name in known},
    }


def whole(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Images uint8 [N, H, W, C] in another form, [N, size, size, channels]: none is cut into tiles."""
    return scope.as_uploaded(images, replace(spec, tile_side=None))


def answered(known: dict[str, Known], typicality: dict[str, np.ndarray]) -> dict[str, float]:
    """Shares of images that each model answers for, as the service chooses: the highest typicality in scope.

    `typicality` holds by the name of each model what it finds of the same images, float [N].
    """
    scores = np.stack(
        [np.where(typicality[name] >= one.thresholds.typicality, typicality[name], -1.0) for name, one in known.items()]
    )
    chosen = np.where(scores.max(axis=0) < 0, len(known), scores.argmax(axis=0))
    return {name: float((chosen == number).mean()) for number, name in enumerate([*known, NONE])}


def _left_out(known: dict[str, Known], name: str, training: TrainDetector, settings: Evaluate) -> dict[str, float]:
    """The linear model taught by all other datasets, evenly, their images clean and corrupted, on this one."""
    spec = known[name].spec
    parts = [
        Examples(whole(one.teaching.images, spec), one.teaching.origins)
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


def document(report: dict[str, Any]) -> str:
    """The report in Markdown tables."""
    names = list(report["answered"])
    sections = [
        _section(
            "Real or generated: the AUC of a row's detector on a column's images",
            ["detector of", *names],
            {
                own: {other: markdown.interval(cell) for other, cell in cells.items()}
                for own, cells in report["transfer"].items()
            },
        ),
        _section(
            "Real or generated: the AUC of a linear model taught by all other datasets",
            ["tried on", "AUC"],
            {name: {"AUC": markdown.interval(cell)} for name, cell in report["left_out"].items()},
        ),
        _section(
            "Of another kind: the AUC by which a row's typicality tells a column's images from its own",
            ["typicality of", *names],
            {own: {other: f"{x:.3f}" for other, x in cells.items()} for own, cells in report["typicality_auc"].items()},
        ),
        _section(
            "Who answers for held-out real images when a request names no model",
            ["images of", *names, NONE],
            {own: {other: f"{x:.0%}" for other, x in cells.items()} for own, cells in report["answered"].items()},
        ),
    ]
    return "\n".join(sections)


def _section(title: str, header: list[str], rows: dict[str, dict[str, str]]) -> str:
    cells = [[name, *(found.get(column, "") for column in header[1:])] for name, found in rows.items()]
    return f"## {title}\n\n{markdown.table(header, cells)}"
