"""Torch to ONNX in the release's form: one file, any batch size, uint8 pixels; then the proof that both agree."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from contracts.errors import VerisynthError
from training.detectors.detector import Detector
from training.gans.geometry import LARGEST_OUTSIDE
from training.gans.graph import GeneratorGraph, PainterGraph, PairGraph

BATCH_SIZES = (1, 3, 8)
GENERATOR_TOLERANCE_LEVELS = 1
"""Grey levels by which a pixel may differ: a value on the border of two levels may round either way."""
DETECTOR_TOLERANCE = 1e-3
"""Largest difference of an output, relative to its largest value in the batch where that is above one (heatmaps)."""


class ExportError(VerisynthError):
    """A graph that does not do what its original does."""


def export_generator(
    generator: nn.Module, latent_size: int, conditional: bool, path: Path, draws_masks: bool = False
) -> None:
    """Write `generator.onnx`; its truncation is that of the latents it is given."""
    example = {"latent": torch.zeros(2, latent_size)}
    if conditional:
        example["label"] = torch.zeros(2, dtype=torch.int64)
    if draws_masks:
        _export(PairGraph(generator), example, ["image", "mask"], path)
    else:
        _export(GeneratorGraph(generator), example, ["image"], path)


def export_painter(painter: nn.Module, size: int, noise_size: int, path: Path) -> None:
    """Write `painter.onnx`, stage II of a generator that draws masks."""
    example = {"mask": torch.zeros(2, size, size, dtype=torch.uint8), "noise": torch.zeros(2, noise_size)}
    _export(PainterGraph(painter), example, ["image"], path)


def export_detector(detector: Detector, size: int, channels: int, path: Path) -> None:
    """Write `detector.onnx`."""
    example = {"image": torch.zeros(2, size, size, channels, dtype=torch.uint8)}
    _export(detector, example, ["synthetic_probability", "typicality", "heatmap"], path)


def check_generator(path: Path, original: Callable[..., np.ndarray], feeds: dict[str, np.ndarray]) -> float:
    """Largest difference in grey levels between the graph and its original over all batch sizes.

    `original` maps the values of `feeds` (latents float32 [N, Z], then labels int64 [N] where there are any) to uint8
    [N, H, W, C]; of a generator that draws masks, with the levels of these as one more channel.

    Raises:
        ExportError: above the tolerance.
    """
    session = _session(path)
    worst = 0.0
    for size in BATCH_SIZES:
        batch = {name: values[:size] for name, values in feeds.items()}
        found, *masks = session.run(None, batch)
        expected = original(*batch.values()).astype(int)
        worst = max(worst, float(np.abs(found.astype(int) - expected[..., : found.shape[3]]).max()))
        for mask in masks:
            beyond = expected[..., -1] - LARGEST_OUTSIDE
            sure = (beyond > GENERATOR_TOLERANCE_LEVELS) | (beyond <= -GENERATOR_TOLERANCE_LEVELS)
            wrong = int(((mask > 0) != (beyond > 0))[sure].sum())
            if wrong:
                raise ExportError(f"{path}: {wrong} pixels of its masks are not its original's")
    if worst > GENERATOR_TOLERANCE_LEVELS:
        raise ExportError(
            f"{path} differs from its original by {worst} grey levels, allowed {GENERATOR_TOLERANCE_LEVELS}"
        )
    return worst


def check_painter(path: Path, generator: Path, latent: np.ndarray, noise_size: int) -> float:
    """Largest difference in grey levels between what both graphs paint on the generator's own masks.

    `latent` float32 [N, Z] begins with the noise that the painter reads.

    Raises:
        ExportError: above the tolerance.
    """
    images, masks = _session(generator).run(["image", "mask"], {"latent": latent})
    (painted,) = _session(path).run(["image"], {"mask": masks, "noise": latent[:, :noise_size]})
    worst = float(np.abs(painted.astype(int) - images.astype(int)).max())
    if worst > GENERATOR_TOLERANCE_LEVELS:
        raise ExportError(
            f"{path} differs from {generator} by {worst} grey levels, allowed {GENERATOR_TOLERANCE_LEVELS}"
        )
    return worst


def check_detector(path: Path, originals: dict[str, Callable[[np.ndarray], np.ndarray]], images: np.ndarray) -> float:
    """Largest difference between the graph's outputs and their originals over all batch sizes.

    `originals` maps an output's name to a function of uint8 images [N, H, W, C].

    Raises:
        ExportError: above the tolerance, or where an output is not finite.
    """
    session = _session(path)
    worst = 0.0
    for name, original in originals.items():
        for size in BATCH_SIZES:
            for start in range(0, len(images) - size + 1, size):
                batch = images[start : start + size]
                (found,) = session.run([name], {"image": batch})
                expected = original(batch)
                if not np.isfinite(found).all():
                    raise ExportError(f"{path} gives values of {name} that are not finite")
                difference = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
                worst = max(worst, difference)
                if worst > DETECTOR_TOLERANCE:
                    raise ExportError(
                        f"{path}: {name} differs from its original by {worst:.2e}, allowed {DETECTOR_TOLERANCE}"
                    )
    return worst


def edge_images(size: int, channels: int) -> np.ndarray:
    """Images on which formulas break: black, white, grey, one colour, noise; uint8 [8, size, size, channels]."""
    random = np.random.default_rng(0)
    constants = [np.full((size, size, channels), level, dtype=np.uint8) for level in (0, 255, 128)]
    colour = np.zeros((size, size, channels), dtype=np.uint8)
    colour[..., 0] = 200
    noise = list(random.integers(0, 256, (4, size, size, channels), dtype=np.uint8))
    return np.stack([*constants, colour, *noise])


def _export(module: nn.Module, example: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    # The exporter warns of the absence of torchvision, which is not used, and of its own deprecations.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        warnings.filterwarnings("ignore", message="# The axis name")
        torch.onnx.export(
            module.eval().cpu(),
            tuple(example.values()),
            path,
            input_names=list(example),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in example),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    del graph.metadata_props[:]
    for node in graph.graph.node:
        # Stack traces of the exporting machine: they name its folders and change with every comment.
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
