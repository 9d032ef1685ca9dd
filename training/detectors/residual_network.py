"""A small convolutional network that sees only high-pass residuals: content cannot be learned, traces can."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training import device, progress
from training.detectors.features import Residuals
from training.detectors.linear_evidence import as_input
from training.params import TrainDetector

RESIDUAL_GAIN = 10.0
"""Brings residuals, a few hundredths of the grey range, to the order of one."""
LABEL_SMOOTHING = 0.05


class ResidualNetwork(nn.Module):
    """Images float [N, C, H, W] in [0, 1] to log-odds of being synthetic [N] and their heatmap [N, h, w].

    The log-odds are the mean of the heatmap plus a constant (class activation map, Zhou et al., CVPR 2016),
    so the map is an exact share-out of the decision.
    """

    def __init__(self, image: ImageSpec, width: int) -> None:
        super().__init__()
        self.residuals = Residuals(image.channels)
        channels = [self.residuals.count, width, width * 2, width * 4, width * 4]
        layers: list[nn.Module] = []
        for index, (narrow, wide) in enumerate(itertools.pairwise(channels)):
            layers += [
                nn.Conv2d(narrow, wide, 3, stride=1 if index == 0 else 2, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.evidence = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        evidence = self.evidence(self.layers((self.residuals(images) * RESIDUAL_GAIN).clamp(-3, 3)))[:, 0]
        return evidence.mean(dim=(1, 2)), evidence


def fit(
    images: np.ndarray, synthetic: np.ndarray, spec: ImageSpec, settings: TrainDetector, name: str
) -> ResidualNetwork:
    """Train on uint8 images [N, H, W, C] and targets bool [N], with random flips; both classes weigh the same."""
    target = device.choose()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = ResidualNetwork(spec, settings.width)
    model.to(target).train()
    batch_size = min(settings.batch_size, len(images))
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=1e-2)
    steps = settings.epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate * 3, total_steps=steps)
    stream = torch.Generator().manual_seed(settings.seed)
    wanted = torch.from_numpy(synthetic).float() * (1 - 2 * LABEL_SMOOTHING) + LABEL_SMOOTHING
    share = float(synthetic.mean())
    weights = torch.from_numpy(np.where(synthetic, 0.5 / share, 0.5 / (1 - share))).float()
    with progress.bar(steps * batch_size, f"training residual network of {name}", "images") as bar:
        for _ in range(settings.epochs):
            shuffled = torch.randperm(len(images), generator=stream)
            for step in range(len(images) // batch_size):
                rows = shuffled[step * batch_size : (step + 1) * batch_size]
                batch = as_input(images[rows.numpy()])
                for axis in (2, 3):
                    if torch.rand((), generator=stream) < 0.5:
                        batch = batch.flip(axis)
                logits, _ = model(batch.to(target))
                loss = F.binary_cross_entropy_with_logits(
                    logits, wanted[rows].to(target), weight=weights[rows].to(target)
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                bar.update(batch_size)
    return model.cpu().eval()
