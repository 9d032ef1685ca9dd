"""Stage train_detector@D: tell real from generated images.  python -m training.stages.train_detector D

Trains both kinds of detector on the train split and the samples of all recipes, chooses, calibrates and sets
thresholds on the validation split. Leaves one `.pt` per kind, the scikit-learn original, `metrics.json`.
"""

import argparse
import json
import shutil
from dataclasses import asdict

import joblib
import numpy as np
import torch

from training import folders, params, tracking
from training.border import border
from training.data import prepared
from training.detectors import calibration, corruptions, detector, examples, linear_evidence, residual_network
from training.detectors.typicality import Typicality
from training.evaluation.detection import area_under_curve


def train_detector(dataset: str) -> None:
    """Train, choose and calibrate the detectors of a dataset."""
    configuration = params.load()
    settings, recipes = configuration.train_detector, configuration.run.recipes
    spec = configuration.dataset(dataset).prepare.image
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record(
        "train_detector", dataset, dataset, asdict(settings) | {"recipes": recipes}, tracking.lineage(info)
    )
    out = folders.detectors(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tracking.run(record) as run:
        # Images: both classes clean and corrupted alike
        images, synthetic = examples.labelled(dataset, "train", recipes)
        rows = examples.balanced(synthetic, settings.maximum_training_images, settings.seed)
        images, synthetic = images[rows], synthetic[rows]
        copies = [
            corruptions.corrupt_randomly(images, settings.seed + copy) for copy in range(settings.corrupted_copies)
        ]
        images, synthetic = np.concatenate([images, *copies]), np.tile(synthetic, 1 + settings.corrupted_copies)
        held_out, held_out_synthetic = examples.labelled(dataset, "validation", recipes)
        corrupted = corruptions.corrupt_randomly(held_out, settings.seed + settings.corrupted_copies)

        # Scorers
        linear, original = linear_evidence.fit(images, synthetic, spec, settings)
        network = residual_network.fit(images, synthetic, spec, settings, dataset)
        joblib.dump(original, out / detector.ORIGINAL)

        # Typicality knows real images only
        typicality = Typicality(spec)
        real = prepared.load(folders.prepared(dataset), "train").images
        typicality.take(
            linear_evidence.features_of(real, typicality.content),
            linear_evidence.features_of(held_out[~held_out_synthetic], typicality.content),
        )

        # Calibration, thresholds, choice
        aucs: dict[str, float] = {}
        for kind, scorer in (("linear_evidence", linear), ("residual_network", network)):
            clean_logits, corrupted_logits = _logits(scorer, held_out), _logits(scorer, corrupted)
            aucs[kind] = (
                area_under_curve(held_out_synthetic, clean_logits)
                + area_under_curve(held_out_synthetic, corrupted_logits)
            ) / 2
            scale = calibration.platt(clean_logits, held_out_synthetic)
            whole = detector.Detector(scorer, typicality, scale).eval()
            detector.save(out / f"{kind}.pt", whole, kind, spec, settings.width)
            probabilities, typical = detector.judge(whole, held_out)
            limits = calibration.thresholds(probabilities, held_out_synthetic, typical, settings.error_share)
            detector.save_thresholds(out, kind, limits)
        champion = detector.choose(aucs)
        (out / detector.SELECTION).write_text(json.dumps({"champion": champion}) + "\n", encoding="utf-8")
        (out / tracking.METRICS).write_text(json.dumps({"validation_auc": aucs}, indent=2) + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)
    print(f"validation AUC of {dataset}, clean and corrupted: {aucs}; champion: {champion}")


def _logits(scorer: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate(
            [
                scorer(linear_evidence.as_input(images[start : start + 128]))[0].numpy()
                for start in range(0, len(images), 128)
            ]
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("train_detector", arguments.dataset):
        train_detector(arguments.dataset)
