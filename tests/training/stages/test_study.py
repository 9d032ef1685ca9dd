import csv
import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from contracts.imaging import ImageSpec
from tests.images import write_pngs
from tests.training.gans.small import DCGAN
from training import folders, tracking
from training.data import preparation
from training.data.params import FolderSource, Prepare
from training.gans import recipes, watch
from training.gans.recipes import Trained
from training.params import ParamsError
from training.stages.study import WORK, study
from training.study import detectability
from training.study.classifiers import classifiers

ROOT = Path(__file__).parents[3]
SETTINGS = {"images": 50, "epochs": 2, "folds": 2, "bootstrap_rounds": 20}
FAST = ("naive_bayes", "nearest_neighbours")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared set of small images, two snapshots of a generator that learned nothing, and the quickest models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "client", lambda: None)
    monkeypatch.setattr(detectability, "classifiers", lambda seed: {name: classifiers(seed)[name] for name in FAST})
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["run"] = {"datasets": ["blood"], "recipes": ["dcgan"]}
    document["study"] = SETTINGS
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    write_pngs(tmp_path / "raw", 60)
    wanted = Prepare(FolderSource("raw"), size=32, channels=3, minimum_images=5)
    preparation.prepare("blood", wanted, "numpy", "CC0", folders.prepared("blood"))
    snapshots = folders.gan("blood", "dcgan") / watch.SNAPSHOTS_FOLDER
    snapshots.mkdir(parents=True)
    image = ImageSpec(32, 3)
    for images_seen in (40, 80):
        generator = recipes.build("dcgan", image, DCGAN, seed=images_seen).generator.eval()
        Trained(generator, "dcgan", image, DCGAN, recipes.UNLABELLED).save(snapshots / f"{images_seen:08d}.pt")


def written() -> dict[str, bytes]:
    out = folders.study("blood")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_study_leaves_its_table_numbers_and_figure() -> None:
    study("blood")
    assert set(written()) == {"table.csv", "table.md", "metrics.json", "record.json", "figures/detectability.png"}
    with (folders.study("blood") / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["images_seen"] for row in rows] == ["40"] * 4 + ["80"] * 4
    assert {row["real_images"] for row in rows} == {"all splits"}
    report = json.loads((folders.study("blood") / tracking.METRICS).read_text(encoding="utf-8"))
    assert report["real_images"]["count"] == 50
    assert report["recipes"]["dcgan"]["all"]["imitated_at_last"] is False
    assert not folders.checkpoints(WORK, "blood").exists()


def test_a_stopped_study_leaves_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    study("blood")
    whole = written()

    def interrupt(run: tracking.Run, numbers: dict[str, float], step: int = 0) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(tracking.Run, "metrics", interrupt)
        with pytest.raises(KeyboardInterrupt, match="of 8 models, all kept in checkpoints/study-blood"):
            study("blood")
    kept = (folders.checkpoints(WORK, "blood") / detectability.RESULTS_FILE).read_text(encoding="utf-8")
    assert 0 < len(kept.splitlines()) < 8
    study("blood")
    assert written() == whole


def test_an_unknown_dataset_is_refused() -> None:
    with pytest.raises(ParamsError, match="'none' is unknown"):
        study("none")
