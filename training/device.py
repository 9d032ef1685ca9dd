"""The machine a training runs on: GPU where there is one, CPU elsewhere."""

from contextlib import AbstractContextManager, nullcontext

import torch


def choose() -> torch.device:
    """CUDA where a GPU is present, else CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_deterministic() -> None:
    """The same convolution algorithms in every run, so that a resumed training equals an unbroken one on a GPU too."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on a GPU; single precision elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
