"""What a detector is worth once images have been handled: its AUC after every fixed corruption."""

import numpy as np
from torch import nn

from training.detectors import corruptions, detector
from training.detectors.ranking import area_under_curve


def after(model: nn.Module, images: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """AUC by the name of a fixed corruption, which all images uint8 [N, H, W, C] go through, real and synthetic alike.

    `synthetic` is bool [N].
    """
    return {
        name: area_under_curve(synthetic, detector.judge(model, np.stack([corrupt(image) for image in images]))[0])
        for name, corrupt in corruptions.FIXED.items()
    }


def loss(clean: float, corrupted: dict[str, float]) -> dict[str, float]:
    """The clean AUC minus each of those that `after` found, by name; negative where a corruption helps."""
    return {name: clean - auc for name, auc in corrupted.items()}
