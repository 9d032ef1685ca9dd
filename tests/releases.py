"""Small real releases for tests: ONNX graphs whose outputs follow from their inputs, made without torch.

The generator paints smooth waves whose phases are the latents; the detector calls bright images synthetic
and images without contrast untypical.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contracts import ledger
from contracts.golden import FILE as GOLDEN
from contracts.ledger import Ledger
from contracts.manifest import DETECTOR, GENERATOR, PAINTER, REFERENCE, SCHEMA, Release, write_release
from contracts.statistics import Reference
from training.releases.golden import golden_samples

LATENT_SIZE = 8
PAINTER_NOISE_SIZE = 4
PRIVACY_CHECKS = ("exact_copies", "near_duplicates", "membership_inference", "authenticity")


def write_small_release(
    folder: Path,
    size: int = 32,
    channels: int = 3,
    labels: tuple[str, ...] = (),
    masks: bool = False,
    tile_side: int | None = None,
    broken_probability: bool = False,
    failed_checks: tuple[str, ...] = (),
    typical_contrast: float = 20,
    typicality_threshold: float = 0.02,
    content_hash: str = "0" * 64,
    golden: bool = False,
    middle: float = 110,
) -> Release:
    """A whole, valid release in `folder`, its name the folder's.

    `broken_probability` makes a detector that answers NaN for images brighter than 200 on average; `failed_checks`
    are those of `PRIVACY_CHECKS` that the manifest says have failed. Earlier labels have greater shares. Typicality is
    the mean deviation in grey levels over `typical_contrast`, at most 1. `content_hash` is that of the images it would
    have been trained on. `golden` adds golden samples; another
    `middle`, the brightness of what is drawn, is another version.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sources = {name: Path(scratch) / name for name in (GENERATOR, DETECTOR, REFERENCE)}
        onnx.save(generator(size, channels, bool(labels), masks, middle), sources[GENERATOR])
        onnx.save(detector(size, channels, broken_probability, typical_contrast), sources[DETECTOR])
        Reference.of(real_images(40, size, channels)).write(sources[REFERENCE])
        if masks:
            sources[PAINTER] = Path(scratch) / PAINTER
            onnx.save(painter(size, channels), sources[PAINTER])
        if golden:
            sources[GOLDEN] = Path(scratch) / GOLDEN
            painting = (sources[PAINTER], PAINTER_NOISE_SIZE) if masks else None
            samples = golden_samples(sources[GENERATOR], sources[DETECTOR], LATENT_SIZE, len(labels), painting)
            samples.write(sources[GOLDEN])
        document = manifest(folder.name, size, channels, labels, masks, tile_side, failed_checks)
        document["detector"]["thresholds"]["typicality"] = typicality_threshold
        document["data"]["content_hash"] = content_hash
        return write_release(folder, sources, document)


def promote(models: Path, release: Release) -> Ledger:
    """Make a release of anywhere the champion in `models`, as the gate does when it passed."""
    ledger.keep(models, release)
    after = ledger.load(models, release.name).judged(release.version, passed=True)
    ledger.save(models, release.name, after)
    ledger.settle(models, release.name, after)
    return after


def with_graph(release: Release, name: str, graph: onnx.ModelProto, folder: Path) -> Release:
    """The same release with another graph and all its hashes in order, in `folder`; what else it holds is as it was."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = {file: release.folder / file for file in release.manifest["files"]} | {name: Path(scratch) / name}
        onnx.save(graph, sources[name])
        document = {key: value for key, value in release.manifest.items() if key not in ("files", "version")}
        return write_release(folder, sources, document)


def with_constant(graph: onnx.ModelProto, name: str, value: float) -> onnx.ModelProto:
    """A graph, one of whose constants is `value` throughout."""
    for initializer in graph.graph.initializer:
        if initializer.name == name:
            filled = np.full_like(numpy_helper.to_array(initializer), value)
            initializer.CopyFrom(numpy_helper.from_array(filled, name))
    return graph


def real_images(count: int, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Mid-grey noise, uint8 [count, size, size, channels]."""
    noise = np.random.default_rng(seed).normal(110, 30, (count, size, size, channels))
    return np.clip(noise, 0, 255).astype(np.uint8)


def manifest(
    name: str,
    size: int,
    channels: int,
    labels: tuple[str, ...] = (),
    masks: bool = False,
    tile_side: int | None = None,
    failed_checks: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The manifest without what `write_release` derives."""
    image = {"dtype": "uint8", "shape": ["N", size, size, channels]}
    latent = {"latent": {"dtype": "float32", "shape": ["N", LATENT_SIZE]}}
    weights = range(len(labels), 0, -1)
    return {
        "schema": SCHEMA,
        "name": name,
        "image": {"size": size, "channels": channels, "tile_side": tile_side},
        "generator": {
            "recipe": "waves",
            "latent_size": LATENT_SIZE,
            "labels": list(labels),
            "label_shares": [weight / sum(weights) for weight in weights],
            "inputs": latent | ({"label": {"dtype": "int64", "shape": ["N"]}} if labels else {}),
            "outputs": {"image": image} | ({"mask": {"dtype": "uint8", "shape": ["N", size, size]}} if masks else {}),
        },
        **({"painter": _painter_manifest(size, image)} if masks else {}),
        "detector": {
            "kind": "brightness",
            "thresholds": {"real": 0.3, "synthetic": 0.7, "typicality": 0.02},
            "operating_points": [],
            "inputs": {"image": image},
            "outputs": {
                "synthetic_probability": {"dtype": "float32", "shape": ["N"]},
                "typicality": {"dtype": "float32", "shape": ["N"]},
                "heatmap": {"dtype": "float32", "shape": ["N", 4, 4]},
            },
        },
        "privacy": {
            "passed": not failed_checks,
            "checks": [
                {"name": name, "passed": name not in failed_checks, "detail": f"Stated, not measured: {name}."}
                for name in PRIVACY_CHECKS
            ],
        },
        "metrics": {},
        "data": {
            "source": "random numbers",
            "licence": "none needed",
            "counts": {"train": 40},
            "split": "none",
            "content_hash": "0" * 64,
        },
        "intended_use": "Testing the service.",
        "limitations": ["Shows nothing real."],
    }


def _painter_manifest(size: int, image: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        "mask": {"dtype": "uint8", "shape": ["N", size, size]},
        "noise": {"dtype": "float32", "shape": ["N", PAINTER_NOISE_SIZE]},
    }
    return {"noise_size": PAINTER_NOISE_SIZE, "inputs": inputs, "outputs": {"image": image}}


def painter(size: int, channels: int) -> onnx.ModelProto:
    """60 outside and 180 inside a mask, plus ten times the first number of the noise, as uint8."""
    constants = {
        "repeats": np.array([1, 1, 1, channels], dtype=np.int64),
        "last": np.array([-1], dtype=np.int64),
        "first": np.array([0], dtype=np.int64),
        "second": np.array([1], dtype=np.int64),
        "columns": np.array([1], dtype=np.int64),
        "contrast": np.float32(120 / 255),
        "ground": np.float32(60),
        "step": np.float32(10),
    }
    nodes = [
        helper.make_node("Cast", ["mask"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["levels", "contrast"], ["raised"]),
        helper.make_node("Add", ["raised", "ground"], ["grounded"]),
        helper.make_node("Unsqueeze", ["grounded", "last"], ["plane"]),
        helper.make_node("Slice", ["noise", "first", "second", "columns"], ["number"]),
        helper.make_node("Mul", ["number", "step"], ["shift"]),
        helper.make_node("Unsqueeze", ["shift", "second"], ["shifted"]),
        helper.make_node("Unsqueeze", ["shifted", "second"], ["tone"]),
        helper.make_node("Add", ["plane", "tone"], ["toned"]),
        helper.make_node("Tile", ["toned", "repeats"], ["channels"]),
        helper.make_node("Round", ["channels"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["image"], to=TensorProto.UINT8),
    ]
    inputs = [
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N", size, size]),
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["N", PAINTER_NOISE_SIZE]),
    ]
    outputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, channels])]
    return _model(nodes, inputs, outputs, constants)


def generator(size: int, channels: int, conditional: bool, masks: bool, middle: float = 110) -> onnx.ModelProto:
    """sin(latent x waves), plus a brightness per label, as uint8."""
    waves = np.random.default_rng(1).normal(0, 0.5, (LATENT_SIZE, size * size * channels)).astype(np.float32)
    constants = {
        "waves": waves,
        "shape": np.array([-1, size, size, channels], dtype=np.int64),
        "scale": np.float32(60),
        "middle": np.float32(middle),
        "first": np.array([0, 0, 0, 0], dtype=np.int64),
        "last": np.array([2**31, size, size, 1], dtype=np.int64),
        "channel": np.array([3], dtype=np.int64),
        "threshold": np.float32(110),
        "white": np.float32(255),
        "column": np.array([-1, 1, 1, 1], dtype=np.int64),
        "step": np.float32(20),
    }
    nodes = [
        helper.make_node("MatMul", ["latent", "waves"], ["phase"]),
        helper.make_node("Sin", ["phase"], ["wave"]),
        helper.make_node("Mul", ["wave", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["grey"]),
    ]
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", LATENT_SIZE])]
    outputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, channels])]
    levels = "grey"
    if conditional:
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
        nodes += [
            helper.make_node("Cast", ["label"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["number", "step"], ["brighter"]),
            helper.make_node("Reshape", ["brighter", "column"], ["offset"]),
            helper.make_node("Add", ["grey", "offset"], ["labelled"]),
        ]
        levels = "labelled"
    nodes.append(helper.make_node("Cast", [levels], ["image"], to=TensorProto.UINT8))
    if masks:
        outputs.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N", size, size]))
        nodes += [
            helper.make_node("Slice", [levels, "first", "last"], ["red"]),
            helper.make_node("Squeeze", ["red", "channel"], ["plane"]),
            helper.make_node("Greater", ["plane", "threshold"], ["inside"]),
            helper.make_node("Cast", ["inside"], ["one"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["one", "white"], ["white_mask"]),
            helper.make_node("Cast", ["white_mask"], ["mask"], to=TensorProto.UINT8),
        ]
    return _model(nodes, inputs, outputs, constants)


def detector(
    size: int, channels: int, broken_probability: bool = False, typical_contrast: float = 20
) -> onnx.ModelProto:
    """sigmoid((mean - 128) / 20); typicality from the contrast; heatmap: mean brightness of a 4 x 4 grid."""
    constants = {
        "middle": np.float32(128),
        "width": np.float32(20),
        "nothing": np.float32(0),
        "unit": np.float32(1),
        "much": np.float32(typical_contrast),
        "limit": np.float32(200),
        "axes": np.array([1, 2, 3], dtype=np.int64),
        "channel": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "width"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("ReduceMean", ["levels", "axes"], ["kept_mean"], keepdims=1),
        helper.make_node("Sub", ["levels", "kept_mean"], ["deviation"]),
        helper.make_node("Abs", ["deviation"], ["distance"]),
        helper.make_node("ReduceMean", ["distance", "axes"], ["contrast"], keepdims=0),
        helper.make_node("Div", ["contrast", "much"], ["relative"]),
        helper.make_node("Min", ["relative", "unit"], ["typicality"]),
        helper.make_node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[size // 4] * 2, strides=[size // 4] * 2),
        helper.make_node("ReduceMean", ["pooled", "channel"], ["heatmap"], keepdims=0),
    ]
    if broken_probability:
        nodes += [
            helper.make_node("Greater", ["mean", "limit"], ["bright"]),
            helper.make_node("Cast", ["bright"], ["flag"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["unit", "flag"], ["divisor"]),
            helper.make_node("Div", ["nothing", "divisor"], ["zero_or_nan"]),
            helper.make_node("Add", ["probability", "zero_or_nan"], ["synthetic_probability"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["probability"], ["synthetic_probability"]))
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, channels])]
    outputs = [
        helper.make_tensor_value_info("synthetic_probability", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("typicality", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["N", 4, 4]),
    ]
    return _model(nodes, inputs, outputs, constants)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
