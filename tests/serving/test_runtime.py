import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from contracts.errors import ReleaseError
from contracts.manifest import DETECTOR, GENERATOR, REFERENCE, Release, write_release
from serving import runtime
from serving.catalogue import Catalogue
from serving.models_folder import ModelsFolder
from serving.runtime import Model, ModelError, nearest
from tests.releases import detector, generator, real_images, write_small_release


def catalogue_of(folder: Path) -> Catalogue:
    """What is served when a worker starts."""
    return ModelsFolder(folder).look(Catalogue(folder), everything=True)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models") / "waves"
    write_small_release(folder)
    return Model.load(folder)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models") / "labelled"
    write_small_release(folder, channels=1, labels=("benign", "malignant"), masks=True, tile_side=32)
    return Model.load(folder)


@pytest.fixture(scope="module")
def narrow_and_wide(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """Typical from 5 grey levels of contrast on, and from 20 on; the narrow one calls most of it out of scope."""
    folder = tmp_path_factory.mktemp("models")
    write_small_release(folder / "narrow", typical_contrast=5, typicality_threshold=0.9)
    write_small_release(folder / "wide", typical_contrast=20, typicality_threshold=0.02)
    return list(catalogue_of(folder).models.values())


def rewritten(release: Release, name: str, graph: onnx.ModelProto) -> Path:
    """The same release with another graph, its hashes in order."""
    sources = {file: release.folder.with_suffix(f".{file}") for file in (GENERATOR, DETECTOR, REFERENCE)}
    for file, source in sources.items():
        shutil.copyfile(release.folder / file, source)
    onnx.save(graph, sources[name])
    document = {key: value for key, value in release.manifest.items() if key not in ("files", "version")}
    return write_release(release.folder, sources, document).folder


def test_an_image_is_the_same_in_every_batch(model: Model) -> None:
    together = model.generate(seed=5, start=0, count=7).images
    assert np.array_equal(together[:3], model.generate(seed=5, start=0, count=3).images)
    assert np.array_equal(together[4:6], model.generate(seed=5, start=4, count=2).images)
    assert not np.array_equal(together, model.generate(seed=6, start=0, count=7).images)


def test_truncation_zero_gives_one_image(model: Model) -> None:
    images = model.generate(seed=5, start=0, count=3, truncation=0).images
    assert (images == images[0]).all()


def test_labels_in_turn_or_as_asked(labelled: Model) -> None:
    samples = labelled.generate(seed=1, start=3, count=4)
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0, 1, 0]
    assert samples.masks is not None
    assert samples.masks.shape == (4, 32, 32)
    chosen = labelled.generate(seed=1, start=3, count=4, label="malignant")
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [1, 1, 1, 1]
    assert np.array_equal(chosen.images[0], samples.images[0])
    assert not np.array_equal(chosen.images[1], samples.images[1])


def test_labels_as_often_as_in_training(labelled: Model) -> None:
    together = labelled.generate(seed=1, start=0, count=600, balance="training")
    assert together.labels is not None
    assert np.mean(together.labels) == pytest.approx(1 / 3, abs=0.06)  # three standard deviations of 600 draws
    apart = labelled.generate(seed=1, start=597, count=3, balance="training")
    assert np.array_equal(together.images[597:], apart.images)
    # The label is drawn beside the noise, not out of it: label 0 is the same image as when it is asked for.
    asked = labelled.generate(seed=1, start=0, count=600, label="benign").images
    assert np.array_equal((together.images == asked).all(axis=(1, 2, 3)), together.labels == 0)


@pytest.mark.parametrize(
    ("level", "spread", "verdict"),
    [(90, 30, "real"), (180, 30, "synthetic"), (128, 30, "uncertain"), (90, 0, "out_of_scope")],
)
def test_verdicts(model: Model, level: int, spread: int, verdict: str) -> None:
    noise = np.random.default_rng(0).uniform(-spread, spread, (32, 32, 3))
    judgement = model.judge(np.clip(level + noise, 0, 255).astype(np.uint8))
    assert judgement.verdict == verdict
    assert judgement.heatmap is not None
    assert judgement.heatmap.shape == (4, 4)


def test_tiles_are_combined_by_mean_log_odds(labelled: Model) -> None:
    dark, bright = np.full((32, 32, 1), 108, np.uint8), np.full((32, 32, 1), 148, np.uint8)
    judgement = labelled.judge(np.concatenate([dark, bright], axis=1))
    assert len(judgement.tiles) == 2
    assert judgement.heatmap is None
    assert judgement.synthetic_probability == pytest.approx(0.5, abs=1e-6)


def test_an_answer_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    write_small_release(tmp_path / "erratic", broken_probability=True)
    model = Model.load(tmp_path / "erratic")
    assert model.judge(np.full((32, 32, 3), 100, np.uint8)).synthetic_probability < 0.3
    with pytest.raises(ModelError, match="no number"):
        model.judge(np.full((32, 32, 3), 220, np.uint8))


@pytest.mark.parametrize(
    ("contrast", "chosen", "verdict"),
    [
        (10, "narrow", "real"),  # 1.0 for the narrow model, 0.5 for the wide one
        (4, "wide", "real"),  # 0.8, below the narrow model's threshold, and 0.2
        (0, "narrow", "out_of_scope"),  # 0.04 and 0.01 from a few brighter columns: out of scope for both
        (30, "narrow", "real"),  # 1.0 for both: the first
    ],
)
def test_the_model_answers_whose_kind_of_image_it_is(
    narrow_and_wide: list[Model], contrast: int, chosen: str, verdict: str
) -> None:
    columns = np.full((32, 32, 3), 60, np.uint8)
    columns[:, ::2] += np.uint8(2 * contrast)
    columns[:, ::8] += np.uint8(1)
    looks = [model.look(columns) for model in narrow_and_wide]
    position = nearest(narrow_and_wide, looks)
    assert narrow_and_wide[position].name == chosen
    assert narrow_and_wide[position].conclude(looks[position]).verdict == verdict


def test_a_look_without_a_probability_counts_until_it_is_to_answer(tmp_path: Path) -> None:
    write_small_release(tmp_path / "erratic", broken_probability=True)
    model = Model.load(tmp_path / "erratic")
    look = model.look(real_images(1)[0] // 4 + np.uint8(190))
    assert look.typicality > 0.02
    with pytest.raises(ModelError, match="no number"):
        model.conclude(look)


@pytest.mark.parametrize(
    ("file", "graph", "reason"),
    [
        (GENERATOR, generator(32, 3, True, False), "label"),
        (GENERATOR, generator(64, 3, False, False), r"\(2, 64, 64, 3\)"),
        (GENERATOR, detector(32, 3), "latent"),
        (DETECTOR, generator(32, 3, False, False), "the contract says .'image'"),
        (DETECTOR, detector(32, 1), "does not run"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(
    tmp_path: Path, file: str, graph: onnx.ModelProto, reason: str
) -> None:
    folder = rewritten(write_small_release(tmp_path / "waves"), file, graph)
    with pytest.raises(ReleaseError, match=reason):
        Model.load(folder)


def test_a_missing_gpu_is_refused_where_one_is_required(tmp_path: Path, model: Model) -> None:
    if model.provider != "CPUExecutionProvider":
        pytest.skip("this machine has a GPU")
    write_small_release(tmp_path / "waves")
    with pytest.raises(ReleaseError, match="VERISYNTH_REQUIRE_GPU"):
        Model.load(tmp_path / "waves", require_gpu=True)


def test_the_catalogue_serves_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    for name in ("good", "altered", "missing", "moved"):
        write_small_release(tmp_path / name)
    (tmp_path / "altered" / REFERENCE).write_bytes(b"other")
    (tmp_path / "missing" / DETECTOR).unlink()
    (tmp_path / "moved").rename(tmp_path / "renamed")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".good.incomplete").mkdir()
    (tmp_path / "README.md").write_text("not a release")
    catalogue = catalogue_of(tmp_path)
    assert list(catalogue.models) == ["good"]
    assert catalogue.obstacle is None
    assert {name: reason.split(str(tmp_path))[1][:30] for name, reason in catalogue.refused.items()} == {
        "altered": "/altered/reference.npz was alt",
        "empty": "/empty/manifest.json is missin",
        "missing": "/missing/detector.onnx is miss",
        "renamed": "/renamed holds the release of ",
    }


def test_a_file_that_cannot_be_read_costs_one_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good", "locked"):
        write_small_release(tmp_path / name)
    locked = tmp_path / "locked" / DETECTOR
    opened = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    catalogue = catalogue_of(tmp_path)
    assert list(catalogue.models) == ["good"]
    assert f"{locked} cannot be read: [Errno 13] Permission denied" in catalogue.refused["locked"]


def test_a_models_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("no folder")
    assert "models cannot be read: [Errno 20] Not a directory" in str(catalogue_of(tmp_path / "models").obstacle)


def test_on_a_gpu_the_algorithms_are_fixed(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of ONNX Runtime where there is a GPU; the session itself opens on the CPU."""
    asked: list[Any] = []
    opened = onnxruntime.InferenceSession

    def on_cpu(path: Path, options: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        return opened(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(runtime, "GPU_DEVICES", (tmp_path,))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: asked.append("preloaded"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    Model.load(model.release.folder)
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"})
    assert asked == 2 * ["preloaded", [cuda, "CPUExecutionProvider"]]


def test_an_empty_or_absent_folder_says_how_to_get_a_model(tmp_path: Path) -> None:
    assert "dvc repro" in str(catalogue_of(tmp_path).obstacle)
    assert "dvc repro" in str(catalogue_of(tmp_path / "absent").obstacle)


def test_generated_images_can_be_judged_several_threads_at_once(model: Model) -> None:
    images = real_images(20)
    expected = [model.judge(image).synthetic_probability for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert [judgement.synthetic_probability for judgement in pool.map(model.judge, images)] == expected


def test_a_painter_paints_the_mask_it_is_given_with_the_noise_of_each_image(tmp_path: Path) -> None:
    write_small_release(tmp_path / "cells", masks=True)
    model = Model.load(tmp_path / "cells")
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 4:30] = 255
    painted = model.paint(mask, seed=3, start=0, count=5)
    assert painted.images.shape == (5, 32, 32, 3)
    inside = painted.images[:, mask > 0].astype(int)
    assert (inside - painted.images[:, mask == 0].max() > 60).all()
    np.testing.assert_array_equal(painted.masks, np.repeat(mask[None], 5, axis=0))
    assert len(np.unique(painted.images[:, 0, 0, 0])) > 1
    np.testing.assert_array_equal(model.paint(mask, seed=3, start=2, count=2).images, painted.images[2:4])


def test_a_model_without_a_painter_does_not_paint(tmp_path: Path) -> None:
    write_small_release(tmp_path / "cells")
    assert not Model.load(tmp_path / "cells").paints


def test_a_painter_that_the_manifest_does_not_describe_is_refused(tmp_path: Path) -> None:
    release = write_small_release(tmp_path / "cells", masks=True)
    document = {key: value for key, value in release.manifest.items() if key not in ("painter", "files", "version")}
    sources = {name: release.folder / name for name in release.manifest["files"]}
    with pytest.raises(ReleaseError, match=r"has painter\.onnx and does not describe it"):
        write_release(tmp_path / "other", sources, document | {"name": "other"})
