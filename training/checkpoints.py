"""Checkpoints of a training in progress: written whole, refused when they belong to another run."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

FILE = "checkpoint.pt"


def fingerprint(**content: Any) -> str:
    """A hash of everything that a training's result depends on; equal fingerprints may resume each other."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def save(folder: Path, state: dict[str, Any], identity: str) -> None:
    """Write a checkpoint; a stop at any moment leaves the previous one or the new one, never half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    incomplete = folder / f"{FILE}.incomplete"
    torch.save(state | {"identity": identity}, incomplete)
    incomplete.replace(folder / FILE)


def load(folder: Path, identity: str) -> dict[str, Any] | None:
    """The checkpoint of the training named by `identity`; None, and an emptied folder, where there is none."""
    path = folder / FILE
    if path.is_file():
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if state.pop("identity") == identity:
            return state
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return None
