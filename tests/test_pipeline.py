"""The whole way at its smallest: `dvc repro` in a fresh clone, then the service on what it made, over HTTP."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from skimage import data

from contracts.imaging import encode_png
from contracts.manifest import read_release
from tests.services import ROOT, serve

SMALL = {
    "recipes": {"dcgan_grain": {"width": 4, "batch_size": 16, "look_every_images": 400, "log_every_images": 80}},
    "sample": {"train": 48, "validation": 40, "test": 40, "variants": 24},
    "train_detector": {"corrupted_copies": 1, "epochs": 2, "width": 4, "batch_size": 16, "forger_images": 128},
    "evaluate": {"bootstrap_rounds": 20, "jackknife_blocks": 4, "encoder_images": 256, "privacy_samples": 64},
    "utility": {"seeds": 2, "images": 64, "width": 4, "batch_size": 16},
    "gate": {"maximum_near_duplicates": 64, "maximum_membership_auc": 1.0},
    "datasets": {
        "ihc": {
            "prepare": {"size": 32, "tiles": {"side": 32, "stride": 24}},
            "train_gan": {"images": 800, "width": 4, "batch_size": 16},
        },
        "blood": {
            "prepare": {"size": 32},
            "train_gan": {"images": 800, "width": 4, "batch_size": 16},
        },
    },
    "run": {"datasets": ["ihc"]},
}


@dataclass(frozen=True)
class Clone:
    """A clone of the repository as it stands, uncommitted work included, with small parameters."""

    folder: Path

    def dvc(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            ["dvc", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def change(self, changes: dict) -> None:
        """Lay `changes` over params.yaml."""
        path = self.folder / "params.yaml"
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(_merged(document, changes)), encoding="utf-8")


def _merged(document: dict, changes: dict) -> dict:
    return document | {
        key: _merged(document[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    folder = tmp_path_factory.mktemp("clone") / "verisynth"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    built = Clone(folder)
    built.change(SMALL)
    return built


@pytest.fixture(scope="module")
def output(clone: Clone) -> str:
    return clone.dvc("repro")


@pytest.fixture
def store(clone: Clone) -> Iterator[mlflow.MlflowClient]:
    mlflow.set_tracking_uri(f"sqlite:///{clone.folder / 'mlflow.db'}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_every_stage_runs_and_the_release_is_whole(clone: Clone, output: str) -> None:
    release = read_release(clone.folder / "models" / "ihc")
    assert release.image.size == 32
    assert release.manifest["data"]["licence"]
    assert "golden.npz" in release.manifest["files"]
    assert 0 <= release.manifest["metrics"]["detector"]["auc"]["low"] <= 1
    assert release.manifest["metrics"]["control"]["changed_pixels"] == 0
    figures = clone.folder / "reports" / "evaluation" / "ihc" / "figures"
    assert {path.stem for path in figures.iterdir()} == {
        "closest_pairs_dcgan_grain",
        "heatmaps",
        "latent_walk_dcgan_grain",
        "looks",
        "losses",
        "real_beside_synthetic",
        "reliability",
        "robustness",
        "roc",
    }


def test_a_second_repro_does_nothing(clone: Clone, output: str) -> None:
    assert "Running stage" in output
    assert "Running stage" not in clone.dvc("repro")


def test_every_training_and_evaluation_stage_is_a_run(clone: Clone, output: str, store: mlflow.MlflowClient) -> None:
    experiment = store.get_experiment_by_name("verisynth/ihc")
    runs = {run.info.run_name: run for run in store.search_runs([experiment.experiment_id])}
    assert set(runs) == {"train_gan@ihc-dcgan_grain", "train_detector@ihc", "evaluate@ihc", "register@ihc"}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    history = store.get_metric_history(runs["train_gan@ihc-dcgan_grain"].info.run_id, "generator_loss")
    assert len(history) == 10
    assert runs["evaluate@ihc"].inputs.dataset_inputs[0].dataset.name == "ihc"
    figures = store.list_artifacts(runs["evaluate@ihc"].info.run_id, "figures")
    assert "figures/roc.png" in {item.path for item in figures}
    for graph in ("generator", "detector"):
        champion = store.get_model_version_by_alias(f"verisynth-ihc-{graph}", "champion")
        assert champion.tags["verisynth.version"] == read_release(clone.folder / "models" / "ihc").version


def test_a_cached_stage_is_not_a_missing_run(clone: Clone, output: str) -> None:
    (clone.folder / "mlflow.db").rename(clone.folder / "away.db")
    try:
        assert "verisynth-ihc-generator" in clone.dvc("repro", "--single-item", "--force", "register@ihc")
        mlflow.set_tracking_uri(f"sqlite:///{clone.folder / 'mlflow.db'}")
        restored = {run.info.run_name for run in mlflow.search_runs(search_all_experiments=True, output_format="list")}
        assert {"train_gan@ihc-dcgan_grain", "train_detector@ihc", "evaluate@ihc"} <= restored
    finally:
        mlflow.set_tracking_uri(None)
        (clone.folder / "away.db").replace(clone.folder / "mlflow.db")


def test_figures_are_dvc_plots_and_numbers_dvc_metrics(clone: Clone, output: str) -> None:
    page = clone.dvc("plots", "show", "--out", "plots")
    assert "index.html" in page
    images = {path.name for path in (clone.folder / "plots").rglob("*.png")}
    assert any("real_beside_synthetic" in name for name in images)
    numbers = json.loads(clone.dvc("metrics", "show", "--json").splitlines()[0])
    assert "reports/evaluation/ihc/metrics.json" in json.dumps(numbers)


@pytest.fixture(scope="module")
def labelled(clone: Clone, output: str) -> str:
    """A second set, real details of two kinds in two folders, built after the first."""
    for label, photograph in (("tissue", data.immunohistochemistry()), ("fundus", data.retina()[300:900, 300:900])):
        folder = clone.folder / "data" / "raw" / "blood" / label
        folder.mkdir(parents=True)
        for number in range(48):
            left, top = 32 * (number % 8), 32 * (number // 8)
            (folder / f"{number}.png").write_bytes(encode_png(photograph[top : top + 32, left : left + 32]))
    clone.change({"run": {"datasets": ["ihc", "blood"]}})
    return clone.dvc("repro")


def test_adding_a_dataset_re_runs_nothing_that_is_built(clone: Clone, labelled: str) -> None:
    assert "Running stage 'prepare@blood'" in labelled
    assert "@ihc" not in "".join(line for line in labelled.splitlines() if "Running stage" in line)


def test_every_detector_is_tried_on_the_other_datasets(clone: Clone, labelled: str) -> None:
    report = json.loads((clone.folder / "reports" / "across" / "metrics.json").read_text(encoding="utf-8"))
    assert set(report["transfer"]["ihc"]) == {"blood"}
    assert set(report["left_out"]) == {"ihc", "blood"}
    assert {path.stem for path in (clone.folder / "reports" / "across" / "figures").iterdir()} == {
        "answered",
        "transfer",
        "typicality_auc",
    }


def test_a_labelled_set_becomes_a_generator_that_is_asked_by_label(clone: Clone, labelled: str) -> None:
    release = read_release(clone.folder / "models" / "blood")
    assert release.labels == ["fundus", "tissue"]
    assert release.label_shares == pytest.approx([0.5, 0.5], abs=0.1)
    worth = release.manifest["metrics"]["generator"]["utility"]
    assert set(worth["mixtures"]) == {"real", "real_and_synthetic", "synthetic"}
    card = (clone.folder / "reports" / "registry" / "blood.md").read_text(encoding="utf-8")
    assert "Worth of its images as training data" in card


def test_the_service_answers_all_routes_on_what_was_built(
    clone: Clone, labelled: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("pipeline-home")
    with serve(home, clone.folder / "models", VERISYNTH_WORKERS="1") as service, service.client() as client:
        assert client.get("/readyz").status_code == 200
        assert "html" in client.get("/").headers["content-type"]
        assert client.get("/docs").status_code == 200
        assert client.get("/openapi.json").json()["openapi"].startswith("3.")
        version = read_release(clone.folder / "models" / "ihc").version
        assert client.get("/v1/models/ihc").json()["version"] == version

        answer = client.post("/v1/generate", json={"model": "ihc", "count": 5, "seed": 3})
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Verisynth-Version"] == version
        with np.load(io.BytesIO(answer.content)) as arrays:
            images = arrays["images"]
        assert images.shape == (5, 32, 32, 3)
        assert images.std() > 1

        photograph = data.immunohistochemistry()
        for pixels in (photograph, images[0]):
            upload = {"image": ("image.png", encode_png(pixels), "image/png"), "model": (None, "ihc")}
            answer = client.post("/v1/authenticity", files=upload)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model_version"] == version
        assert "# Model card" in client.get("/v1/models/ihc/card").text

        for wanted, labels in (({"label": "tissue"}, {1}), ({}, {0, 1}), ({"balance": "training"}, {0, 1})):
            answer = client.post("/v1/generate", json={"model": "blood", "count": 16, "seed": 3} | wanted)
            assert answer.status_code == 200, answer.text
            with np.load(io.BytesIO(answer.content)) as arrays:
                assert arrays["images"].shape == (16, 32, 32, 3)
                assert set(arrays["labels"].tolist()) == labels
        metrics = client.get("/metrics").text
        assert 'verisynth_generated_images_total{model="ihc"} 5.0' in metrics
