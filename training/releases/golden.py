"""The golden samples of a release: its graphs, run once as the service will run them."""

from pathlib import Path

import numpy as np
import onnxruntime

from contracts.golden import COUNT, Golden, probe_mask, probes
from contracts.latents import latents


def golden_samples(
    generator: Path, detector: Path, latent_size: int, classes: int, painter: tuple[Path, int] | None = None
) -> Golden:
    """What the graphs draw and judge on this machine.

    `classes` is 0 where the generator has no labels; `painter` is a graph and how many numbers of noise it reads.
    """
    latent = latents(0, 0, COUNT, latent_size)
    feeds = {"latent": latent} | ({"label": np.arange(COUNT, dtype=np.int64) % classes} if classes else {})
    (images,) = _session(generator).run(["image"], feeds)
    outputs = ["synthetic_probability", "typicality"]
    probabilities, typicalities = _session(detector).run(outputs, {"image": probes(images)})
    if painter is None:
        return Golden(images, probabilities, typicalities)
    path, noise_size = painter
    masks = np.repeat(probe_mask(images.shape[1])[None], COUNT, axis=0)
    (painted,) = _session(path).run(["image"], {"mask": masks, "noise": latent[:, :noise_size]})
    return Golden(images, probabilities, typicalities, painted)


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
