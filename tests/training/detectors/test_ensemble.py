import numpy as np
import torch
from torch import Tensor, nn

from training.detectors.calibration import Scale
from training.detectors.ensemble import Ensemble

IMAGES = torch.from_numpy(np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32))


class Pixels(nn.Module):
    """Log-odds from the mean brightness, shown by every pixel's own."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        heatmap = self.gain * images[:, 0]
        return heatmap.mean(dim=(1, 2)), heatmap


def test_members_count_alike_whatever_their_scales() -> None:
    members = {"small": Pixels(0.01), "large": Pixels(-300)}
    logits = {name: member(IMAGES)[0].numpy() for name, member in members.items()}
    scales = {name: Scale.of(found) for name, found in logits.items()}
    found, heatmap = Ensemble.of(members, scales)(IMAGES)
    # Opposed members of the same strength say nothing together, neither of images nor of places.
    np.testing.assert_allclose(found.numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(heatmap.numpy(), 0, atol=1e-4)
    agreed, _ = Ensemble.of(
        {"one": members["small"], "two": Pixels(5)},
        scales | {"one": scales["small"], "two": Scale(5 * IMAGES.mean().item(), 1)},
    )(IMAGES)
    assert np.corrcoef(agreed.numpy(), logits["small"])[0, 1] > 0.999


def test_the_heatmap_shares_out_the_log_odds() -> None:
    members = {"one": Pixels(2), "two": Pixels(7)}
    scales = {"one": Scale(1, 0.5), "two": Scale(3, 4)}
    found, heatmap = Ensemble.of(members, scales)(IMAGES)
    constant = -(1 / 0.5 + 3 / 4) / 2
    np.testing.assert_allclose(found.numpy(), heatmap.mean(dim=(1, 2)).numpy() + constant, atol=1e-5)
