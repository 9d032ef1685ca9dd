"""Feature spaces in which sets of images are compared.

A space is a feature function and a projection fitted on real training images: features are standardised,
compressed, reduced to at most 32 principal components, and scaled together so that the mean squared norm of
the training images' coordinates equals their number. The kernel of KID, (x.y / d + 1)^3, is then at its
natural scale in every space, and distances in several spaces can be averaged. The compression, arsinh, is
near to the identity within a standard deviation and logarithmic beyond: some features hardly deviate among
real images, and a generator that misses one by eighty deviations would else decide every average by its cube.

No single space sees everything: radiomics sees grain and grey levels, networks see shape. Two spaces need
no weights at all; one is learned from the training images; one is the usual one, where its weights are at hand.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec
from training import device, progress
from training.detectors.features import LUMINANCE, LocalBinaryPatterns, PowerSpectrum, ResidualStatistics
from training.pixels import tensor, to_signed_unit, to_unit

Features = Callable[[np.ndarray], np.ndarray]
"""uint8 [N, H, W, C] to float64 [N, count]."""

WEIGHT_FREE = ("radiomics", "random_network")
MOST_COORDINATES = 32
MOST_FITTED = 2000
"""A space is fitted on at most this many training images."""
LEAST_DEVIATION = 1e-5
"""A feature that deviates less over the training images, relative to 1 + |mean|, is left out: it is rounding noise."""
BATCH = 64

GREY_LEVELS = 16
DISTANCES = (1, 2, 4)
DETAIL = 128
"""Of larger images radiomics reads the central square of this side: grain does not survive shrinking."""

NETWORK_SIDE = 64
"""Networks see larger images shrunk to this side: they judge shape, radiomics judges grain."""
RANDOM_CHANNELS = (32, 64, 128, 256)

BOTTLENECK = 64
ENCODER_CHANNELS = (16, 32, 64, 64)
NOISE_DEVIATION = 0.1
"""Of the noise that the encoder learns to remove, in [-1, 1] units."""
LEARNING_RATE = 1e-3

INCEPTION_WEIGHTS = "inception_v3_google-0cc3c7bd.pth"
INCEPTION_SIDE = 299


@dataclass(frozen=True)
class Space:
    """A feature function with the projection fitted for it."""

    name: str
    features: Features
    mean: np.ndarray
    """Of each feature over the training images, float64 [count]."""
    deviation: np.ndarray
    """Of each feature over the training images, float64 [count]; infinite where the feature is left out."""
    projection: np.ndarray
    """Of compressed features, float64 [count, d]."""
    origin: np.ndarray
    """Projected mean of the training images, float64 [d]."""

    def coordinates(self, images: np.ndarray) -> np.ndarray:
        """Coordinates float64 [N, d], d at most 32, of uint8 images [N, H, W, C]."""
        compressed = np.arcsinh((self.features(images) - self.mean) / self.deviation)
        return np.asarray(compressed @ self.projection - self.origin)


def weight_free(train: np.ndarray) -> list[Space]:
    """The spaces named by `WEIGHT_FREE`, fitted on real training images uint8 [N, H, W, C].

    Raises:
        VerisynthError: when the training images do not differ.
    """
    return [
        fitted(WEIGHT_FREE[0], radiomics, train),
        fitted(WEIGHT_FREE[1], partial(network_features, RandomNetwork()), train),
    ]


def encoder(train: np.ndarray, images_shown: int, seed: int) -> Space:
    """The space `encoder`: the bottleneck of a denoising autoencoder (Vincent et al., ICML 2008).

    It is trained on `images_shown` of the real training images uint8 [N, H, W, C], repeats counted.

    Raises:
        VerisynthError: when the training images do not differ.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _trained_autoencoder(train, images_shown)
    return fitted("encoder", partial(network_features, network.encode), train)


def inception(train: np.ndarray) -> Space | None:
    """The space `inception`: the 2048 pooled features that FID and KID are quoted with.

    None unless torchvision is installed and its weights already lie in the folder `checkpoints` of torch.hub:
    nothing is downloaded. The projection makes the numbers comparable between our spaces, not with published ones.

    Raises:
        VerisynthError: when the training images do not differ.
    """
    weights = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS
    if importlib.util.find_spec("torchvision") is None or not weights.is_file():
        return None
    network = importlib.import_module("torchvision.models").inception_v3(weights=None, init_weights=False)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = nn.Identity()
    network.transform_input = False
    return fitted("inception", partial(network_features, InceptionInput(network)), train)


def fitted(name: str, features: Features, train: np.ndarray) -> Space:
    """A space whose projection is fitted on at most 2000 evenly spread training images uint8 [N, H, W, C].

    Raises:
        VerisynthError: when the training images do not differ.
    """
    matrix = features(train[evenly_spread(len(train), MOST_FITTED)])
    mean, deviation = matrix.mean(0), matrix.std(0)
    varied = deviation > LEAST_DEVIATION * (1 + np.abs(mean))
    if not varied.any():
        raise VerisynthError(f"the {len(train)} training images do not differ in {name}; add images that do")
    deviation[~varied] = np.inf
    compressed = np.arcsinh((matrix - mean) / deviation)
    dimensions = min(MOST_COORDINATES, len(matrix) - 1, int(varied.sum()))
    analysis = PCA(dimensions, svd_solver="full").fit(compressed)
    scale = np.sqrt(dimensions / (analysis.transform(compressed) ** 2).sum(1).mean())
    projection = scale * analysis.components_.T
    return Space(name, features, mean, deviation, projection, analysis.mean_ @ projection)


def evenly_spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the row numbers 0 to count - 1, int64, rising, from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def radiomics(images: np.ndarray) -> np.ndarray:
    """Features float64 [N, count] of uint8 images [N, H, W, C]: grey levels, co-occurrence, residuals, patterns, power.

    Grey levels and residuals are those of every channel; the rest reads luminance.
    """
    return np.concatenate([_radiomics(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


@torch.inference_mode()
def _radiomics(images: np.ndarray) -> np.ndarray:
    side = min(DETAIL, images.shape[1])
    margin = (images.shape[1] - side) // 2
    detail = images[:, margin : margin + side, margin : margin + side]
    grey = luminance(detail)
    spec = ImageSpec(side, images.shape[3])
    colours, greys = to_unit(tensor(detail)), to_unit(tensor(grey[..., None]))
    return np.concatenate(
        [
            first_order(images),
            co_occurrence(grey),
            ResidualStatistics(spec.channels)(colours).double().numpy(),
            LocalBinaryPatterns(1)(greys).double().numpy(),
            PowerSpectrum(spec)(colours).double().numpy(),
        ],
        axis=1,
    )


def luminance(images: np.ndarray) -> np.ndarray:
    """ITU-R 601 luminance uint8 [N, H, W] of uint8 images [N, H, W, C]."""
    if images.shape[3] == 1:
        return np.asarray(images[..., 0])
    return np.rint(images.astype(np.float32) @ np.array(LUMINANCE, dtype=np.float32)).astype(np.uint8)


def first_order(images: np.ndarray) -> np.ndarray:
    """Statistics of each channel's grey levels, float64 [N, C * 14], of uint8 images [N, H, W, C].

    Mean, standard deviation, skewness, kurtosis, entropy in bits, and the nine deciles (inverse of the
    distribution function). In the third and fourth moments a deviation below one grey level counts as one.
    """
    count, height, width, channels = images.shape
    histograms = _counts(images.transpose(0, 3, 1, 2).reshape(count * channels, -1), 256)
    shares, levels = histograms / (height * width), np.arange(256)
    mean = shares @ levels
    difference = levels - mean[:, None]
    deviation = np.sqrt((shares * difference**2).sum(1))
    standardised = difference / np.maximum(deviation, 1)[:, None]
    # In integers, so that no rounding decides where a decile falls.
    reached = histograms.cumsum(1)[:, None] * 10 >= np.arange(1, 10)[None, :, None] * height * width
    statistics = [
        mean,
        deviation,
        (shares * standardised**3).sum(1),
        (shares * standardised**4).sum(1),
        _entropy(shares),
    ]
    return np.concatenate([np.stack(statistics, 1), reached.argmax(2)], axis=1).reshape(count, -1)


def co_occurrence(grey: np.ndarray) -> np.ndarray:
    """Texture after Haralick et al. (IEEE SMC, 1973), float64 [N, 15], of luminance uint8 [N, H, W].

    Of the symmetric co-occurrence matrix of 16 grey levels, right and down neighbours together, at distances of
    1, 2 and 4 pixels: contrast, homogeneity, energy, correlation (0 for constant images), entropy in bits.
    """
    levels = (grey // (256 // GREY_LEVELS)).astype(np.int64)
    one, other = np.divmod(np.arange(GREY_LEVELS**2), GREY_LEVELS)
    features = []
    for distance in DISTANCES:
        across = levels[:, :, :-distance] * GREY_LEVELS + levels[:, :, distance:]
        down = levels[:, :-distance] * GREY_LEVELS + levels[:, distance:]
        pairs = np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], axis=1)
        matrices = _counts(pairs, GREY_LEVELS**2).reshape(-1, GREY_LEVELS, GREY_LEVELS)
        shares = ((matrices + matrices.transpose(0, 2, 1)) / (2 * pairs.shape[1])).reshape(len(grey), -1)
        mean = shares @ one
        variance = shares @ one**2 - mean**2
        covariance = shares @ (one * other) - mean**2
        # A variance of rounding noise is that of a single level.
        single = variance < 1e-9
        features += [
            shares @ (one - other) ** 2,
            shares @ (1 / (1 + (one - other) ** 2)),
            np.sqrt((shares**2).sum(1)),
            np.where(single, 0, covariance / np.where(single, 1, variance)),
            _entropy(shares),
        ]
    return np.stack(features, axis=1)


def _counts(values: np.ndarray, levels: int) -> np.ndarray:
    """How often each of 0 to levels - 1 occurs in each row of [N, M], int64 [N, levels]."""
    numbered = values + np.arange(len(values))[:, None] * levels
    return np.bincount(numbered.ravel(), minlength=len(values) * levels).reshape(len(values), levels)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Shannon entropy in bits of each row of [N, M]."""
    return np.asarray(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(1))


@torch.inference_mode()
def network_features(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Features float64 [N, count] of uint8 images [N, H, W, C]; the network sees float [N, C, H, W] in [-1, 1]."""
    network.eval()
    rows = [
        network(to_signed_unit(tensor(images[start : start + BATCH]))).double()
        for start in range(0, len(images), BATCH)
    ]
    return torch.cat(rows).numpy()


def _shrunk(images: Tensor) -> Tensor:
    """Images [N, C, H, W] with a side of at most `NETWORK_SIDE`."""
    return F.adaptive_avg_pool2d(images, NETWORK_SIDE) if images.shape[2] > NETWORK_SIDE else images


class RandomNetwork(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to features [N, 480]: channel means after each of four random layers.

    Frozen at random: no weights to download, and rankings close to those of trained networks
    (Lee et al., arXiv 2208.09218).
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            widths = (3, *RANDOM_CHANNELS)
            self.layers = nn.ModuleList(
                nn.Conv2d(widths[index], widths[index + 1], 5 if index == 0 else 3, stride=2, padding=1)
                for index in range(len(RANDOM_CHANNELS))
            )
            for layer in self.layers:
                assert isinstance(layer, nn.Conv2d)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="leaky_relu", a=0.2)

    def forward(self, images: Tensor) -> Tensor:
        images = _shrunk(images).expand(-1, 3, -1, -1)
        means = []
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
            means.append(images.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


class InceptionInput(nn.Module):
    """Images float [N, C, H, W] in [-1, 1], the range Inception was trained on, in its size and with three channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        colours = images.expand(-1, 3, -1, -1)
        features: Tensor = self.network(F.interpolate(colours, (INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear"))
        return features


class Encoder(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to features [N, 64]."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in ENCODER_CHANNELS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        cells = (side // 2 ** len(ENCODER_CHANNELS)) ** 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * cells, BOTTLENECK))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(_shrunk(images))
        return features


class Autoencoder(nn.Module):
    """Images float [N, C, side, side] in [-1, 1] to their like, through 64 numbers."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.encode = Encoder(channels, side)
        cells = side // 2 ** len(ENCODER_CHANNELS)
        layers: list[nn.Module] = []
        widths = (*reversed(ENCODER_CHANNELS), channels)
        for index, width in enumerate(widths[:-1]):
            layers += [nn.LeakyReLU(0.2), nn.ConvTranspose2d(width, widths[index + 1], 4, stride=2, padding=1)]
        self.decode = nn.Sequential(
            nn.Linear(BOTTLENECK, widths[0] * cells**2), nn.Unflatten(1, (widths[0], cells, cells)), *layers
        )

    def forward(self, images: Tensor) -> Tensor:
        restored: Tensor = self.decode(self.encode(images))
        return restored


def _trained_autoencoder(train: np.ndarray, images_shown: int) -> Autoencoder:
    target = device.choose()
    network = Autoencoder(train.shape[3], min(NETWORK_SIDE, train.shape[1])).to(target)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    with progress.bar(images_shown, "training the encoder space", "images") as bar:
        for _ in range(-(-images_shown // BATCH)):
            rows = torch.randint(len(train), (BATCH,)).numpy()
            images = _shrunk(to_signed_unit(tensor(train[rows])))
            noisy = images + NOISE_DEVIATION * torch.randn_like(images)
            loss = F.mse_loss(network(noisy.to(target)), images.to(target))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            bar.update(BATCH)
    return network.cpu()
