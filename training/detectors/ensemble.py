"""Both detectors as one: the mean of what they say, each counted from where it puts real images.

What blur or JPEG takes from one of them is not what it takes from the other, and a generator that is new to both
seldom deceives both.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.detectors.calibration import Scale


class Ensemble(nn.Module):
    """Images float [N, C, H, W] in [0, 1] to log-odds of being synthetic [N] and their heatmap [N, h, w].

    Log-odds are in standard deviations of the members' own log-odds of real images, and so are the heatmaps.
    """

    means: Tensor
    deviations: Tensor

    def __init__(self, members: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict(members)
        self.register_buffer("means", torch.zeros(len(members)))
        self.register_buffer("deviations", torch.ones(len(members)))

    @staticmethod
    def of(members: Mapping[str, nn.Module], scales: Mapping[str, Scale]) -> "Ensemble":
        """Trained members, and where each puts held-out real images."""
        ensemble = Ensemble(members)
        ensemble.means = torch.tensor([scales[name].mean for name in members])
        ensemble.deviations = torch.tensor([scales[name].deviation for name in members])
        return ensemble.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = [member(images) for member in self.members.values()]
        logits = torch.stack([logits for logits, _ in found], dim=1)
        heat = torch.stack([heatmap for _, heatmap in found], dim=1)
        scaled = ((logits - self.means) / self.deviations).mean(dim=1)
        return scaled, (heat / self.deviations[:, None, None]).mean(dim=1)
