from pathlib import Path

import torch

from training import checkpoints

ONE = checkpoints.fingerprint(recipe="dcgan", images=100)
OTHER = checkpoints.fingerprint(recipe="dcgan", images=200)


def test_a_checkpoint_is_read_back(tmp_path: Path) -> None:
    checkpoints.claim(tmp_path / "work", ONE)
    assert checkpoints.load(tmp_path / "work") is None
    checkpoints.save(tmp_path / "work", {"iteration": 3, "weights": torch.ones(2)})
    stored = checkpoints.load(tmp_path / "work")
    assert stored is not None
    assert stored["iteration"] == 3
    assert torch.equal(stored["weights"], torch.ones(2))


def test_a_folder_is_kept_for_its_training_and_emptied_for_another(tmp_path: Path) -> None:
    checkpoints.claim(tmp_path / "work", ONE)
    checkpoints.save(tmp_path / "work", {"iteration": 3})
    (tmp_path / "work" / "mlflow_run_id").write_text("a run")
    checkpoints.claim(tmp_path / "work", ONE)
    assert checkpoints.load(tmp_path / "work") == {"iteration": 3}
    assert (tmp_path / "work" / "mlflow_run_id").exists()
    checkpoints.claim(tmp_path / "work", OTHER)
    assert checkpoints.load(tmp_path / "work") is None
    assert not (tmp_path / "work" / "mlflow_run_id").exists()


def test_a_half_written_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    checkpoints.claim(tmp_path, ONE)
    checkpoints.save(tmp_path, {"iteration": 3})
    (tmp_path / "checkpoint.pt.incomplete").write_bytes(b"half")
    assert checkpoints.load(tmp_path) == {"iteration": 3}


def test_fingerprints_see_every_difference() -> None:
    one = checkpoints.fingerprint(settings={"width": 4, "seed": 0})
    assert one == checkpoints.fingerprint(settings={"seed": 0, "width": 4})
    assert one != checkpoints.fingerprint(settings={"width": 4, "seed": 1})
