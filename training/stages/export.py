"""Stage export@D: a release that may become champion, `data/candidates/D/`.  python -m training.stages.export D

The generator with the lowest KID, or the one that draws masks where `run.pairs` names the dataset, and the chosen
detector become ONNX graphs, are held against their originals, and are written whole with manifest, drift reference
and golden samples.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import torch

from contracts import golden, manifest
from contracts.imaging import quantise
from contracts.latents import latents
from contracts.statistics import Reference
from training import folders, params, tracking
from training.border import border
from training.data import prepared
from training.detectors import detector, linear_evidence
from training.gans import recipes
from training.gans.dual import NOISE_SIZE, DualGenerator
from training.gans.recipes import Trained
from training.releases import onnx_export
from training.releases.description import describe
from training.releases.golden import golden_samples

CHECKED_IMAGES = 16
CHECKED_SAMPLES = 8


def export(dataset: str) -> None:
    """Export and verify the release of a dataset."""
    card = params.load().dataset(dataset).card
    report = json.loads((folders.evaluation(dataset) / tracking.METRICS).read_text(encoding="utf-8"))
    real = prepared.load(folders.prepared(dataset), "test").images
    kind = detector.champion(folders.detectors(dataset))
    recipe = report["generators"]["champion"]
    with tempfile.TemporaryDirectory() as temporary:
        names = (manifest.GENERATOR, manifest.DETECTOR, manifest.REFERENCE, golden.FILE)
        sources = {name: Path(temporary) / name for name in names}
        print(f"exporting {recipe} and {kind} of {dataset}")
        trained = Trained.load(folders.gan(dataset, recipe) / recipes.GENERATOR_FILE)
        generator_difference = _generator(trained, sources[manifest.GENERATOR])
        if recipes.RECIPES[trained.recipe].draws_masks:
            sources[manifest.PAINTER] = Path(temporary) / manifest.PAINTER
            generator_difference = max(
                generator_difference, _painter(trained, sources[manifest.PAINTER], sources[manifest.GENERATOR])
            )
        detector_difference = _detector(dataset, kind, np.array(real[:CHECKED_IMAGES]), sources[manifest.DETECTOR])
        Reference.of(prepared.load(folders.prepared(dataset), "validation").images).write(sources[manifest.REFERENCE])
        golden_samples(
            sources[manifest.GENERATOR],
            sources[manifest.DETECTOR],
            trained.settings.latent_size,
            len(trained.labels.names),
            (sources[manifest.PAINTER], NOISE_SIZE) if manifest.PAINTER in sources else None,
        ).write(sources[golden.FILE])
        differences = {"generator_grey_levels": generator_difference, "detector": detector_difference}
        info = prepared.read_dataset(folders.prepared(dataset))
        decision = detector.load_decision(detector.path(folders.detectors(dataset), kind))
        document = describe(card, info, trained, kind, decision, report, differences)
        written = manifest.write_release(folders.candidate(dataset), sources, document)
    print(
        f"{written.folder}: version {written.version}; graphs differ from their originals by at most "
        f"{generator_difference:.0f} grey levels and {detector_difference:.1e}"
    )


def _generator(trained: Trained, path: Path) -> float:
    size, classes = trained.settings.latent_size, len(trained.labels.names)
    onnx_export.export_generator(
        trained.generator, size, classes > 0, path, recipes.RECIPES[trained.recipe].draws_masks
    )

    @torch.inference_mode()
    def original(*inputs: np.ndarray) -> np.ndarray:
        images = trained.generator(*(torch.from_numpy(values) for values in inputs))
        return quantise(images.permute(0, 2, 3, 1).numpy())

    feeds = {"latent": latents(0, 0, CHECKED_SAMPLES, size)}
    if classes:
        feeds["label"] = np.arange(CHECKED_SAMPLES) % classes
    return onnx_export.check_generator(path, original, feeds)


def _painter(trained: Trained, path: Path, generator: Path) -> float:
    assert isinstance(trained.generator, DualGenerator)
    onnx_export.export_painter(trained.generator.painter, trained.image.size, NOISE_SIZE, path)
    latent = latents(0, 0, CHECKED_SAMPLES, trained.settings.latent_size)
    return onnx_export.check_painter(path, generator, latent, NOISE_SIZE)


def _detector(dataset: str, kind: str, real: np.ndarray, path: Path) -> float:
    model = detector.load(detector.path(folders.detectors(dataset), kind))
    size, channels = real.shape[1], real.shape[3]
    onnx_export.export_detector(model, size, channels, path)

    def output(index: int) -> Callable[[np.ndarray], np.ndarray]:
        def of(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return np.asarray(model(torch.from_numpy(images))[index].numpy())

        return of

    originals = {name: output(index) for index, name in enumerate(("synthetic_probability", "typicality", "heatmap"))}
    if kind == "linear_evidence":
        pipeline = joblib.load(folders.detectors(dataset) / detector.ORIGINAL)
        features = model.scorer.get_submodule("features")

        def scikit_learn(images: np.ndarray) -> np.ndarray:
            rows = linear_evidence.features_of(images, features).astype(np.float64)
            logits = pipeline.decision_function(rows) * float(model.slope) + float(model.offset)
            return np.asarray(1 / (1 + np.exp(-logits)))

        originals["synthetic_probability"] = scikit_learn
    images = np.concatenate([real, onnx_export.edge_images(size, channels)])
    return onnx_export.check_detector(path, originals, images)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("export", arguments.dataset):
        export(arguments.dataset)
