import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.detectors.traces import smooth_images, upsampled
from training.detectors import corruptions, detector
from training.detectors.ranking import area_under_curve
from training.evaluation import robustness

IMAGES = np.concatenate([smooth_images(20, 32, 3, seed=0), upsampled(smooth_images(20, 32, 3, seed=1))])
SYNTHETIC = np.arange(40) >= 20


class Smoothness(nn.Module):
    """Calls images synthetic that differ little from one column to the next."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = image.float()
        changes = (levels[:, :, 1:] - levels[:, :, :-1]).abs().mean(dim=(1, 2, 3))
        return torch.exp(-changes / 10), torch.ones(len(image)), torch.zeros(len(image), 4, 4)


def test_every_fixed_corruption_has_its_auc() -> None:
    found = robustness.after(Smoothness(), IMAGES, SYNTHETIC)
    assert list(found) == list(corruptions.FIXED)
    for name in ("noise_10", "jpeg_50"):
        corrupted = np.stack([corruptions.FIXED[name](image) for image in IMAGES])
        assert found[name] == area_under_curve(SYNTHETIC, detector.judge(Smoothness(), corrupted)[0])


def test_what_hides_the_traces_costs_the_detector_its_area() -> None:
    clean = area_under_curve(SYNTHETIC, detector.judge(Smoothness(), IMAGES)[0])
    lost = robustness.loss(clean, robustness.after(Smoothness(), IMAGES, SYNTHETIC))
    assert clean > 0.95
    assert lost["blur_2"] > 0.2 > 0.01 > abs(lost["gamma_1.4"])


def test_a_loss_is_positive_where_the_area_shrinks() -> None:
    assert robustness.loss(0.75, {"jpeg_75": 0.5, "blur_1.2": 1.0}) == {
        "jpeg_75": pytest.approx(0.25),
        "blur_1.2": pytest.approx(-0.25),
    }
