"""How one worker follows its models folder, in process; `test_reload.py` has real services under load."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from contracts.imaging import encode_png
from contracts.manifest import DETECTOR, FILE_NAME, GENERATOR, Release
from monitoring.metrics import Metrics
from serving.access.gate import Gate
from serving.edge import Edge
from serving.models_folder import SIGNAL
from serving.routes import application
from serving.runtime import Look, Model, Samples
from serving.settings import Settings
from serving.worker import Worker
from tests.releases import promote, real_images, with_constant, with_graph, write_small_release


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    """Two releases of `waves` with golden samples; the second is brighter."""
    folder = tmp_path_factory.mktemp("made")
    return [write_small_release(folder / str(middle) / "waves", golden=True, middle=middle) for middle in (110, 120)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def started(models: Path, **settings: Any) -> Worker:
    worker = Worker(
        Settings(models_folder=models, drift_window=10, **settings).resolved(1), Metrics(CollectorRegistry())
    )
    worker.load()
    return worker


def look(worker: Worker, times: int = 2) -> None:
    for _ in range(times):
        worker.follow()


def served(worker: Worker) -> dict[str, str]:
    return {name: model.version for name, model in worker.catalogue.models.items()}


def counted(worker: Worker, name: str, model: str = "waves") -> float:
    return worker.metrics.registry.get_sample_value(f"verisynth_{name}_total", {"model": model}) or 0


def copy(release: Release, models: Path) -> Path:
    """A release as it is, without an archive."""
    return Path(shutil.copytree(release.folder, models / release.name))


# --- what is taken up ---------------------------------------------------------------------------


def test_a_promoted_release_is_taken_up_when_two_looks_agree(models: Path, versions: list[Release]) -> None:
    promote(models, versions[0])
    worker = started(models)
    look(worker)
    assert counted(worker, "reloads") == 0
    before = worker.catalogue
    promote(models, versions[1])
    look(worker, times=1)
    assert worker.catalogue.models is not before.models
    assert served(worker) == {"waves": versions[0].version}
    look(worker, times=1)
    assert served(worker) == {"waves": versions[1].version}
    assert before.models["waves"].version == versions[0].version
    assert (counted(worker, "reloads"), counted(worker, "reload_failures")) == (1, 0)
    info = worker.metrics.exposition().decode()
    assert f'version="{versions[1].version}"' in info
    assert f'version="{versions[0].version}"' not in info


def test_a_first_model_makes_a_worker_ready(models: Path, versions: list[Release]) -> None:
    worker = started(models)
    assert worker.catalogue.obstacle is not None
    promote(models, versions[0])
    look(worker)
    assert worker.catalogue.obstacle is None
    assert counted(worker, "reloads") == 1


def test_a_folder_without_a_manifest_is_waited_for(models: Path, versions: list[Release]) -> None:
    worker = started(models)
    folder = copy(versions[0], models)
    (folder / FILE_NAME).rename(models.parent / FILE_NAME)
    look(worker, times=4)
    assert (served(worker), worker.catalogue.refused) == ({}, {})
    (models.parent / FILE_NAME).rename(folder / FILE_NAME)
    look(worker)
    assert served(worker) == {"waves": versions[0].version}
    assert counted(worker, "reload_failures") == 0


def test_what_changes_while_it_is_read_is_neither_served_nor_a_failure(
    models: Path, versions: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(models, versions[0])
    worker = started(models)
    promote(models, versions[1])
    opened = Model.open

    def meanwhile(*arguments: Any) -> Model:
        (models / "waves" / "note.txt").write_text("one more file")
        return opened(*arguments)

    monkeypatch.setattr(Model, "open", meanwhile)
    look(worker)
    assert served(worker) == {"waves": versions[0].version}
    assert (counted(worker, "reloads"), counted(worker, "reload_failures")) == (0, 0)
    monkeypatch.undo()
    look(worker)
    assert served(worker) == {"waves": versions[1].version}


def test_a_folder_that_is_missed_once_is_not_gone(models: Path, versions: list[Release]) -> None:
    promote(models, versions[0])
    write_small_release(models / "other")
    worker = started(models)
    (models / "waves").rename(models / ".waves.replaced")
    look(worker, times=1)
    (models / ".waves.replaced").rename(models / "waves")
    look(worker)
    assert set(served(worker)) == {"other", "waves"}
    shutil.rmtree(models / "waves")
    look(worker)
    assert set(served(worker)) == {"other"}
    text = worker.metrics.exposition().decode()
    assert 'model="other"' in text
    series = {line.partition("{")[0] for line in text.splitlines() if 'model="waves"' in line}
    assert {name for name in series if not name.startswith("verisynth_reload")} == set()


def test_a_link_to_nothing_takes_no_model_away_and_a_volumes_own_folder_is_no_release(
    models: Path, versions: list[Release]
) -> None:
    copy(versions[0], models)
    (models / "lost+found").mkdir()
    worker = started(models)
    assert served(worker) == {"waves": versions[0].version}
    assert not worker.catalogue.refused
    (models / "waves" / ".#manifest.json").symlink_to("nobody@nowhere")
    look(worker, times=4)
    assert served(worker) == {"waves": versions[0].version}


def test_a_models_folder_that_cannot_be_read_takes_nothing_away(models: Path, versions: list[Release]) -> None:
    promote(models, versions[0])
    worker = started(models)
    models.rename(models.with_name("elsewhere"))
    look(worker, times=3)
    assert served(worker) == {"waves": versions[0].version}
    assert "No such file" in str(worker.catalogue.unreadable)
    models.with_name("elsewhere").rename(models)
    look(worker)
    assert worker.catalogue.unreadable is None


# --- what is refused ----------------------------------------------------------------------------


def truncate(models: Path, _: Release) -> None:
    content = (models / "waves" / GENERATOR).read_bytes()
    (models / "waves" / GENERATOR).write_bytes(content[: len(content) // 2])


def alter(models: Path, _: Release) -> None:
    with (models / "waves" / DETECTOR).open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")


def remove_a_file(models: Path, _: Release) -> None:
    (models / "waves" / DETECTOR).unlink()


def another_graph(file: str, constant: str, value: float) -> Callable[[Path, Release], None]:
    def replace(models: Path, release: Release) -> None:
        graph = with_constant(onnx.load(release.folder / file), constant, value)
        with_graph(release, file, graph, models / "waves")

    return replace


def another_contract(models: Path, release: Release) -> None:
    with_graph(release, GENERATOR, onnx.load(release.folder / DETECTOR), models / "waves")


def another_name(models: Path, _: Release) -> None:
    other = write_small_release(models.parent / "strange")
    shutil.rmtree(models / "waves")
    shutil.copytree(other.folder, models / "waves")


BREAKING = [
    (truncate, "generator.onnx was altered"),
    (alter, "detector.onnx was altered"),
    (remove_a_file, "detector.onnx is missing"),
    (another_contract, "the contract says"),
    (another_name, "must bear its name"),
    (another_graph(GENERATOR, "middle", 125), "generator.onnx does not draw the golden samples"),
    (another_graph(GENERATOR, "waves", np.nan), "draws nothing but the level"),
    (another_graph(DETECTOR, "width", np.nan), "answered with no number"),
    (another_graph(DETECTOR, "middle", 120), "does not judge the golden samples as it did: a probability"),
]


@pytest.mark.parametrize(("damage", "reason"), BREAKING, ids=[reason for _, reason in BREAKING])
def test_a_broken_release_is_refused_and_the_old_one_serves_on(
    damage: Callable[[Path, Release], None],
    reason: str,
    models: Path,
    versions: list[Release],
    caplog: pytest.LogCaptureFixture,
) -> None:
    promote(models, versions[0])
    worker = started(models)
    expected = worker.catalogue.models["waves"].generate(0, 0, 2).images
    damage(models, versions[1])
    look(worker, times=5)
    assert served(worker) == {"waves": versions[0].version}
    np.testing.assert_array_equal(worker.model("waves").generate(0, 0, 2).images, expected)
    assert reason in worker.catalogue.refused["waves"]
    assert (counted(worker, "reloads"), counted(worker, "reload_failures")) == (0, 1)
    told = [record for record in caplog.records if "a release of waves is refused" in record.message]
    assert len(told) == 1
    assert f"version {versions[0].version} is served on" in told[0].message
    assert worker.metrics.registry.get_sample_value("verisynth_refused_releases") == 1
    shutil.rmtree(models / "waves")
    copy(versions[1], models)
    look(worker)
    assert (served(worker), worker.catalogue.refused) == ({"waves": versions[1].version}, {})


def test_a_file_whose_times_do_not_tell_is_found_when_everything_is_verified(
    models: Path, versions: list[Release]
) -> None:
    promote(models, versions[0])
    worker = started(models)
    path = models / "waves" / GENERATOR
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\0")
    os.utime(path, ns=times)
    look(worker, times=3)
    assert worker.catalogue.refused == {}
    change, _ = worker.follow(everything=True)
    assert "was altered" in change.refused["waves"]
    assert served(worker) == {"waves": versions[0].version}
    path.write_bytes(content)
    change, _ = worker.follow(everything=True)
    assert (change.unchanged, worker.catalogue.refused) == (["waves"], {})


def test_a_signal_has_every_worker_verify_and_a_reload_gives_it(models: Path, versions: list[Release]) -> None:
    promote(models, versions[0])
    first, second = started(models), started(models)
    for worker in (first, second):
        look(worker)
    assert first.follow(everything=True, signal=True)[1]
    assert (models / SIGNAL).is_file()
    assert second.follow()[0].unchanged == ["waves"]
    assert second.follow()[0].unchanged == first.follow()[0].unchanged == []


def test_a_release_without_golden_samples_is_valid_unless_it_draws_one_level(models: Path) -> None:
    release = write_small_release(models / "waves")
    worker = started(models)
    assert served(worker) == {"waves": release.version}
    with_graph(release, GENERATOR, with_constant(onnx.load(release.folder / GENERATOR), "scale", 0), models / "waves")
    look(worker)
    assert served(worker) == {"waves": release.version}
    assert "draws nothing but the level 110" in worker.catalogue.refused["waves"]


def test_a_painter_is_tried_as_well(models: Path) -> None:
    release = write_small_release(models.parent / "made" / "cells", masks=True, golden=True)
    promote(models, release)
    worker = started(models)
    assert served(worker) == {"cells": release.version}
    graph = with_constant(onnx.load(release.folder / "painter.onnx"), "ground", 90)
    with_graph(release, "painter.onnx", graph, models / "cells")
    look(worker)
    assert "painter.onnx does not draw the golden samples" in worker.catalogue.refused["cells"]


# --- requests in hand ---------------------------------------------------------------------------


def connected(worker: Worker) -> httpx.AsyncClient:
    gate = Gate(worker.settings)
    gate.load(["127.0.0.1"])
    edge = Edge(application(worker), worker.settings, worker.metrics, gate)
    return httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://service")


def test_a_request_ends_with_the_model_it_began_with(
    models: Path, versions: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(models, versions[0])
    worker = started(models, threads=1)
    old = worker.catalogue.models["waves"]
    generate = old.generate

    def swapping(*wanted: Any) -> Samples:
        promote(models, versions[1])
        look(worker)
        return generate(*wanted)

    async def scenario() -> None:
        client = connected(worker)
        monkeypatch.setattr(old, "generate", swapping)
        answer = await client.post("/v1/generate", json={"count": 1, "seed": 3})
        assert (answer.status_code, answer.headers["X-Verisynth-Version"]) == (200, versions[0].version)
        answer = await client.post("/v1/generate", json={"count": 1, "seed": 3})
        assert answer.headers["X-Verisynth-Version"] == versions[1].version
        new = worker.catalogue.models["waves"]
        seen = new.look

        def removing(pixels: np.ndarray) -> Look:
            shutil.rmtree(models / "waves")
            look(worker)
            return seen(pixels)

        monkeypatch.setattr(new, "look", removing)
        files = {"image": ("x.png", encode_png(real_images(1)[0]))}
        answer = await client.post("/v1/authenticity", files=files)
        assert (answer.status_code, answer.json()["model_version"]) == (200, versions[1].version)
        assert worker.catalogue.models == {}

    anyio.run(scenario)


def test_a_drift_window_is_of_one_version(models: Path, versions: list[Release]) -> None:
    promote(models, versions[0])
    worker = started(models)
    before = worker.windows[worker.model("waves")]
    promote(models, versions[1])
    look(worker)
    assert list(worker.windows) == [worker.model("waves")]
    assert worker.windows[worker.model("waves")] is not before
    promote(models, versions[0])
    kept = worker.windows[worker.model("waves")]
    worker.follow(everything=False)
    assert worker.windows[worker.model("waves")] is kept
