"""Random changes of images before the discriminator, differentiable, with a probability that adapts.

The changes keep medical content plausible: a shift by up to an eighth of the side (borders mirrored), brightness,
contrast, a grey square of a quarter of the side. No turns, no colours.

Besides, every image always moves by up to two pixels: the strides of a discriminator that stand on the same pixels all
the time let the generator draw their grid.
"""

import torch
from torch import Tensor, nn

LARGEST_SHIFT = 1 / 8
CUTOUT_SIDE = 1 / 4
JITTER_PIXELS = 2
BRIGHTNESS = 0.2
"""In units of the images' range [-1, 1]."""
CONTRAST = 0.25
TARGET = 0.6
"""Of the mean sign of the discriminator's logits on real images: the paper's r_t."""
MEMORY = 0.9
"""Share of the mean sign that is kept from one step to the next; a batch alone is too noisy."""


class AdaptiveAugmentation(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to changed ones; every change hits each image with `probability`.

    The jitter of two pixels hits all.
    """

    probability: Tensor
    real_sign: Tensor

    def __init__(self, ramp_images: int, limit: float) -> None:
        super().__init__()
        self.ramp_images, self.limit = ramp_images, limit
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("real_sign", torch.tensor(TARGET))

    def forward(self, images: Tensor, stream: torch.Generator) -> Tensor:
        draws = torch.rand(12, len(images), generator=stream, device=images.device)
        chosen = (draws[:4] < self.probability).to(images.dtype)
        signed = draws[4:] * 2 - 1
        jitter = (draws[10:] * (2 * JITTER_PIXELS + 1)).floor() - JITTER_PIXELS
        down, across = signed[:2] * chosen[0] * LARGEST_SHIFT * images.shape[2] + jitter
        images = shifted(images, down.round().long(), across.round().long())
        images = images + _per_image(signed[2] * chosen[1] * BRIGHTNESS)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * _per_image(1 + signed[3] * chosen[2] * CONTRAST) + mean
        return images * _per_image_mask(images.shape[2], draws[8], draws[9], chosen[3])

    @torch.no_grad()
    def adapt(self, real_sign: Tensor, images: int) -> None:
        """Towards the target by `images` real images that the discriminator judged with this mean sign."""
        self.real_sign.mul_(MEMORY).add_(real_sign.float(), alpha=1 - MEMORY)
        step = torch.sign(self.real_sign - TARGET) * (images / self.ramp_images)
        self.probability.add_(step).clamp_(0, self.limit)


def shifted(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images [N, C, H, W] moved by `down` and `across` pixels, int64 [N], borders mirrored.

    As products with matrices of zeros and ones: unlike a gather's, its gradient is deterministic on a GPU.
    """
    rows, columns = (_shift_matrix(shift, images.shape[2]) for shift in (down, across))
    moved: Tensor = rows[:, None].to(images.dtype) @ images @ columns[:, None].to(images.dtype).transpose(2, 3)
    return moved.contiguous(memory_format=torch.channels_last)


def _shift_matrix(shift: Tensor, side: int) -> Tensor:
    """[N, side, side]: row i has its one where pixel i comes from."""
    position = torch.arange(side, device=shift.device)
    source = (position - shift[:, None]).abs()
    source = torch.where(source >= side, 2 * (side - 1) - source, source)
    return (source[:, :, None] == position).float()


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _per_image_mask(side: int, top: Tensor, left: Tensor, chosen: Tensor) -> Tensor:
    """[N, 1, side, side]: 0 in the square that is cut out of the chosen images, 1 elsewhere."""
    position = torch.arange(side, device=top.device)
    length = int(side * CUTOUT_SIDE)

    def inside(start: Tensor) -> Tensor:
        offset = position - (start * (side - length + 1)).floor()[:, None]
        return ((offset >= 0) & (offset < length)).to(chosen.dtype)

    square = inside(top)[:, None, :, None] * inside(left)[:, None, None, :]
    return 1 - square * _per_image(chosen)
