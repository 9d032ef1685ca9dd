"""How close generated images come to real ones as a set: the Kernel Inception Distance, without Inception.

KID (Binkowski et al., ICLR 2018) is the squared maximum mean discrepancy with the kernel
(x.y / d + 1)^3. It is unbiased, so it can be used on a few hundred images, where FID cannot.
Features come from a frozen random convolutional network: no weights to download, and rankings
close to those of trained networks (Lee et al., arXiv 2208.09218). Every number names its space.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.pixels import tensor, to_signed_unit

SPACE = "random_network"
CHANNELS = (32, 64, 128, 256)
BATCH = 128


@dataclass(frozen=True)
class Estimate:
    """The mean and the standard deviation over subsets, as KID is usually quoted."""

    value: float
    standard_deviation: float


class RandomNetwork(nn.Module):
    """Images float [N, 3, H, W] in [-1, 1] to features [N, 480]: channel means after each of four random layers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            widths = (3, *CHANNELS)
            self.layers = nn.ModuleList(
                nn.Conv2d(widths[index], widths[index + 1], 5 if index == 0 else 3, stride=2, padding=1)
                for index in range(len(CHANNELS))
            )
            for layer in self.layers:
                assert isinstance(layer, nn.Conv2d)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="leaky_relu", a=0.2)

    def forward(self, images: Tensor) -> Tensor:
        means = []
        for layer in self.layers:
            images = nn.functional.leaky_relu(layer(images), 0.2)
            means.append(images.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


@torch.inference_mode()
def features(images: np.ndarray) -> np.ndarray:
    """Features float64 [N, 480] of uint8 images [N, H, W, C]."""
    network = RandomNetwork().eval()
    rows = []
    for start in range(0, len(images), BATCH):
        batch = to_signed_unit(tensor(images[start : start + BATCH]))
        rows.append(network(batch.expand(-1, 3, -1, -1)))
    return torch.cat(rows).double().numpy()


def standardised(reference: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """All feature matrices in units of the reference's mean and standard deviation per feature."""
    mean, deviation = reference.mean(0), reference.std(0) + 1e-9
    return [(matrix - mean) / deviation for matrix in (reference, *others)]


def squared_discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of features [N, D] and [M, D] under the cubic kernel."""
    size = one.shape[1]
    within_one, within_other = (one @ one.T / size + 1) ** 3, (other @ other.T / size + 1) ** 3
    between = (one @ other.T / size + 1) ** 3
    n, m = len(one), len(other)
    return float(
        (within_one.sum() - np.trace(within_one)) / (n * (n - 1))
        + (within_other.sum() - np.trace(within_other)) / (m * (m - 1))
        - 2 * between.mean()
    )


def kernel_distance(one: np.ndarray, other: np.ndarray, subsets: int, subset_size: int, seed: int) -> Estimate:
    """KID over random subsets of both sets, float [N, D] and [M, D].

    The deviation is that of one subset's estimate. It is no confidence interval: the subsets overlap.
    """
    random = np.random.default_rng(seed)
    size = min(subset_size, len(one), len(other))
    draws = [
        squared_discrepancy(
            one[random.choice(len(one), size, replace=False)], other[random.choice(len(other), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    return Estimate(float(np.mean(draws)), float(np.std(draws)))
