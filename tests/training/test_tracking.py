import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from training import tracking

RECORD = tracking.Record(
    stage="train_gan",
    cell="test-dcgan",
    dataset="test",
    params={"width": 4, "flips": ["horizontal"]},
    lineage={"source": "folder", "origin": "here", "licence": "CC0", "content_hash": "ab" * 32},
)


pytestmark = pytest.mark.usefixtures("tracked")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    rows = [{"images": 40 * (step + 1), "generator_loss": float(step)} for step in range(3)]
    (out / tracking.STATS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / tracking.METRICS).write_text(json.dumps({"auc": {"value": 0.9, "low": 0.8}, "champion": "x"}))
    (out / "figures" / "roc.png").write_bytes(b"picture")
    RECORD.write(out)
    return out


def runs() -> list[Any]:
    client = mlflow.MlflowClient()
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def assert_complete(run: Any) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.params == {"width": "4", "flips": "['horizontal']"}
    assert run.data.metrics["auc/value"] == 0.9
    assert run.data.tags["stage"] == "train_gan"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "generator_loss")
    assert [(point.step, point.value) for point in history] == [(40, 0.0), (80, 1.0), (120, 2.0)]
    assert [item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id, "figures")] == [
        "figures/roc.png"
    ]
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("test", "ab" * 6)
    assert "CC0" in dataset.source


def test_a_live_run_holds_everything_and_is_not_made_twice(folder: Path) -> None:
    with tracking.run(RECORD) as run:
        for step in range(3):
            run.metrics({"generator_loss": float(step)}, 40 * (step + 1))
        run.finish(folder)
    assert_complete(runs()[0])
    assert tracking.ensure_run(folder) == runs()[0].info.run_id
    assert len(runs()) == 1


def test_a_cached_stage_gets_its_run_back(folder: Path) -> None:
    run_id = tracking.ensure_run(folder)
    assert [run.info.run_id for run in runs()] == [run_id]
    assert_complete(runs()[0])
    assert "verisynth.restored" in runs()[0].data.tags


def test_a_changed_folder_is_another_run(folder: Path) -> None:
    first = tracking.ensure_run(folder)
    (folder / tracking.METRICS).write_text("{}")
    assert tracking.ensure_run(folder) != first


def test_a_stopped_stage_goes_on_in_its_run(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"

    def stopped() -> None:
        with tracking.run(RECORD, work) as run:
            run.metrics({"generator_loss": 0.0}, 40)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert runs()[0].info.status == "FAILED"
    with tracking.run(RECORD, work) as run:
        for step in (1, 2):
            run.metrics({"generator_loss": float(step)}, 40 * (step + 1))
        run.finish(folder)
    assert len(runs()) == 1
    assert_complete(runs()[0])


def test_a_lost_store_does_not_stop_a_stopped_stage(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / tracking.RUN_ID).write_text("0" * 32)
    with tracking.run(RECORD, work) as run:
        run.finish(folder)
    assert len(runs()) == 1


def test_without_mlflow_nothing_is_tracked_and_nothing_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "client", lambda: None)
    with tracking.run(RECORD) as run:
        run.metrics({"loss": 1.0})
        run.finish(folder)
    assert tracking.ensure_run(folder) is None


def test_content_hash_sees_names_and_bytes(folder: Path) -> None:
    before = tracking.content_hash(folder)
    (folder / "figures" / "roc.png").rename(folder / "figures" / "other.png")
    renamed = tracking.content_hash(folder)
    (folder / "figures" / "other.png").write_bytes(b"another")
    assert len({before, renamed, tracking.content_hash(folder)}) == 3
