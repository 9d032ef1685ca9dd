"""Cheap forgeries: real images with traces of synthesis put into them, so that a detector sees more than one generator.

Every function maps real images uint8 [N, H, W, C] to as many forged ones. None is plain resizing, JPEG or blur: a
detector that learns those would call any processed photograph synthetic.

- `autoencoded_transposed`, `autoencoded_resized`: through a small autoencoder whose decoder enlarges by transposed
  convolutions or by nearest neighbours, after AutoGAN (Zhang, Karaman, Chang, WIFS 2019, arXiv 1907.06515).
- `gridded`: every second row and column a little brighter or darker, as kernels that overlap unevenly leave it.
- `respectred`: the upper half of the spectrum raised or lowered, as generators miss it (Durall et al., CVPR 2020).
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import device, progress
from training.pixels import quantise, tensor, to_signed_unit

BATCH = 64
WIDTH = 16
LEARNING_RATE = 2e-3
GRID_GAIN = 0.06
"""Largest change of contrast of a phase of the grid."""
SPECTRUM_GAIN = 1.5
"""Largest change of the highest frequencies' logarithmic magnitude."""

Forgery = Callable[[np.ndarray, int], np.ndarray]
"""Of images uint8 [N, H, W, C] and a seed."""


class Autoencoder(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to their like, through a quarter of the side."""

    def __init__(self, channels: int, transposed: bool) -> None:
        super().__init__()

        def enlarge(narrow: int, wide: int) -> list[nn.Module]:
            if transposed:
                return [nn.ConvTranspose2d(narrow, wide, 4, stride=2, padding=1)]
            return [nn.Upsample(scale_factor=2), nn.Conv2d(narrow, wide, 3, padding=1)]

        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            *enlarge(2 * WIDTH, WIDTH),
            nn.ReLU(inplace=True),
            *enlarge(WIDTH, channels),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        restored: Tensor = self.layers(images)
        return restored


def autoencoder(train: np.ndarray, transposed: bool, images_shown: int, seed: int) -> Autoencoder:
    """Train on real images uint8 [N, H, W, C], `images_shown` of them, repeats counted."""
    random = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Autoencoder(train.shape[3], transposed)
    target = device.choose()
    network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    kind = "transposed" if transposed else "resized"
    with progress.bar(images_shown, f"training the forging autoencoder ({kind})", "images") as bar:
        for _ in range(-(-images_shown // BATCH)):
            images = _signed(train[np.sort(random.integers(len(train), size=BATCH))]).to(target)
            loss = F.l1_loss(network(images), images)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            bar.update(BATCH)
    return network.cpu().eval()


def autoencoded(network: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] as the autoencoder restores them."""
    with torch.inference_mode():
        parts = [network(_signed(images[start : start + BATCH])) for start in range(0, len(images), BATCH)]
    return _levels(torch.cat(parts))


def gridded(images: np.ndarray, seed: int) -> np.ndarray:
    """Each phase of a grid of two or four pixels, each channel apart, with a contrast and an offset of its own."""
    stream = torch.Generator().manual_seed(seed)
    pixels = _signed(images)
    count, channels, height, width = pixels.shape
    forged = torch.empty_like(pixels)
    for row in range(count):
        period = 2 if torch.rand((), generator=stream) < 0.5 else 4
        strength = GRID_GAIN * (0.2 + 0.8 * torch.rand((), generator=stream))
        gain, offset = (torch.rand(2, channels, period, period, generator=stream) * 2 - 1) * strength
        tiles = (1, height // period, width // period)
        forged[row] = pixels[row] * (1 + gain.repeat(tiles)) + offset.repeat(tiles) / 2
    return _levels(forged)


def respectred(images: np.ndarray, seed: int) -> np.ndarray:
    """Frequencies above a random half of the highest one raised or lowered, the more the higher."""
    stream = torch.Generator().manual_seed(seed)
    pixels = _signed(images)
    count, _, height, width = pixels.shape
    radius = torch.sqrt(torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None, :] ** 2) / 0.5
    start = 0.3 + 0.4 * torch.rand(count, 1, 1, 1, generator=stream)
    sign = (torch.rand(count, 1, 1, 1, generator=stream) < 0.5).float() * 2 - 1
    strength = sign * SPECTRUM_GAIN * (0.3 + 0.7 * torch.rand(count, 1, 1, 1, generator=stream))
    gain = torch.exp(strength * ((radius - start) / (1 - start)).clamp(0, 1))
    return _levels(torch.fft.irfft2(torch.fft.rfft2(pixels) * gain, s=(height, width)))


def forgers(train: np.ndarray, images_shown: int, seed: int) -> dict[str, Forgery]:
    """All forgeries by name; the autoencoders are trained on real images uint8 [N, H, W, C]."""
    networks = {
        f"autoencoded_{kind}": autoencoder(train, kind == "transposed", images_shown, seed)
        for kind in ("transposed", "resized")
    }

    def through(network: Autoencoder) -> Forgery:
        return lambda images, seed: autoencoded(network, images)  # noqa: ARG005 - it draws nothing

    return {name: through(network) for name, network in networks.items()} | {
        "gridded": gridded,
        "respectred": respectred,
    }


def _signed(images: np.ndarray) -> Tensor:
    return to_signed_unit(tensor(images)).contiguous(memory_format=torch.channels_last)


def _levels(pixels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(quantise(pixels).permute(0, 2, 3, 1).numpy())
