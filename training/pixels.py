"""Pixels as torch sees them: the scalings between uint8 levels and the ranges that networks work in.

`quantise` is the torch twin of `contracts.imaging.quantise`; a test holds them equal.
"""

import numpy as np
import torch
from torch import Tensor


def tensor(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, C], a memory map perhaps, to uint8 [N, C, H, W]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def to_unit(levels: Tensor) -> Tensor:
    """uint8 levels to float in [0, 1]: what detectors see."""
    return levels.float() / 255


def to_signed_unit(levels: Tensor) -> Tensor:
    """uint8 levels to float in [-1, 1]: what generators are trained on."""
    return levels.float() / 127.5 - 1


def quantise(images: Tensor) -> Tensor:
    """Float in [-1, 1] to uint8, rounded to nearest."""
    return (images * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8)
