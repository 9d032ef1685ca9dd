"""The examples as a reader runs them, against the real service on small releases."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.releases import real_images
from tests.services import ROOT, Service

LABELS = ("benign", "malignant")


def run(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """What the example reads of a prepared dataset: grey noise, brighter where it is malignant."""
    folder = tmp_path / "prepared"
    for seed, split in enumerate(("train", "test")):
        (folder / split).mkdir(parents=True)
        numbers = np.arange(40) % 2
        images = real_images(40, channels=1, seed=seed) + (numbers * 20).astype(np.uint8)[:, None, None, None]
        np.save(folder / split / "images.npy", images)
        with (folder / split / "index.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerows([["row", "label"], *enumerate(LABELS[number] for number in numbers)])
    return folder


def test_torch_dataset(service: Service, tmp_path: Path) -> None:
    done = run(tmp_path, "torch_dataset.py", service.url, "waves")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(\(64, 3, 32, 32\) 0\.\d{3}\n){4}", done.stdout)


def test_torch_collection(collection_folder: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "torch_collection.py", str(collection_folder))
    assert done.returncode == 0, done.stderr
    # Image, mask and label of every batch; the labels come in turn.
    rows = re.findall(r"\((\d+), 3, 32, 32\) \((\d+), 1, 32, 32\) (\[[01, ]+\])\n", done.stdout)
    assert "".join(row[0] for row in rows) == "16" + "14"
    assert sum(row[2].count("1") for row in rows) == 15


def test_augment_training(service: Service, prepared: Path, tmp_path: Path) -> None:
    options = ["--model", "labelled", "--url", service.url, "--steps", "60", "--seeds", "2", "--synthetic", "40"]
    done = run(tmp_path, "augment_training.py", str(prepared), *options, "--real", "10")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "mean"]
    # Brightness is easily learned: a network that saw nothing, or the wrong labels, would be at 0.5 or below.
    assert all(float(accuracy) > 0.6 for row in rows for accuracy in row[1:])
    without, beside = (float(accuracy) for accuracy in rows[-1][1:])
    gain = re.search(r"^gain ([+-][\d.]+), from .* over 2 seeds\.$", done.stdout, re.MULTILINE)
    assert gain is not None
    assert float(gain.group(1)) == pytest.approx(beside - without, abs=0.0011)
    assert "part of a gain is what those taught" in done.stdout
    again = run(tmp_path, "augment_training.py", str(prepared), *options, "--real", "10")
    assert again.stdout == done.stdout


def test_augment_training_refuses_what_it_cannot_do(service: Service, prepared: Path, tmp_path: Path) -> None:
    unlabelled = run(tmp_path, "augment_training.py", str(prepared), "--model", "waves", "--url", service.url)
    assert (unlabelled.returncode, "waves draws no labels" in unlabelled.stderr) == (2, True)
    text = (prepared / "test" / "index.csv").read_text()
    (prepared / "test" / "index.csv").write_text(text.replace("benign", "mole"))
    strange = run(tmp_path, "augment_training.py", str(prepared), "--model", "labelled", "--url", service.url)
    assert "has the labels mole, which the model does not draw" in strange.stderr
