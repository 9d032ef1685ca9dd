"""What iteration i of a training sees: real images, labels, latents, and a random stream, all functions of (seed, i).

So a checkpoint needs no random state: a run that was stopped and goes on arrives at the weights of an unbroken one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.params import FLIPS
from training.pixels import to_signed_unit


@dataclass(frozen=True)
class Batch:
    """`real` float [N, C, H, W] in [-1, 1]; `label` int64 [N] or None; `latent` float [N, latent_size]."""

    real: Tensor
    label: Tensor | None
    latent: Tensor
    stream: torch.Generator


class BatchOrder:
    """Which training images iteration i shows: every epoch a fresh permutation, all of it a function of (seed, i)."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def __call__(self, iteration: int) -> np.ndarray:
        """Row numbers int64 [batch_size]."""
        positions = np.arange(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        rows = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(positions // self.count):
            of_epoch = positions // self.count == epoch
            rows[of_epoch] = self._of(int(epoch))[positions[of_epoch] % self.count]
        return rows

    def _of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return self._permutation


class Batches:
    """The batches of a training. With several processes each takes every `processes`-th image of the same batch."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        batch_size: int,
        latent_size: int,
        flips: list[str],
        seed: int,
        device: torch.device,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.order = BatchOrder(len(images), batch_size, seed)
        self.pixels = _on_device(images, device)
        self.labels = labels
        self.latent_size, self.flips, self.seed = latent_size, flips, seed
        self.device, self.process, self.processes = device, process, processes

    def __call__(self, iteration: int) -> Batch:
        """The batch of one iteration, or this process's share of it."""
        stream = torch.Generator(self.device).manual_seed(_stream_seed(self.seed, iteration))
        share = slice(self.process, None, self.processes)
        rows = self.order(iteration)
        latent = torch.randn(len(rows), self.latent_size, generator=stream, device=self.device)[share]
        flipped = torch.rand(len(FLIPS), len(rows), generator=stream, device=self.device)[:, share] < 0.5
        label = None if self.labels is None else torch.from_numpy(self.labels[rows[share]]).to(self.device)
        if self.processes > 1:
            stream.manual_seed(_stream_seed(self.seed, iteration, self.process + 1))
        return Batch(self._real(rows[share], flipped), label, latent, stream)

    def _real(self, rows: np.ndarray, flipped: Tensor) -> Tensor:
        chosen = self.pixels[rows]
        levels = torch.from_numpy(chosen) if isinstance(chosen, np.ndarray) else chosen
        real = to_signed_unit(levels.to(self.device).permute(0, 3, 1, 2))
        for flip in self.flips:
            axis = 3 if flip == "horizontal" else 2
            real = torch.where(flipped[FLIPS.index(flip), :, None, None, None], real.flip(axis), real)
        return real.contiguous(memory_format=torch.channels_last)


def _on_device(images: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """Images on the GPU where they fit, memory-mapped otherwise."""
    if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] // 4:
        return torch.from_numpy(np.array(images)).to(device)
    return images


def _stream_seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
