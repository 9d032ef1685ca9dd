"""The exponential moving average of a generator's weights, with batch-norm statistics computed anew.

Averaged weights need statistics of their own: copying the raw generator's running statistics
makes samples worse than not averaging at all.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

NORMALISATION_BATCHES = 24
NORMALISATION_BATCH_SIZE = 64


def averaged(generator: nn.Module, halflife_images: int, batch_size: int) -> AveragedModel:
    """A moving average that forgets half of its past after `halflife_images` training images."""
    decay = 0.5 ** (batch_size / halflife_images)
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


@torch.no_grad()
def renormalise(average: AveragedModel, latent_size: int) -> nn.Module:
    """The averaged generator in evaluation mode, its batch-norm statistics estimated on fixed noise."""
    parameter = next(average.parameters())
    noise = torch.Generator().manual_seed(0)

    def batch() -> Tensor:
        return torch.randn(NORMALISATION_BATCH_SIZE, latent_size, generator=noise).to(parameter.device)

    average.train()
    update_bn((batch() for _ in range(NORMALISATION_BATCHES)), average)
    module: nn.Module = average.module
    return module.eval()
