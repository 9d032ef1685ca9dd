"""The machine a training runs on: GPU where there is one, CPU elsewhere."""

from contextlib import AbstractContextManager, nullcontext

import torch


def choose() -> torch.device:
    """CUDA where a GPU is present, else CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on a GPU; single precision elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
