from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from contracts.imaging import ImageSpec, quantise
from contracts.latents import latents
from tests.training.detectors.test_linear_evidence import IMAGES, SETTINGS, SYNTHETIC
from tests.training.gans.small import DCGAN, DCGAN_ADA, changed
from training.detectors import detector, linear_evidence
from training.detectors.calibration import Calibration
from training.detectors.typicality import Typicality
from training.gans import recipes
from training.gans.averaging import renormalise
from training.gans.dcgan_grain import GRAIN_SIZE
from training.params import Recipe
from training.releases import onnx_export

SPEC = ImageSpec(32, 3)


def normalised(recipe: str, settings: Recipe, classes: int = 0, seed: int = 0) -> torch.nn.Module:
    module = recipes.build(recipe, SPEC, settings, seed, classes).generator
    label = (torch.arange(64) % classes,) if classes else ()
    noise = torch.randn(64, settings.latent_size, generator=torch.Generator().manual_seed(0))
    return renormalise(module, [(noise, *label)])


@pytest.fixture(scope="module")
def generator() -> torch.nn.Module:
    return normalised("dcgan", DCGAN)


@pytest.fixture(scope="module")
def generator_path(generator: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "generator.onnx"
    onnx_export.export_generator(generator, 8, conditional=False, path=path)
    return path


def original(generator: torch.nn.Module, *inputs: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return quantise(generator(*(torch.from_numpy(values) for values in inputs)).permute(0, 2, 3, 1).numpy())


def test_the_generator_graph_keeps_the_contract_and_its_original(
    generator: torch.nn.Module, generator_path: Path
) -> None:
    noise = latents(0, 0, 8, 8)
    assert (
        onnx_export.check_generator(generator_path, lambda latent: original(generator, latent), {"latent": noise}) <= 1
    )
    session = onnxruntime.InferenceSession(generator_path, providers=["CPUExecutionProvider"])
    (image,) = session.run(["image"], {"latent": noise})
    assert image.dtype == np.uint8
    assert image.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(session.run(["image"], {"latent": noise[3:4]})[0][0], image[3])


def test_a_conditional_graph_with_grain_takes_labels_in_batches_of_any_size(tmp_path: Path) -> None:
    settings, path = changed(DCGAN_ADA, latent_size=8 + GRAIN_SIZE), tmp_path / "generator.onnx"
    conditional = normalised("dcgan_grain", settings, classes=3)
    onnx_export.export_generator(conditional, settings.latent_size, conditional=True, path=path)
    feeds = {"latent": np.repeat(latents(0, 0, 1, settings.latent_size), 8, axis=0), "label": np.arange(8) % 3}
    assert onnx_export.check_generator(path, lambda *inputs: original(conditional, *inputs), feeds) <= 1
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,) = session.run(["image"], feeds)
    np.testing.assert_array_equal(image[0], image[3])
    assert not np.array_equal(image[0], image[1])


def test_a_graph_is_one_file_without_traces_of_the_machine_that_made_it(generator_path: Path) -> None:
    assert [path.name for path in generator_path.parent.iterdir()] == ["generator.onnx"]
    assert str(Path(__file__).parents[3]).encode() not in generator_path.read_bytes()
    onnx.checker.check_model(onnx.load(generator_path), full_check=True)


def test_another_generator_is_told_from_the_graph(generator_path: Path) -> None:
    other, feeds = normalised("dcgan", DCGAN, seed=1), {"latent": latents(0, 0, 8, 8)}
    with pytest.raises(onnx_export.ExportError, match="differs from its original by"):
        onnx_export.check_generator(generator_path, lambda latent: original(other, latent), feeds)


@pytest.mark.parametrize("kind", detector.KINDS)
def test_the_detector_graph_keeps_the_contract_and_its_original(kind: str, tmp_path: Path) -> None:
    rows = linear_evidence.features_of(IMAGES, linear_evidence.LinearEvidence(SPEC).features)
    scorer = linear_evidence.fit(rows, SYNTHETIC, SPEC, SETTINGS)[0] if kind == "linear_evidence" else None
    typicality = Typicality(SPEC)
    content = linear_evidence.features_of(IMAGES, typicality.content)
    typicality.take(content[::2], content[1::2])
    model = detector.Detector(scorer or detector.scorer(kind, SPEC, 4), typicality, Calibration(0.7, 0.1)).eval()
    path = tmp_path / "detector.onnx"
    onnx_export.export_detector(model, 32, 3, path)
    names = ("synthetic_probability", "typicality", "heatmap")

    def output(index: int, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images))[index].numpy()

    images = np.concatenate([IMAGES[::15], onnx_export.edge_images(32, 3)])
    originals = {name: lambda images, index=index: output(index, images) for index, name in enumerate(names)}
    assert onnx_export.check_detector(path, originals, images) <= onnx_export.DETECTOR_TOLERANCE
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probability, typical, heatmap = session.run(list(names), {"image": images[:5]})
    assert probability.shape == typical.shape == (5,)
    assert heatmap.ndim == 3
    assert {probability.dtype, typical.dtype, heatmap.dtype} == {np.dtype("float32")}
    assert min(probability.min(), typical.min()) >= 0
    assert max(probability.max(), typical.max()) <= 1

    wrong = {"synthetic_probability": lambda images: output(0, images) + 0.01}
    with pytest.raises(onnx_export.ExportError, match="synthetic_probability differs from its original by"):
        onnx_export.check_detector(path, wrong, images)
