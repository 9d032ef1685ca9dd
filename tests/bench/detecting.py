"""One call of a detector's graph, and the size of its file."""

import functools
import statistics

import numpy as np
import onnxruntime

from contracts.manifest import DETECTOR, read_release
from tests.bench.results import MODELS, ROUNDS, Result, at_most, seconds


def detecting() -> list[Result]:
    """A call of every released detector on one image, on one core, and the size of its file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    results = []
    for folder in sorted(path.parent for path in MODELS.glob("*/manifest.json")):
        release = read_release(folder)
        session = onnxruntime.InferenceSession(folder / DETECTOR, options, providers=["CPUExecutionProvider"])
        shape = (1, release.image.size, release.image.size, release.image.channels)
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        judge = functools.partial(session.run, None, {"image": image})
        judge()
        took = statistics.median(seconds(judge) for _ in range(10 * ROUNDS))
        what = f"detector of {release.name} ({release.manifest['detector']['kind']}, {release.image.size} px)"
        results.append(at_most(f"{what}, milliseconds a call", 1e3 * took, 10))
        results.append(at_most(f"{what}, MB", (folder / DETECTOR).stat().st_size / 1e6, 10))
    return results
