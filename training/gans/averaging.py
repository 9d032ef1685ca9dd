"""The exponential moving average of a generator's weights, with batch-norm statistics computed anew.

Averaged weights need statistics of their own: copying the raw generator's running statistics
makes samples worse than not averaging at all.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(generator: nn.Module, halflife_images: int, batch_size: int) -> AveragedModel:
    """A moving average that forgets half of its past after `halflife_images` training images."""
    decay = 0.5 ** (batch_size / halflife_images)
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


@torch.no_grad()
def renormalise(generator: nn.Module, inputs: Iterable[tuple[Tensor | None, ...]]) -> nn.Module:
    """Set every batch norm's statistics to the mean over `inputs`; leaves the generator in evaluation mode.

    Like `torch.optim.swa_utils.update_bn`, for networks of several inputs.
    """
    norms = [module for module in generator.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    generator.train()
    for batch in inputs:
        generator(*batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return generator.eval()
