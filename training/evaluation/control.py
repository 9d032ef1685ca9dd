"""The fair-detector control: the way an image came must not be what a detector recognises."""

import numpy as np
import torch
from torch import nn

from contracts.errors import VerisynthError
from contracts.imaging import decode, encode_png
from training.detectors.detector import judge
from training.evaluation.spaces import evenly_spread
from training.gans.graph import GeneratorGraph
from training.pixels import tensor, to_signed_unit

MOST_IMAGES = 500


class ControlError(VerisynthError):
    """Real images changed on the generator's path: a detector could learn the path instead of the image."""


def check(champion: nn.Module, real: np.ndarray) -> dict[str, float]:
    """Send real images uint8 [N, H, W, C] through the generator's output head and file form; they must score as before.

    At most `MOST_IMAGES` of them, evenly spread.

    Raises:
        ControlError: when a pixel or a score changes.
    """
    real = np.asarray(real[evenly_spread(len(real), MOST_IMAGES)])
    head = GeneratorGraph(nn.Identity())
    with torch.inference_mode():
        through = head(to_signed_unit(tensor(real))).numpy()
    filed = np.stack([decode(encode_png(image)).pixels for image in through])
    changed = int((filed != real).sum())
    direct, controlled = judge(champion, real)[0], judge(champion, filed)[0]
    difference = float(np.abs(direct - controlled).max())
    if changed or difference > 1e-6:
        raise ControlError(
            f"{changed} pixels of real test images change on the generator's path and scores move by {difference:.2e}; "
            "generated images would be recognised by their rounding or file form"
        )
    return {"changed_pixels": changed, "largest_score_difference": difference}
