"""A generator as it is exported and served: latents in, pixels out."""

from torch import Tensor, nn

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
