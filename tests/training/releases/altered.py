"""Small releases that are better or worse than another: the same graphs with other constants in them."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from contracts.manifest import DETECTOR, GENERATOR, REFERENCE, Release, write_release
from tests.releases import write_small_release


def write_altered_release(
    folder: Path, generator: dict[str, float] | None = None, detector: dict[str, float] | None = None, **small: object
) -> Release:
    """`write_small_release(folder, **small)` with constants replaced.

    The generator's `middle` is the brightness of its images, 110 like the real ones'; the detector's `width` below 0
    calls dark images synthetic instead of bright ones.
    """
    release = write_small_release(folder, **small)  # type: ignore[arg-type]
    for file, constants in ((GENERATOR, generator), (DETECTOR, detector)):
        graph = onnx.load(release.folder / file)
        for initializer in graph.graph.initializer:
            if constants and initializer.name in constants:
                value = np.float32(constants[initializer.name])
                initializer.CopyFrom(numpy_helper.from_array(np.asarray(value), initializer.name))
        onnx.save(graph, release.folder / file)
    document = {key: value for key, value in release.manifest.items() if key not in ("files", "version")}
    with tempfile.TemporaryDirectory() as scratch:
        sources = {name: Path(scratch) / name for name in (GENERATOR, DETECTOR, REFERENCE)}
        for name, source in sources.items():
            shutil.move(folder / name, source)
        return write_release(folder, sources, document)
