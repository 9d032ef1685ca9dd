from pathlib import Path

import torch

from training import checkpoints


def test_a_checkpoint_is_read_back_under_its_identity_only(tmp_path: Path) -> None:
    identity = checkpoints.fingerprint(recipe="dcgan", images=100)
    checkpoints.save(tmp_path, {"iteration": 3, "weights": torch.ones(2)}, identity)
    stored = checkpoints.load(tmp_path, identity)
    assert stored is not None
    assert stored["iteration"] == 3
    assert torch.equal(stored["weights"], torch.ones(2))
    assert checkpoints.load(tmp_path, checkpoints.fingerprint(recipe="dcgan", images=200)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"iteration": 3}, "a")
    (tmp_path / "checkpoint.pt.incomplete").write_bytes(b"half")
    stored = checkpoints.load(tmp_path, "a")
    assert stored is not None
    assert stored["iteration"] == 3


def test_fingerprints_see_every_difference() -> None:
    one = checkpoints.fingerprint(settings={"width": 4, "seed": 0})
    assert one == checkpoints.fingerprint(settings={"seed": 0, "width": 4})
    assert one != checkpoints.fingerprint(settings={"width": 4, "seed": 1})
