"""What a release says of itself: the manifest, out of card, data and evaluation."""

from dataclasses import asdict
from typing import Any

from contracts.manifest import SCHEMA
from training.data.prepared import DatasetInfo
from training.detectors.calibration import Decision
from training.gans import dual, recipes
from training.gans.recipes import Trained
from training.params import Card


def describe(
    card: Card,
    info: DatasetInfo,
    trained: Trained,
    kind: str,
    decision: Decision,
    report: dict[str, Any],
    differences: dict[str, float],
) -> dict[str, Any]:
    """The manifest without files and version, which `contracts.manifest.write_release` derives.

    `report` is the evaluation's `metrics.json`; `differences` are those of the graphs to their originals.
    """
    spec = info.image
    labels, latent_size = trained.labels, trained.settings.latent_size
    image = {"dtype": "uint8", "shape": ["N", spec.size, spec.size, spec.channels]}
    scores = report["detectors"]["kinds"][kind]
    numbers = report["generators"]["recipes"][trained.recipe]
    checks = numbers["privacy"]["checks"]
    inputs = {"latent": {"dtype": "float32", "shape": ["N", latent_size]}}
    outputs = {"image": image}
    painter: dict[str, Any] = {}
    if recipes.RECIPES[trained.recipe].draws_masks:
        outputs["mask"] = mask = {"dtype": "uint8", "shape": ["N", spec.size, spec.size]}
        noise = {"dtype": "float32", "shape": ["N", dual.NOISE_SIZE]}
        painter["painter"] = {
            "noise_size": dual.NOISE_SIZE,
            "inputs": {"mask": mask, "noise": noise},
            "outputs": {"image": image},
        }
    if labels.names:
        inputs["label"] = {"dtype": "int64", "shape": ["N"]}
    return {
        "schema": SCHEMA,
        "name": info.name,
        "image": asdict(spec),
        "generator": {
            "recipe": trained.recipe,
            "latent_size": latent_size,
            "labels": labels.names,
            "label_shares": labels.shares,
            "inputs": inputs,
            "outputs": outputs,
        },
        **painter,
        "detector": {
            "kind": kind,
            "thresholds": asdict(decision.thresholds),
            "promise": {
                "false_alarm_share": decision.false_alarm_share,
                "held_out_images": decision.held_out_images,
                "held_out_groups": decision.held_out_groups,
            },
            "operating_points": scores["operating_points"],
            "inputs": {"image": image},
            "outputs": {
                "synthetic_probability": {"dtype": "float32", "shape": ["N"]},
                "typicality": {"dtype": "float32", "shape": ["N"]},
                "heatmap": {"dtype": "float32", "shape": ["N", "h", "w"]},
            },
        },
        "metrics": {
            "generator": numbers | {"floor": report["generators"]["floor"]},
            "detector": {name: value for name, value in scores.items() if name not in ("operating_points", "promise")},
            "intervals_resample": report["detectors"]["intervals_resample"],
            "control": report["control"],
            "export_difference": differences,
        },
        "privacy": {"passed": all(check["passed"] for check in checks), "checks": checks},
        "data": {
            "title": card.title,
            "source": info.source,
            "origin": info.origin,
            "licence": info.licence,
            "counts": info.counts,
            "patients": info.patients,
            "split": info.split,
            "content_hash": info.content_hash,
            "labels": info.labels,
        },
        "intended_use": card.intended_use,
        "limitations": card.limitations,
    }
