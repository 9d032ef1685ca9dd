"""A release as something that generates and judges: ONNX Runtime sessions behind two methods, no HTTP.

model = Model.load(Path("models/ihc"))
samples = model.generate(seed=7, start=0, count=16)
judgement = model.judge(decode(data).pixels)

Where nobody says whose kind of image it is, all models `look`, and `nearest` says which of them concludes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime

from contracts import golden, latents
from contracts.balances import EQUAL, TRAINING
from contracts.errors import ReleaseError
from contracts.golden import Golden
from contracts.imaging import fit
from contracts.manifest import DETECTOR, GENERATOR, PAINTER, REFERENCE, Release, read_release
from contracts.statistics import Reference

BATCH_SIZE = 64
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# ONNX Runtime would time the convolution algorithms and take the fastest, another one each time, and round inputs to
# 10 bits: the same request is to give the same pixels.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
TENSOR_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}


@dataclass(frozen=True)
class Samples:
    """`images` uint8 [N, H, W, C]; `masks` uint8 [N, H, W] and `labels` int64 [N] where the model has them."""

    images: np.ndarray
    masks: np.ndarray | None = None
    labels: np.ndarray | None = None
    start: int = 0
    """Index of the first one in the sequence of its seed."""

    @staticmethod
    def joined(parts: list["Samples"]) -> "Samples":
        """Consecutive parts as one."""
        if len(parts) == 1:
            return parts[0]
        masks = [part.masks for part in parts if part.masks is not None]
        labels = [part.labels for part in parts if part.labels is not None]
        return Samples(
            images=np.concatenate([part.images for part in parts]),
            masks=np.concatenate(masks) if masks else None,
            labels=np.concatenate(labels) if labels else None,
            start=parts[0].start,
        )


@dataclass(frozen=True)
class Judgement:
    """A detector's answer for one image.

    `tiles` uint8 [K, H, W, C] is what the detector saw; `heatmap` float32 [h, w] shows where its evidence
    lies, and is there only when the image was judged as one tile.
    """

    verdict: str
    synthetic_probability: float
    typicality: float
    tiles: np.ndarray
    heatmap: np.ndarray | None


@dataclass(frozen=True)
class Look:
    """A detector's raw answer for one image: `tiles` uint8 [K, H, W, C], and of each the tensors of the graph.

    `typicality` is the mean over the tiles, a finite number; the others are not checked before `Model.conclude`.
    """

    typicality: float
    tiles: np.ndarray
    probabilities: np.ndarray
    heatmaps: np.ndarray


class ModelError(Exception):
    """A model that broke while running, or whose answer is no number."""


class Model:
    """A release that is loaded, checked and warm. Its methods may be called from several threads at once."""

    def __init__(
        self,
        release: Release,
        generator: onnxruntime.InferenceSession,
        detector: onnxruntime.InferenceSession,
        reference: Reference,
        painter: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self.release = release
        self.loaded_at = datetime.now(UTC)
        self.reference = reference
        self._generator = generator
        self._detector = detector
        self._painter = painter
        self._generator_outputs = [output.name for output in generator.get_outputs()]

    @classmethod
    def load(cls, folder: Path, require_gpu: bool = False) -> "Model":
        """Verify the release in `folder` and open it.

        Raises:
            ReleaseError: an altered or missing file, a folder of another name, and what `open` raises.
        """
        return cls.open(verified(folder), require_gpu)

    @classmethod
    def open(cls, release: Release, require_gpu: bool = False) -> "Model":
        """Open the sessions of a verified release, run each once, and try its golden samples where it has any.

        Raises:
            ReleaseError: a graph that breaks the contract, does not run, draws nothing or not what it drew when it was
                made, or, with `require_gpu`, no GPU.
        """
        folder = release.folder
        try:
            reference = Reference.read(folder / REFERENCE)
        except Exception as error:  # numpy and zipfile raise many kinds on malformed files
            raise ReleaseError(f"{folder / REFERENCE} cannot be read: {error}") from error
        model = cls(
            release,
            _session(folder / GENERATOR, require_gpu),
            _session(folder / DETECTOR, require_gpu),
            reference,
            None if release.painter_noise_size is None else _session(folder / PAINTER, require_gpu),
        )
        model._check_graphs()
        try:
            model._warm_up()
            model._check_golden()
        except ModelError as error:
            raise ReleaseError(f"{folder} does not run: {error}") from error
        return model

    @property
    def name(self) -> str:
        return self.release.name

    @property
    def version(self) -> str:
        return self.release.version

    @property
    def provider(self) -> str:
        """The ONNX Runtime execution provider that runs the detector."""
        return str(self._detector.get_providers()[0])

    def generate(
        self,
        seed: int,
        start: int,
        count: int,
        truncation: float = 1.0,
        label: str | None = None,
        balance: str = EQUAL,
    ) -> Samples:
        """The images `start` to `start + count - 1` of `seed`, in one run of the graph.

        `truncation` in [0, 1] shrinks the latents towards the mean image. A conditional model draws
        `label`; without one it takes its labels by `balance`, one of `contracts.balances`. Either way image `i` of
        `seed` has the same label in every request.

        Raises:
            ModelError: when the graph cannot be run.
        """
        noise = latents.latents(seed, start, count, self.release.latent_size) * np.float32(truncation)
        feeds = {"latent": noise}
        labels = self._labels(seed, start, count, label, balance)
        if labels is not None:
            feeds["label"] = labels
        outputs = self._run(self._generator, self._generator_outputs, feeds)
        return Samples(outputs["image"], outputs.get("mask"), labels, start)

    @property
    def paints(self) -> bool:
        """Whether photographs can be painted on masks of the user's own."""
        return self._painter is not None

    def paint(self, mask: np.ndarray, seed: int, start: int, count: int, truncation: float = 1.0) -> Samples:
        """Photographs `start` to `start + count - 1` of `seed` on one mask, uint8 [H, W] of 0 and 255, each its own.

        Image `i` has the noise of image `i` of `generate`: on that one's mask it is that image again.

        Raises:
            ModelError: when the graph cannot be run.
        """
        assert self._painter is not None, f"{self.name} does not paint"
        noise = latents.latents(seed, start, count, self.release.latent_size)[:, : self.release.painter_noise_size]
        masks = np.repeat(mask[None], count, axis=0)
        feeds = {"mask": masks, "noise": noise * np.float32(truncation)}
        return Samples(self._run(self._painter, ["image"], feeds)["image"], masks, start=start)

    def judge(self, pixels: np.ndarray) -> Judgement:
        """Judge one image, uint8 [H, W, 1 or 3] of any size.

        Tiles are combined by the mean of their log-odds and the mean of their typicality.

        Raises:
            ModelError: when the graph cannot be run or answers with no number.
        """
        return self.conclude(self.look(pixels))

    def look(self, pixels: np.ndarray) -> Look:
        """Run the detector once on an image, uint8 [H, W, 1 or 3] of any size.

        All outputs are fetched: ONNX Runtime computes the whole graph for any of them.

        Raises:
            ModelError: when the graph cannot be run or its typicality is no number.
        """
        tiles = fit(pixels, self.release.image)
        outputs = self._run(self._detector, ["synthetic_probability", "typicality", "heatmap"], {"image": tiles})
        typicality = float(outputs["typicality"].mean(dtype=np.float64))
        self._check_numbers(np.array(typicality))
        return Look(typicality, tiles, outputs["synthetic_probability"], outputs["heatmap"])

    def conclude(self, look: Look) -> Judgement:
        """The judgement that follows from this model's look.

        Raises:
            ModelError: when the look holds what is no number.
        """
        probability = _combined_probability(look.probabilities)
        self._check_numbers(np.array(probability), look.heatmaps)
        return Judgement(
            verdict=self.release.thresholds.verdict(probability, look.typicality),
            synthetic_probability=probability,
            typicality=look.typicality,
            tiles=look.tiles,
            heatmap=look.heatmaps[0] if len(look.tiles) == 1 else None,
        )

    def _check_numbers(self, *answers: np.ndarray) -> None:
        if not all(np.isfinite(answer).all() for answer in answers):
            raise ModelError(f"the detector of {self.name!r} answered with no number")

    def _labels(self, seed: int, start: int, count: int, label: str | None, balance: str) -> np.ndarray | None:
        names = self.release.labels
        if not names:
            return None
        if label is not None:
            return np.full(count, names.index(label), dtype=np.int64)
        if balance == TRAINING:
            return latents.labels(seed, start, count, self.release.label_shares)
        return np.arange(start, start + count, dtype=np.int64) % len(names)

    def _run(
        self, session: onnxruntime.InferenceSession, outputs: list[str], feeds: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        try:
            return dict(zip(outputs, session.run(outputs, feeds), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(f"a graph of {self.name!r} failed: {error}") from error

    def _check_graphs(self) -> None:
        generator_inputs = {"latent": "float32"} | ({"label": "int64"} if self.release.labels else {})
        _check_tensors(self.release.folder / GENERATOR, self._generator.get_inputs(), generator_inputs, {})
        _check_tensors(
            self.release.folder / GENERATOR, self._generator.get_outputs(), {"image": "uint8"}, {"mask": "uint8"}
        )
        if self._painter is not None:
            painter_inputs = {"mask": "uint8", "noise": "float32"}
            _check_tensors(self.release.folder / PAINTER, self._painter.get_inputs(), painter_inputs, {})
            _check_tensors(self.release.folder / PAINTER, self._painter.get_outputs(), {"image": "uint8"}, {})
        _check_tensors(self.release.folder / DETECTOR, self._detector.get_inputs(), {"image": "uint8"}, {})
        outputs = {"synthetic_probability": "float32", "typicality": "float32", "heatmap": "float32"}
        _check_tensors(self.release.folder / DETECTOR, self._detector.get_outputs(), outputs, {})

    def _warm_up(self) -> None:
        spec = self.release.image
        shape = (2, spec.size, spec.size, spec.channels)
        samples = self.generate(seed=0, start=0, count=2)
        if samples.images.shape != shape:
            raise ReleaseError(
                f"{self.release.folder / GENERATOR} draws {samples.images.shape}; the manifest says {shape}"
            )
        # Pixels are whole numbers, so weights that are none show as images of one level.
        if samples.images.min() == samples.images.max():
            raise ReleaseError(
                f"{self.release.folder / GENERATOR} draws nothing but the level {samples.images.min()}; "
                "its weights may be no numbers"
            )
        self.judge(samples.images[0])
        if self._painter is not None:
            self.paint(np.zeros((spec.size, spec.size), np.uint8), seed=0, start=0, count=2)

    def _check_golden(self) -> None:
        """Raises ReleaseError where the graphs do not do what they did when the release was made."""
        if golden.FILE not in self.release.manifest["files"]:
            return
        folder = self.release.folder
        expected = Golden.read(folder / golden.FILE)
        expected.check_images(self.generate(seed=0, start=0, count=golden.COUNT).images, folder / GENERATOR)
        outputs = ["synthetic_probability", "typicality"]
        scores = self._run(self._detector, outputs, {"image": golden.probes(expected.images)})
        expected.check_scores(scores["synthetic_probability"], scores["typicality"], folder / DETECTOR)
        if self._painter is not None:
            painted = self.paint(golden.probe_mask(self.release.image.size), seed=0, start=0, count=golden.COUNT)
            expected.check_painted(painted.images, folder / PAINTER)


def verified(folder: Path) -> Release:
    """The release in `folder`, whole and unaltered.

    Raises:
        ReleaseError: naming the file that is missing or altered, or a folder that does not bear the release's name.
    """
    release = read_release(folder)
    if release.name != folder.name:
        raise ReleaseError(f"{folder} holds the release of {release.name!r}; the folder must bear its name")
    return release


def nearest(models: Sequence[Model], looks: Sequence[Look]) -> int:
    """Position of the model whose kind of image it is, after each has looked at the image.

    The highest typicality among those at or above the model's own threshold, so that none that calls the image out of
    scope is preferred to one that does not; else the highest of all. The first of equal ones.
    """

    def rank(position: int) -> tuple[bool, float]:
        typicality = looks[position].typicality
        return typicality >= models[position].release.thresholds.typicality, typicality

    return max(range(len(models)), key=rank)


def _session(path: Path, require_gpu: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # A run stays on its caller's thread: batches side by side use the cores better than one batch torn apart.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=_providers())
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ReleaseError(f"{path} cannot be loaded: {error}") from error
    if require_gpu and CUDA not in session.get_providers():
        raise ReleaseError(
            f"{path} would run on the CPU, and VERISYNTH_REQUIRE_GPU is true; "
            "start the service where ONNX Runtime finds a GPU, CUDA and cuDNN, or set it to false"
        )
    return session


def _providers() -> list[str | tuple[str, dict[str, str]]]:
    # ONNX Runtime lists CUDA whether or not there is a GPU, and complains loudly when it is asked for in vain.
    if CUDA not in onnxruntime.get_available_providers() or not any(device.exists() for device in GPU_DEVICES):
        return [CPU]
    if hasattr(onnxruntime, "preload_dlls"):
        # CUDA and cuDNN that pip installed lie where the system does not look for libraries.
        onnxruntime.preload_dlls()
    return [(CUDA, CUDA_OPTIONS), CPU]


def _check_tensors(
    path: Path, tensors: list[onnxruntime.NodeArg], required: dict[str, str], optional: dict[str, str]
) -> None:
    found = {tensor.name: tensor.type for tensor in tensors}
    allowed = {name: TENSOR_TYPES[dtype] for name, dtype in (required | optional).items()}
    if not (required.keys() <= found.keys() and found.items() <= allowed.items()):
        raise ReleaseError(f"{path} has tensors {found}; the contract says {allowed}")


def _combined_probability(probabilities: np.ndarray) -> float:
    """The probability whose log-odds are the mean of the log-odds of float32 [K]; NaN stays NaN."""
    if len(probabilities) == 1:
        return float(probabilities[0])
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    odds = np.log(clipped / (1 - clipped)).mean()
    return float(1 / (1 + np.exp(-odds)))
