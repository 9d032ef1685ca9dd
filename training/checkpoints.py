"""Checkpoints of a training in progress: written whole, in a folder that belongs to one training."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

FILE = "checkpoint.pt"
OWNER = "identity"


def fingerprint(**content: Any) -> str:
    """A hash of everything that a training's result depends on; equal fingerprints may resume each other."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def claim(folder: Path, identity: str) -> None:
    """Make `folder` that of the training named by `identity`; what another training left there is removed."""
    owner = folder / OWNER
    if owner.is_file() and owner.read_text(encoding="utf-8") == identity:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    owner.write_text(identity, encoding="utf-8")


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; a stop at any moment leaves the previous one or the new one, never half a file."""
    incomplete = folder / f"{FILE}.incomplete"
    torch.save(state, incomplete)
    incomplete.replace(folder / FILE)


def load(folder: Path) -> dict[str, Any] | None:
    """The checkpoint in a claimed folder; None where there is none yet."""
    path = folder / FILE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state
