"""What pairs of image and mask are worth: a U-Net trained on real, synthetic and both kinds, tested on real patients.

After Guibas et al. (arXiv 1709.01872), who trained a U-Net (Ronneberger et al., MICCAI 2015, arXiv 1505.04597) on
synthetic fundus photographs. All networks see the same number of images, so that synthetic ones must earn the place
they take, and no weights are chosen on held-out images.

Few patients are few for the U-Net alone: the generator that drew the synthetic pairs has seen all training patients.
What it gains tells what the pairs hand on of the others, not what a generator of those few would give.
"""

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.errors import VerisynthError
from training import device, progress
from training.evaluation.utility import CONFIDENCE, resampled_seeds
from training.params import FLIPS, Segmentation
from training.pixels import tensor, to_signed_unit

BATCH = 64
AUC_BINS = 2**16
"""Of the probability: pixels of one bin count as equal."""


class SegmentationError(VerisynthError):
    """Pairs on which nothing can be trained or tested."""


@dataclass(frozen=True)
class Pairs:
    """Images, memory maps perhaps, with their masks."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    masks: np.ndarray
    """uint8 [N, H, W] of 0 and 255."""

    def rows(self, chosen: np.ndarray) -> "Pairs":
        """Those of a mask or of row numbers."""
        return Pairs(self.images[chosen], self.masks[chosen])


class UNet(nn.Module):
    """Images float [N, C, H, W] in [-1, 1] to logits [N, H, W], positive inside; H and W divide by 8."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(_block(narrow, wide) for narrow, wide in itertools.pairwise([channels, *widths]))
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in itertools.pairwise(widths[::-1])
        )
        self.up = nn.ModuleList(_block(2 * narrow, narrow) for narrow in widths[-2::-1])
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        levels, found = [], images
        for index, block in enumerate(self.down):
            found = block(found if index == 0 else F.max_pool2d(found, 2))
            levels.append(found)
        for rise, block, beside in zip(self.rise, self.up, levels[-2::-1], strict=True):
            found = block(torch.cat([rise(found), beside], dim=1))
        logits: Tensor = self.head(found)[:, 0]
        return logits


def fit(sources: list[Pairs], flips: list[str], settings: Segmentation, seed: int) -> UNet:
    """Train on batches shared evenly by the sources, by cross-entropy and the Dice loss (Milletari et al., 3DV 2016).

    Images are flipped; the learning rate falls from its setting to 0 along a cosine.
    """
    target = device.choose()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UNet(sources[0].images.shape[3], settings.width)
    model.to(target).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate)
    steps = math.ceil(settings.images / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    random = np.random.default_rng(seed)
    shares = [len(part) for part in np.array_split(np.arange(settings.batch_size), len(sources))]
    for _ in range(steps):
        parts = [
            source.rows(np.sort(random.integers(len(source.images), size=share)))
            for source, share in zip(sources, shares, strict=True)
        ]
        images = np.concatenate([part.images for part in parts])
        masks = np.concatenate([part.masks for part in parts])
        batch = torch.cat([to_signed_unit(tensor(images)), tensor(masks[..., None]).float() / 255], dim=1)
        batch = _flipped(batch, flips, random).to(target)
        logits, wanted = model(batch[:, :-1]), batch[:, -1]
        loss = F.binary_cross_entropy_with_logits(logits, wanted) + _dice_loss(logits, wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.cpu().eval()


@torch.inference_mode()
def predict(model: UNet, images: np.ndarray) -> np.ndarray:
    """Probability of being inside, float32 [N, H, W], of uint8 images [N, H, W, C]."""
    parts = [
        model(to_signed_unit(tensor(images[start : start + BATCH]))).sigmoid() for start in range(0, len(images), BATCH)
    ]
    return torch.cat(parts).numpy()


def scores(probabilities: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """F1 (Dice), IoU, sensitivity and specificity of all pixels together at 0.5, and the AUC; [N, H, W] each.

    The masks have pixels of both kinds.
    """
    inside, found = masks > 0, probabilities >= 0.5
    both, either = int((inside & found).sum()), int((inside | found).sum())
    outside = int((~inside).sum())
    return {
        "f1": 2 * both / max(1, int(inside.sum()) + int(found.sum())),
        "iou": both / max(1, either),
        "sensitivity": both / max(1, int(inside.sum())),
        "specificity": int((~inside & ~found).sum()) / max(1, outside),
        "auc": _area_under_curve(probabilities, inside),
    }


def measure(
    train: Pairs,
    train_patients: np.ndarray,
    synthetic: Pairs,
    test: Pairs,
    test_groups: np.ndarray,
    flips: list[str],
    settings: Segmentation,
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """Train on each mixture with several seeds and test on held-out patients; then with few real patients.

    Numbers are means over the seeds with 95 % percentile bootstrap intervals over `rounds` resamples of seeds and of
    the test groups [N], patients where there are enough. Each seed draws its own few patients, so that these intervals
    tell of that chance too. `ratio` is F1 from synthetic pairs by F1 from real ones, within each resample; None where
    that of real ones is 0 in any of them.

    Raises:
        SegmentationError: where masks are empty or full throughout.
    """
    for name, pairs in (("real training", train), ("synthetic", synthetic), ("real test", test)):
        inside = float((np.asarray(pairs.masks) > 0).mean())
        if not 0 < inside < 1:
            raise SegmentationError(f"{len(pairs.masks)} {name} masks are all {'empty' if not inside else 'full'}")
    random = np.random.default_rng(seed)
    few = [count for count in settings.few_patients if count < len(np.unique(train_patients))]
    seeds = range(seed, seed + settings.seeds)
    mixtures = [_mixtures(train, train_patients, synthetic, few, one_seed) for one_seed in seeds]
    names, group = np.unique(test_groups, return_inverse=True)
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rounds)
    shares = resampled_seeds(settings.seeds, rounds, random)
    report: dict[str, Any] = {}
    f1: dict[str, tuple[float, np.ndarray]] = {}
    with progress.bar(len(mixtures[0]) * settings.seeds, "training segmentation networks", "networks") as bar:
        for mixture in mixtures[0]:
            rows, draws = [], []
            for one_seed, of_seed in zip(seeds, mixtures, strict=True):
                probabilities = predict(fit(of_seed[mixture], flips, settings, one_seed), test.images)
                rows.append(scores(probabilities, np.asarray(test.masks)))
                draws.append(_resampled_f1(probabilities, np.asarray(test.masks), group, counts))
                bar.update()
            means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            f1[mixture] = means["f1"], (np.stack(draws) * shares.T).sum(axis=0)
            report[mixture] = means | {
                "f1": _estimate(*f1[mixture]) | {"seeds": [row["f1"] for row in rows]},
                "images": round(np.mean([sum(len(source.images) for source in found[mixture]) for found in mixtures])),
            }
    return {
        "network": asdict(settings) | {"flips": flips},
        "test_images": len(test.images),
        "test_groups": len(names),
        "mixtures": report,
        "ratio": _ratio(f1["synthetic"], f1["real"]),
        "gain_of_synthetic": {
            name: _estimate(f1[both][0] - f1[name][0], f1[both][1] - f1[name][1])
            for name, both in [
                ("real", "real_and_synthetic"),
                *((f"{count}_patients", f"{count}_patients_and_synthetic") for count in few),
            ]
        },
    }


def _mixtures(
    train: Pairs, train_patients: np.ndarray, synthetic: Pairs, few: list[int], seed: int
) -> dict[str, list[Pairs]]:
    """What networks of one seed learn from; with more patients come those of fewer and others."""
    order = np.random.default_rng(seed).permutation(np.unique(train_patients))
    found = {"real": [train], "synthetic": [synthetic], "real_and_synthetic": [train, synthetic]}
    for count in few:
        chosen = train.rows(np.flatnonzero(np.isin(train_patients, order[:count])))
        found |= {f"{count}_patients": [chosen], f"{count}_patients_and_synthetic": [chosen, synthetic]}
    return found


def _block(narrow: int, wide: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (narrow, wide):
        layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _dice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    inside = logits.sigmoid()
    return 1 - (2 * (inside * wanted).sum() + 1) / (inside.sum() + wanted.sum() + 1)


def _flipped(batch: Tensor, flips: list[str], random: np.random.Generator) -> Tensor:
    for axis, flip in ((3, FLIPS[0]), (2, FLIPS[1])):
        if flip in flips:
            chosen = torch.from_numpy(random.random(len(batch)) < 0.5)
            batch = torch.where(chosen[:, None, None, None], batch.flip(axis), batch)
    return batch.contiguous(memory_format=torch.channels_last)


def _resampled_f1(probabilities: np.ndarray, masks: np.ndarray, group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """F1 float [rounds] of groups that count so often, int [rounds, groups]."""
    inside, found = masks > 0, probabilities >= 0.5

    def per_group(pixels: np.ndarray) -> np.ndarray:
        return np.bincount(group, pixels.sum(axis=(1, 2)), counts.shape[1])

    both, sizes = per_group(inside & found), per_group(inside) + per_group(found)
    return np.asarray(2 * (counts @ both) / np.maximum(1, counts @ sizes))


def _area_under_curve(probabilities: np.ndarray, inside: np.ndarray) -> float:
    """The area under the ROC curve of all pixels, from their histograms (Mann and Whitney, 1947)."""
    bins = np.minimum(probabilities * AUC_BINS, AUC_BINS - 1).astype(np.int32)
    within, outside = (np.bincount(bins[chosen], minlength=AUC_BINS) for chosen in (inside, ~inside))
    below = np.cumsum(outside) - outside
    return float(within @ (below + outside / 2) / (within.sum() * outside.sum()))


def _ratio(synthetic: tuple[float, np.ndarray], real: tuple[float, np.ndarray]) -> dict[str, Any] | None:
    """Of values and their resamples, synthetic by real."""
    if not (real[0] > 0 and real[1].min() > 0):
        return None
    return _estimate(synthetic[0] / real[0], synthetic[1] / real[1])


def _estimate(value: float, draws: np.ndarray) -> dict[str, Any]:
    low, high = np.quantile(draws, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {"value": value, "low": float(low), "high": float(high)}
