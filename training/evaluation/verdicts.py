"""How good a dataset's detectors are: on generators they know and on such as they never saw, handled and attacked."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contracts.imaging import ImageSpec
from contracts.manifest import VERDICTS, Thresholds
from training import folders, params
from training.data.prepared import Row
from training.detectors import detector, examples
from training.detectors.detector import Detector
from training.detectors.examples import REAL, Examples
from training.detectors.ranking import area_under_curve
from training.evaluation import adversary, detection, figures, localisation, robustness, scope

CALIBRATED = ("calibration_error", "brier_score", "verdicts")
"""What is known of an unseen generator only where another one calibrated the detector."""

MOST_HANDLED = 100
"""Images of each class that are sent through every corruption."""
SHOWN = 6
UNSEEN_SUMMARY = {"auc": min, "tpr_at_1_percent_fpr": min, "calibration_error": max}
"""Numbers that are summed up over the unseen generators, and which of two values is the worse."""


def report(dataset: str, recipes: list[str], rows: list[Row], settings: params.Evaluate, out: Path) -> dict[str, Any]:
    """All kinds of detector on the test split, whose real images `rows` describe; figures go to `out`.

    The one that is released is also attacked, and asked where it finds its evidence.
    """
    folder = folders.detectors(dataset)
    found = examples.held_out(dataset, "test", recipes)
    unit, real_groups = detection.independent_groups(rows)
    groups = np.concatenate([real_groups, np.full(int(found.synthetic.sum()), "synthetic")])
    kinds: dict[str, Any] = {}
    curves, unseen_curves, clean, handled = {}, {}, {}, {}
    for kind in detector.KINDS:
        model = detector.load(detector.path(folder, kind))
        probabilities, typicality = detector.judge(model, found.images)
        curves[kind] = (found.synthetic, probabilities)
        decision = detector.load_decision(detector.path(folder, kind))
        chosen = _evenly(found, MOST_HANDLED)
        few = found.rows(chosen)
        clean[kind] = area_under_curve(few.synthetic, probabilities[chosen])
        handled[kind] = robustness.after(model, few.images, few.synthetic)
        unseen, pooled = _unseen(folder, kind, recipes, found, groups, settings)
        if len(recipes) > 1:
            unseen_curves[kind] = pooled
        kinds[kind] = {
            **detection.with_intervals(
                found.synthetic, probabilities, groups, settings.bootstrap_rounds, settings.seed
            ),
            "operating_points": detection.operating_points(found.synthetic, probabilities),
            "unseen": unseen,
            "auc_after": handled[kind],
            "auc_loss_after": robustness.loss(clean[kind], handled[kind]),
            "verdicts": {
                origin: _verdicts(decision.thresholds, probabilities[chosen], typicality[chosen])
                for origin in (REAL, *recipes)
                for chosen in [found.origins == origin]
            },
            "promise": {name: value for name, value in asdict(decision).items() if name != "thresholds"},
        }
    figures.roc(curves, out / "roc.png")
    figures.reliability_diagram(curves, out / "reliability.png")
    if unseen_curves:
        figures.reliability_diagram(unseen_curves, out / "reliability_unseen.png")
    figures.robustness(clean, handled, out / "robustness.png")
    champion = detector.champion(folder)
    released = detector.load(detector.path(folder, champion))
    real, fakes = found.images[~found.synthetic], found.images[found.synthetic]
    limits = detector.load_decision(detector.path(folder, champion)).thresholds
    kinds[champion] |= {
        "attacked": adversary.measure(released, real, fakes, limits, settings.seed),
        "pointing": localisation.pointing(released, real, fakes, settings.seed),
    }
    _show_heat(released, found, settings.seed, out / "heatmaps.png")
    return {
        "images": {origin: int((found.origins == origin).sum()) for origin in (REAL, *recipes)},
        "intervals_resample": {"unit": unit, "count": len(np.unique(real_groups))},
        "kinds": kinds,
        "champion": champion,
        "typicality_auc_against": scope.against_strangers(released, real, ImageSpec(real.shape[1], real.shape[3])),
    }


def _unseen(
    folder: Path,
    kind: str,
    recipes: list[str],
    found: Examples,
    groups: np.ndarray,
    settings: params.Evaluate,
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """Leave one generator out: each recipe's images before the detector that never saw any of them.

    A single recipe calibrated that detector itself: nothing is said of calibration and verdicts then. Also the pooled
    targets and probabilities, for the reliability diagram.
    """
    numbers, targets, pooled = {}, [], []
    for recipe in recipes:
        chosen = np.isin(found.origins, (REAL, recipe))
        only = found.rows(chosen)
        path = detector.path(folder, kind, recipe)
        probabilities, typicality = detector.judge(detector.load(path), only.images)
        known: dict[str, Any] = dict(
            detection.with_intervals(
                only.synthetic, probabilities, groups[chosen], settings.bootstrap_rounds, settings.seed
            )
        )
        fake = only.synthetic
        limits = detector.load_decision(path).thresholds
        known["verdicts"] = _verdicts(limits, probabilities[fake], typicality[fake])
        if len(recipes) == 1:
            known = {name: value for name, value in known.items() if name not in CALIBRATED}
        numbers[recipe] = known
        targets.append(only.synthetic)
        pooled.append(probabilities)
    summary = {}
    for name, worse in UNSEEN_SUMMARY.items():
        values = [of_recipe[name]["value"] for of_recipe in numbers.values() if name in of_recipe]
        if values:
            summary[name] = {"mean": float(np.mean(values)), "worst": worse(values)}
    return {"generators": numbers, "summary": summary}, (np.concatenate(targets), np.concatenate(pooled))


def _evenly(found: Examples, most: int) -> np.ndarray:
    """Row numbers of at most `most` images of each class, evenly spread."""
    parts = [np.flatnonzero(chosen) for chosen in (~found.synthetic, found.synthetic)]
    return np.concatenate(
        [part[np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int))] for part in parts]
    )


def _verdicts(limits: Thresholds, probabilities: np.ndarray, typicality: np.ndarray) -> dict[str, float]:
    """Share of each verdict."""
    given = [limits.verdict(float(p), float(t)) for p, t in zip(probabilities, typicality, strict=True)]
    return {verdict: given.count(verdict) / len(given) for verdict in VERDICTS}


def _show_heat(model: Detector, found: Examples, seed: int, path: Path) -> None:
    """Real images with a synthetic region each, and where the detector finds its evidence."""
    made = localisation.pasted(found.images[~found.synthetic], found.images[found.synthetic], seed)
    images = made.with_synthetic[:SHOWN]
    figures.heatmaps(images, localisation.heat(model, images), made.regions[:SHOWN], path)
