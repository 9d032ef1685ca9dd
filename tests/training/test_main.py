import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.images import write_pngs
from tests.services import ROOT
from training import params
from training.__main__ import commands
from training.gans.recipes import Trained

BARE = """
import sys
for name in ("mlflow", "dvc", "bentoml", "onnx", "onnxruntime", "matplotlib", "starlette"):
    sys.modules[name] = None
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["recipes"]["dcgan_grain"] |= {"width": 4, "batch_size": 8, "log_every_images": 40, "look_every_images": 80}
    entry = document["datasets"]["blood"]
    entry["train_gan"] = {"images": 80, "conditional": True}
    entry["prepare"] |= {"size": 32, "minimum_images": 5}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    for seed, label in enumerate(("round", "long")):
        write_pngs(tmp_path / "data" / "raw" / "blood" / label, 20, seed=seed)
    return tmp_path


def run(project: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{project}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"} | settings
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("devices", ["1", "2"])
def test_one_command_trains_where_nothing_but_torch_is_installed(devices: str, project: Path) -> None:
    (project / "sitecustomize.py").write_text(BARE, encoding="utf-8")
    done = run(project, "blood", "--until", "train_gan", VERISYNTH_DEVICES=devices)
    assert done.returncode == 0, done.stderr
    trained = Trained.load(project / "data" / "gans" / "blood" / "dcgan_grain" / "generator.pt")
    assert trained.labels.names == ["long", "round"]
    assert trained.generate(0, 0, 2).shape == (2, 32, 32, 3)
    assert not list(project.glob("mlflow*"))


def test_a_stage_that_fails_ends_the_command_in_its_words(project: Path) -> None:
    done = run(project, "blood", "--from", "train_gan")
    assert done.returncode == 1
    assert "train_gan@blood-dcgan_grain: data/prepared/blood holds no prepared dataset" in done.stderr
    unknown = run(project, "cats")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("training@cats: dataset: 'cats' is unknown; valid: ")


def test_the_devices_asked_for_must_be_a_number(project: Path) -> None:
    assert run(project, "blood", "--until", "prepare").returncode == 0
    done = run(project, "blood", "--from", "train_gan", "--until", "train_gan", VERISYNTH_DEVICES="all")
    assert done.returncode == 1
    assert "VERISYNTH_DEVICES is 'all'; give the number of devices" in done.stderr


def test_the_stages_are_those_of_the_graph_in_their_order() -> None:
    configuration = params.load(ROOT / "params.yaml")
    whole = replace(configuration, run=replace(configuration.run, studies=["retina"], pairs=["retina"]))
    run = commands(whole, "retina", "prepare", "register")
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    stages = [name for name, stage in graph.items() if "matrix" in stage]  # the others are of several datasets
    dual = {"train_dual": "train_gan", "sample_dual": "sample"}
    assert sorted(command[0].removeprefix("training.stages.") for command in run) == sorted(
        dual.get(stage, stage) for stage in stages
    )
    assert run[1:3] == [["training.stages.train_gan", "retina", recipe] for recipe in ("dcgan_grain", "dual")]
    ordered = [command[0].removeprefix("training.stages.") for command in run]
    assert list(dict.fromkeys(ordered)) == [stage for stage in stages if stage not in dual]
    assert [
        command for command in run if not {"study", "pairs", "dual"} & {*command, command[0].split(".")[-1]}
    ] == commands(configuration, "retina", "prepare", "register")


def test_ctrl_c_lets_the_training_save_what_it_has(project: Path) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["datasets"]["blood"]["train_gan"]["images"] = 1_000_000
    (project / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training", "blood", "--until", "train_gan"]
    running = subprocess.Popen(
        command, cwd=project, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    stats = project / "checkpoints" / "blood-dcgan_grain" / "stats.jsonl"
    while not stats.is_file() and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 130, told
    assert "all kept in checkpoints/blood-dcgan_grain; go on with" in told
    assert (project / "checkpoints" / "blood-dcgan_grain" / "checkpoint.pt").is_file()
