"""A generator as it is exported and served: latents in, pixels out."""

import torch
from torch import Tensor, nn

from training.gans.geometry import LARGEST_OUTSIDE
from training.pixels import quantise


class GeneratorGraph(nn.Module):
    """latent float32 [N, Z], and label int64 [N] of a conditional generator, to image uint8 [N, H, W, C].

    The generator with the one quantiser behind it.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        inputs = (latent,) if label is None else (latent, label)
        return quantise(self.generator(*inputs).permute(0, 2, 3, 1))


class PainterGraph(nn.Module):
    """mask uint8 [N, H, W], not zero inside, and noise float32 [N, Z] to image uint8 [N, H, W, C]."""

    def __init__(self, painter: nn.Module) -> None:
        super().__init__()
        self.painter = painter

    def forward(self, mask: Tensor, noise: Tensor) -> Tensor:
        signed = torch.where(mask > 0, 1.0, -1.0)[:, None]
        return quantise(self.painter(signed, noise).permute(0, 2, 3, 1))


class PairGraph(nn.Module):
    """latent float32 [N, Z] to image uint8 [N, H, W, C] and mask uint8 [N, H, W] of 0 and 255."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        drawn = quantise(self.generator(latent).permute(0, 2, 3, 1))
        inside = drawn[..., -1] > LARGEST_OUTSIDE
        return drawn[..., :-1], torch.where(inside, 255, 0).to(torch.uint8)
