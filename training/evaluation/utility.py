"""What synthetic labelled images are worth: a classifier trained on real, synthetic and both kinds, tested on real.

Train on synthetic, test on real (Esteban et al., arXiv 1706.02633), as classification accuracy (Ravuri and Vinyals,
NeurIPS 2019). All classifiers see the same number of images, so that synthetic ones must earn the place they take, and
no weights are chosen on held-out images.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.errors import VerisynthError
from training import device, progress
from training.params import Utility
from training.pixels import tensor, to_signed_unit

CONFIDENCE = 0.95
BATCH = 256
ROUNDING = 1e-9
"""Gains smaller than this are rounding errors of equal numbers."""

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of (labels int64 [N], probabilities float [N, K], how often each image counts [R, N]): float [R]."""


class UtilityError(VerisynthError):
    """Labelled images on which no classifier can be trained or tested."""


@dataclass(frozen=True)
class Labelled:
    """Images, a memory map perhaps, each of a known class."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    labels: np.ndarray
    """int64 [N], from 0 on."""


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the classes of the share of their images that are recognised (Brodersen et al., ICPR 2010).

    A class that does not count in a row of `counts` is left out of that row's mean.
    """
    recognised = probabilities.argmax(axis=1) == labels
    with np.errstate(invalid="ignore"):
        recalls = [
            counts[:, inside] @ recognised[inside] / counts[:, inside].sum(axis=1)
            for inside in (labels == label for label in np.unique(labels))
        ]
    return np.asarray(np.nanmean(recalls, axis=0))


def area_under_curve(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the classes of the area under the ROC curve of a class against the rest (macro one-vs-rest).

    The area is the share of pairs of an image of the class and another that are in the right order, ties counting half
    (Hanley and McNeil, Radiology 143, 1982). A class that does not count in a row of `counts` is left out of its mean.
    """
    areas = []
    for label in np.unique(labels):
        order = np.argsort(probabilities[:, label], kind="stable")
        ties = np.unique(probabilities[order, label], return_index=True)[1]
        sorted_counts, positive = counts[:, order], labels[order] == label
        positives = np.add.reduceat(sorted_counts * positive, ties, axis=1)
        negatives = np.add.reduceat(sorted_counts * ~positive, ties, axis=1)
        below = negatives.cumsum(axis=1) - negatives / 2
        with np.errstate(invalid="ignore"):
            areas.append((positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1)))
    return np.asarray(np.nanmean(areas, axis=0))


METRICS: dict[str, Metric] = {"balanced_accuracy": balanced_accuracy, "auc": area_under_curve}


def measure(
    train: Labelled,
    synthetic: Labelled,
    test: Labelled,
    test_groups: np.ndarray,
    classes: int,
    flips: list[str],
    settings: Utility,
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """Train on each mixture with several seeds, test on held-out real images, and say whether synthetic ones help.

    Each number is a mean over the seeds with the bounds `low` and `high` of its 95 % percentile bootstrap interval over
    `rounds` resamples of seeds and of the groups str [N] that test images belong to, so that what is not independent
    counts together. The gain of synthetic images is taken within each seed and resample; it `helps` or `hurts` where
    its interval excludes 0.

    Raises:
        UtilityError: for images of fewer than two classes, or a single seed.
    """
    assert len(test_groups) == len(test.labels)
    for name, images in (("real training", train), ("synthetic", synthetic), ("real test", test)):
        _check(name, images, classes)
    mixtures = {"real": [train], "real_and_synthetic": [train, synthetic], "synthetic": [synthetic]}
    random = np.random.default_rng(seed)
    resamples = resampled_groups(test_groups, test.labels, rounds, random)
    counts = np.concatenate([np.ones((1, len(test.labels))), resamples])
    seed_shares = resampled_seeds(settings.seeds, rounds, random)
    numbers: dict[str, dict[str, np.ndarray]] = {}
    with progress.bar(len(mixtures) * settings.seeds, "training classifiers", "classifiers") as bar:
        for mixture, sources in mixtures.items():
            rows: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
            for one_seed in range(seed, seed + settings.seeds):
                model = fit(sources, classes, flips, settings, one_seed)
                probabilities = predict(model, test.images)
                for name, metric in METRICS.items():
                    rows[name].append(metric(test.labels, probabilities, counts))
                bar.update()
            numbers[mixture] = {name: np.stack(values) for name, values in rows.items()}
    gains = {name: numbers["real_and_synthetic"][name] - numbers["real"][name] for name in METRICS}
    return {
        "classifier": asdict(settings) | {"flips": flips},
        "test_images": len(test.labels),
        "test_groups": len(np.unique(test_groups)),
        "mixtures": {
            mixture: {name: _estimate(values, seed_shares) | _extremes(values) for name, values in metrics.items()}
            for mixture, metrics in numbers.items()
        },
        "gain_of_synthetic": {name: _gain(values, seed_shares) for name, values in gains.items()},
    }


def fit(sources: list[Labelled], classes: int, flips: list[str], settings: Utility, seed: int) -> nn.Module:
    """Train a classifier on batches shared evenly by the sources, and within each by the classes it has.

    Rare classes so count as much as frequent ones. The learning rate falls from its setting to 0 along a cosine.
    """
    target = device.choose()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _network(sources[0].images.shape[3], settings.width, classes)
    model.to(target).train()
    optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate)
    steps = math.ceil(settings.images / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    stream = torch.Generator().manual_seed(seed)
    shares = [len(part) for part in np.array_split(np.arange(settings.batch_size), len(sources))]
    weights = [_even_weights(source.labels) for source in sources]
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for _ in range(steps):
            images, labels = [], []
            for source, weight, share in zip(sources, weights, shares, strict=True):
                rows = torch.multinomial(weight, share, replacement=True, generator=stream).numpy()
                images.append(source.images[rows])
                labels.append(source.labels[rows])
            batch = _flipped(to_signed_unit(tensor(np.concatenate(images))), flips, stream)
            wanted = torch.from_numpy(np.concatenate(labels))
            loss = F.cross_entropy(model(batch.to(target)), wanted.to(target))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.cpu().eval()


@torch.inference_mode()
def predict(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Class probabilities float64 [N, K] of uint8 images [N, H, W, C]."""
    logits = [
        model(to_signed_unit(tensor(images[start : start + BATCH]))).double() for start in range(0, len(images), BATCH)
    ]
    return torch.cat(logits).softmax(dim=1).numpy()


def resampled_groups(groups: np.ndarray, labels: np.ndarray, rounds: int, random: np.random.Generator) -> np.ndarray:
    """How often each image counts, float64 [rounds, N], when as many groups as there are are drawn with replacement.

    Draws that hold a single class are drawn again: nothing can be told apart in them.
    """
    names, group = np.unique(groups, return_inverse=True)
    draws: list[np.ndarray] = []
    while len(draws) < rounds:
        counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)))[group]
        if len(np.unique(labels[counts > 0])) > 1:
            draws.append(counts.astype(np.float64))
    return np.stack(draws)


def resampled_seeds(seeds: int, rounds: int, random: np.random.Generator) -> np.ndarray:
    """Share of each seed, float64 [rounds, seeds], when one seed fewer than there are is drawn with replacement.

    So the variance of the mean over a handful of seeds is unbiased, where drawing all would make it too small by a
    factor of (n - 1) / n (Rao and Wu, JASA 83, 1988). From two or three seeds intervals stay a little narrow.
    """
    assert seeds >= 2
    drawn = seeds - 1
    return random.multinomial(drawn, np.full(seeds, 1 / seeds), size=rounds) / drawn


def _check(name: str, images: Labelled, classes: int) -> None:
    assert len(images.images) == len(images.labels)
    present = np.unique(images.labels)
    if len(present) < 2:
        raise UtilityError(
            f"the {len(images.labels)} labelled {name} images are of {len(present)} class(es); "
            "a classifier needs at least two: add images of another class, or leave the utility out"
        )
    assert present[0] >= 0
    assert present[-1] < classes


def _network(channels: int, width: int, classes: int) -> nn.Sequential:
    """Images float [N, C, H, W] in [-1, 1] to logits [N, classes]."""
    layers: list[nn.Module] = []
    for narrow, wide in itertools.pairwise([channels, width, width * 2, width * 4, width * 8]):
        layers += [
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width * 8, classes))


def _even_weights(labels: np.ndarray) -> Tensor:
    """Weights float [N] under which every class that is present sums to the same."""
    _, label, count = np.unique(labels, return_inverse=True, return_counts=True)
    return torch.from_numpy(1 / count[label])


def _flipped(images: Tensor, flips: list[str], stream: torch.Generator) -> Tensor:
    """Images float [N, C, H, W], each flipped or not."""
    for flip in flips:
        flipped = torch.rand(len(images), generator=stream) < 0.5
        axis = 3 if flip == "horizontal" else 2
        images = torch.where(flipped[:, None, None, None], images.flip(axis), images)
    return images.contiguous(memory_format=torch.channels_last)


def _estimate(values: np.ndarray, seed_shares: np.ndarray) -> dict[str, float]:
    """Mean and interval of numbers [seeds, 1 + rounds]: of the whole test split first, then of its resamples."""
    draws = (values[:, 1:] * seed_shares.T).sum(axis=0)
    low, high = np.quantile(draws, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {"value": float(values[:, 0].mean()), "low": float(low), "high": float(high)}


def _extremes(values: np.ndarray) -> dict[str, float]:
    return {"worst_seed": float(values[:, 0].min()), "best_seed": float(values[:, 0].max())}


def _gain(values: np.ndarray, seed_shares: np.ndarray) -> dict[str, Any]:
    estimate = _estimate(values, seed_shares)
    if estimate["low"] > ROUNDING:
        return estimate | {"verdict": "helps"}
    if estimate["high"] < -ROUNDING:
        return estimate | {"verdict": "hurts"}
    return estimate | {"verdict": "no difference shown"}
