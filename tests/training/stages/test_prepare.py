import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.images import write_pngs
from training.data import prepared

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a params.yaml of one small set."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    entry = copy.deepcopy(document["datasets"]["blood"])
    entry["prepare"] |= {"source": {"kind": "folder", "path": "data/raw/speckle"}, "size": 32, "minimum_images": 5}
    document["datasets"]["speckle"] = entry
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    write_pngs(tmp_path / "data" / "raw" / "speckle", 8)
    return tmp_path


def stage(project: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.stages.prepare", name]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_the_stage_writes_its_folder_and_says_what_it_left_out(project: Path) -> None:
    (project / "data" / "raw" / "speckle" / "notes.txt").write_text("remember the milk")
    done = stage(project, "speckle")
    assert done.returncode == 0, done.stderr
    counts = prepared.read_dataset(project / "data" / "prepared" / "speckle").counts
    assert sum(counts.values()) == 8
    assert "reading images" in done.stderr
    assert "left out: 1 not_an_image" in done.stderr
    assert "notes.txt: the 17 bytes are no PNG" in done.stderr


def test_mistakes_are_one_line_without_traceback(project: Path) -> None:
    done = stage(project, "cats")
    assert done.returncode == 1
    assert done.stderr.startswith("prepare@cats: dataset: 'cats' is unknown; valid: ")
    assert done.stderr.count("\n") == 1


def test_a_linked_folder_inside_the_raw_one_is_refused_and_the_raw_one_may_be_a_link(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = project / "data" / "raw" / "speckle"
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "images"
    raw.rename(elsewhere)
    raw.symlink_to(elsewhere)
    assert stage(project, "speckle").returncode == 0
    raw.unlink()
    raw.mkdir()
    (raw / "images").symlink_to(elsewhere)
    done = stage(project, "speckle")
    assert done.returncode == 1
    assert "data/raw/speckle/images is a linked folder" in done.stderr
