import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.detectors import detector
from training.detectors.calibration import Calibration
from training.detectors.typicality import Typicality
from training.evaluation import control

LEVELS = np.arange(256, dtype=np.uint8).repeat(12).reshape(3, 32, 32, 1)
SPEC = ImageSpec(32, 1)


@pytest.fixture
def model() -> nn.Module:
    scorer = detector.scorer("residual_network", SPEC, width=4)
    return detector.Detector(scorer, Typicality(SPEC), Calibration(1, 0)).eval()


def test_every_grey_level_survives_the_generators_path(model: nn.Module) -> None:
    assert control.check(model, LEVELS) == {"changed_pixels": 0, "largest_score_difference": 0}


def test_a_head_with_another_scale_is_found(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind of fingerprint that makes detectors look perfect."""

    class AnotherScale(nn.Module):
        def __init__(self, generator: nn.Module) -> None:
            super().__init__()

        def forward(self, images: Tensor) -> Tensor:
            return (images * 127 + 128).permute(0, 2, 3, 1).to(torch.uint8)

    monkeypatch.setattr(control, "GeneratorGraph", AnotherScale)
    with pytest.raises(control.ControlError, match="pixels of real test images change on the generator's path"):
        control.check(model, LEVELS)
