import os
import signal
from pathlib import Path

import mlflow
import pytest
import yaml

from tests.images import write_pngs
from training import folders, tracking
from training.data import preparation
from training.data.params import FolderSource, Prepare
from training.stages.train_gan import train_gan

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tracked: None, tmp_path: Path) -> Path:
    """A prepared set of small images, and params for a training of 160 of them in four log intervals."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["recipes"]["dcgan"] |= {"width": 4, "batch_size": 8, "log_every_images": 40, "look_every_images": 80}
    document["datasets"]["blood"]["train_gan"] = {"images": 160}
    document["datasets"]["blood"]["prepare"]["size"] = 32
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    write_pngs(tmp_path / "raw", 20)
    wanted = Prepare(FolderSource("raw"), size=32, channels=3, minimum_images=5)
    preparation.prepare("blood", wanted, "numpy", "CC0", folders.prepared("blood"))
    return tmp_path


def test_a_training_stopped_twice_is_one_run_with_its_whole_history(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on = tracking.Run.metrics

    def stop_at(images_seen: int) -> None:
        def metrics(run: tracking.Run, numbers: dict[str, float], step: int = 0) -> None:
            passed_on(run, numbers, step)
            if step == images_seen and "generator_loss" in numbers:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(tracking.Run, "metrics", metrics)
        with pytest.raises(KeyboardInterrupt):
            train_gan("blood", "dcgan")

    stop_at(40)
    stop_at(80)
    monkeypatch.setattr(tracking.Run, "metrics", passed_on)
    train_gan("blood", "dcgan")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("verisynth/blood").experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "generator_loss")
    assert sorted(point.step for point in history) == [40, 80, 120, 160]
    assert not folders.checkpoints("blood", "dcgan").exists()


def test_a_training_with_other_settings_is_a_run_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(run: tracking.Run, numbers: dict[str, float], step: int = 0) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(tracking.Run, "metrics", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_gan("blood", "dcgan")
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["datasets"]["blood"]["train_gan"]["seed"] = 1
    (project / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    train_gan("blood", "dcgan")
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("verisynth/blood").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


def test_a_finished_training_is_not_repeated(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_gan("blood", "dcgan")
    trained = folders.gan("blood", "dcgan") / "generator.pt"
    written = trained.stat().st_mtime_ns
    train_gan("blood", "dcgan")
    assert trained.stat().st_mtime_ns == written
    assert "train_gan@blood-dcgan is done" in capsys.readouterr().err
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["datasets"]["blood"]["train_gan"]["seed"] = 1
    (project / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    train_gan("blood", "dcgan")
    assert trained.stat().st_mtime_ns != written
