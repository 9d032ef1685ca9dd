"""What generated images give away of the training images: copies, authenticity, and who took part.

All of it is measured on pixels, by the root mean square difference in grey levels. Images above 64 pixels a side are
averaged down to 64 first: what two images share at that size is enough to know one by the other.
Every number stands beside the same number of held-out real images, which can be no copies.

Copies: Carlini et al., "Extracting Training Data from Diffusion Models", USENIX Security 2023.
Authenticity: Alaa et al., "How Faithful is your Synthetic Data?", ICML 2022.
Membership inference from samples alone: Chen et al., "GAN-Leaks", CCS 2020.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.errors import VerisynthError
from training.detectors.ranking import area_under_curve
from training.evaluation.detection import CONFIDENCE
from training.pixels import tensor

SIDE = 64
BLOCK = 256
EXACT_DISTANCE = 0.5
"""Root mean square difference in grey levels below which two images are the same but for rounding."""
NEIGHBOURHOOD = 50
NEAR_DUPLICATE_RATIO = 0.5
AUTHENTICITY_MARGIN = 0.1
"""How much less authentic than held-out real images generated ones may be."""


class PrivacyError(VerisynthError):
    """Too few groups of training images to tell what is independent of what."""


@dataclass(frozen=True)
class Neighbours:
    """Of each image, the nearest training image."""

    rows: np.ndarray
    """int64 [N]: its row."""
    distances: np.ndarray
    """float32 [N]: the root mean square difference in grey levels."""
    shape_distances: np.ndarray
    """float32 [N]: the smallest such difference once every channel's mean is made equal; at least 0.5."""
    ratios: np.ndarray
    """float32 [N] in (0, 1]: that distance over the mean of the 50 smallest."""

    @property
    def exact_copies(self) -> np.ndarray:
        """Which images, bool [N], are within rounding of one training image but not of its like, as blank ones are."""
        return np.asarray((self.distances < EXACT_DISTANCE) & (self.ratios < NEAR_DUPLICATE_RATIO))

    def near_duplicates(self, distance: float) -> np.ndarray:
        """Which images, bool [N], are nearer to one training image than `distance`, and far nearer than to its like.

        The ratio is that of Carlini et al.: an image that is merely smooth or usual is about as near to 50 training
        images as to one. The distance, see `near_duplicate_distance`, keeps out what is rare but no copy, such as the
        border of the camera's field. Equal means let no change of brightness hide a copy.

        Both limits were settled on six sets of bioimages, with copies 3 grey levels brighter, with noise of 2 grey
        levels, and after JPEG of quality 75. The rule finds all of them in five sets; on a fundus with details hardly
        above that noise, 96 % of the noisy ones. It takes none of 2,216 held-out real images; but among details of
        dark fields with one nucleus or none it takes 11 of 1,206 and misses up to 7 % of the copies, blank ones most.
        Half the 1st percentile of held-out distances alone found none of the brighter copies in two of the sets.
        """
        return np.asarray((self.shape_distances < distance) & (self.ratios < NEAR_DUPLICATE_RATIO))


@dataclass(frozen=True)
class Check:
    """One demand on what a model may give away, and whether it is met."""

    name: str
    passed: bool
    detail: str
    """One sentence with the numbers."""


def nearest(images: np.ndarray, train: np.ndarray, flips: list[str]) -> Neighbours:
    """Nearest training neighbours of uint8 images [N, H, W, C], flipped copies of the training images included.

    `flips` are those that training used: a flipped patient is a copied patient.
    """
    rows, distances, shape_distances, ratios = [], [], [], []
    for shape, brightness in _squared_distances(images, train, flips):
        square, row = (shape + brightness).min(1)
        rows.append(row)
        distances.append(square.sqrt())
        near = shape.topk(min(NEIGHBOURHOOD, len(train)), largest=False).values.sqrt().clamp(min=EXACT_DISTANCE)
        shape_distances.append(near[:, 0])
        ratios.append(near[:, 0] / near.mean(1))
    return Neighbours(*(torch.cat(parts).numpy() for parts in (rows, distances, shape_distances, ratios)))


def near_duplicate_distance(held_out: Neighbours) -> float:
    """Two thirds of the median shape distance of held-out real images, in grey levels.

    No low percentile: where a few held-out images are blank, that is a distance which no copy stays below.
    """
    return float(np.median(held_out.shape_distances)) * 2 / 3


def copies(found: Neighbours, held_out: Neighbours) -> dict[str, Any]:
    """How many of the images are copies, beside how many held-out real images count as such.

    These are false alarms, or images that stand in two parts of the split.
    """
    near = near_duplicate_distance(held_out)
    return {
        "samples": len(found.rows),
        "exact_copies": int(found.exact_copies.sum()),
        "near_duplicates": int(found.near_duplicates(near).sum()),
        "near_duplicate_distance": near,
        "held_out_images": len(held_out.rows),
        "held_out_exact_copies": int(held_out.exact_copies.sum()),
        "held_out_near_duplicates": int(held_out.near_duplicates(near).sum()),
    }


def nearest_of_other_groups(train: np.ndarray, groups: np.ndarray, rows: np.ndarray, flips: list[str]) -> np.ndarray:
    """Distance float32 [N] of training images uint8 [N, H, W, C] to the nearest one of another group, str [N].

    Only those of `rows`, int64, are sought, which takes time; the others are NaN.

    Raises:
        PrivacyError: when there is no other group.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise PrivacyError(
            f"all {len(train)} training images are of one group, '{names[0]}', so none is independent of another; "
            "prepare images of at least two patients or places"
        )
    group, asked = torch.from_numpy(numbers), torch.from_numpy(numbers[rows])
    found = []
    for block, (shape, brightness) in enumerate(_squared_distances(train[rows], train, flips)):
        same = asked[block * BLOCK :][:BLOCK, None] == group
        found.append((shape + brightness).masked_fill(same, float("inf")).amin(1).sqrt())
    distances = np.full(len(train), np.nan, np.float32)
    distances[rows] = torch.cat(found).numpy()
    return distances


def authenticity(neighbours: Neighbours, train_distances: np.ndarray) -> float:
    """Share of images farther from their nearest training image than that one is from its own nearest other.

    `train_distances` are those of `nearest_of_other_groups`. Alaa et al. take the nearest other training image of any
    group. Where details of one image overlap, that is the same tissue shifted, and the share of held-out images, the
    ceiling, nears one (of the fundus, it is one): only outright copies would count. An image of another group is as
    independent of a training image as a held-out one is. With one image per group both readings agree. Details that
    overlap across the border of two places remain.
    """
    return float((neighbours.distances > train_distances[neighbours.rows]).mean())


def membership_inference(
    fakes: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    train_groups: np.ndarray,
    held_out_groups: np.ndarray,
    flips: list[str],
    rounds: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """How well somebody who sees only the generated images tells training images from others: 0.5 is guessing.

    The attack of Chen et al. without the generator: the nearer the nearest generated image, the likelier a member. As
    many training as held-out images are attacked, chosen at random; uint8 [N, H, W, C], groups str [N]. The area under
    the ROC curve has a 95 % percentile bootstrap interval that resamples groups. `control_auc` is that of the same
    attack on one half of the training groups against the other: a distance from 0.5 there comes of groups that differ.

    Raises:
        PrivacyError: when the training images attacked are all of one group.
    """
    random = np.random.default_rng(seed)
    count = min(len(train), len(held_out))
    members, others = (np.sort(random.permutation(len(images))[:count]) for images in (train, held_out))
    member_groups, other_groups = train_groups[members], held_out_groups[others]
    member_scores = -nearest(train[members], fakes, flips).distances
    other_scores = -nearest(held_out[others], fakes, flips).distances
    names = random.permutation(np.unique(member_groups))
    if len(names) < 2:
        raise PrivacyError(
            f"all {count} training images attacked are of one group, '{names[0]}', which cannot be halved; "
            "prepare images of at least two patients or places"
        )
    half = np.isin(member_groups, names[: len(names) // 2])
    return {
        "auc": _grouped_area(member_scores, member_groups, other_scores, other_groups, rounds, random),
        "control_auc": _grouped_area(
            member_scores[half], member_groups[half], member_scores[~half], member_groups[~half], rounds, random
        ),
    }


def report(
    fakes: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    train_groups: np.ndarray,
    held_out_groups: np.ndarray,
    flips: list[str],
    rounds: int,
    seed: int,
) -> tuple[dict[str, Any], Neighbours]:
    """All of it as JSON has it, and the neighbours of the fakes; uint8 [N, H, W, C], groups str [N].

    `nearer_than_1_percent_of_held_out` is 0.01 for images as far from the training set as unseen real ones.

    Raises:
        PrivacyError: when the training images are all of one group.
    """
    neighbours, unseen = nearest(fakes, train, flips), nearest(held_out, train, flips)
    neighbouring = np.union1d(neighbours.rows, unseen.rows)
    train_distances = nearest_of_other_groups(train, train_groups, neighbouring, flips)
    fake_median, held_out_median = float(np.median(neighbours.distances)), float(np.median(unseen.distances))
    numbers = copies(neighbours, unseen) | {
        "nearest_training_neighbour": {
            "fake_median_distance": fake_median,
            "held_out_median_distance": held_out_median,
            "ratio": fake_median / held_out_median,
            "nearer_than_1_percent_of_held_out": float(
                (neighbours.distances < np.quantile(unseen.distances, 0.01)).mean()
            ),
        },
        "authenticity": {
            "fake": authenticity(neighbours, train_distances),
            "held_out": authenticity(unseen, train_distances),
        },
        "membership_inference": membership_inference(
            fakes, train, held_out, train_groups, held_out_groups, flips, rounds, seed
        ),
    }
    return numbers, neighbours


def checks(report: dict[str, Any], maximum_near_duplicates: int, maximum_membership_auc: float) -> list[Check]:
    """What a model must meet, judged on the numbers of `report`.

    Held-out real images are no copies: the share of them that counts as such, where fields are nearly empty, is the
    share of false alarms, and as many samples may be.
    """
    samples, exact, near = report["samples"], report["exact_copies"], report["near_duplicates"]
    false_exact, false_near = (
        math.ceil(samples * report[name] / report["held_out_images"])
        for name in ("held_out_exact_copies", "held_out_near_duplicates")
    )
    auc, share = report["membership_inference"]["auc"], report["authenticity"]
    low, high = auc["low"], auc["high"]
    least = share["held_out"] - AUTHENTICITY_MARGIN
    return [
        Check(
            "exact_copies",
            exact <= false_exact,
            f"{exact} of {samples} samples are exact copies of training images; {false_exact} may be.",
        ),
        Check(
            "near_duplicates",
            near <= maximum_near_duplicates + false_near,
            f"{near} of {samples} samples are near-duplicates of training images; "
            f"{maximum_near_duplicates + false_near} may be; by the same rule {report['held_out_near_duplicates']} of "
            f"{report['held_out_images']} held-out real images are.",
        ),
        Check(
            "membership_inference",
            low <= maximum_membership_auc,
            f"Training images are told from held-out ones with an AUC of {auc['value']:.3f} ({low:.3f} to {high:.3f}), "
            f"an interval {'with' if low <= 0.5 <= high else 'without'} guessing, 0.5; "
            f"its lower end may be {maximum_membership_auc:g}.",
        ),
        Check(
            "authenticity",
            share["fake"] >= least,
            f"{share['fake']:.3f} of the samples are authentic, of held-out real images {share['held_out']:.3f}; "
            f"at least {least:.3f} should be.",
        ),
    ]


def _squared_distances(images: np.ndarray, references: np.ndarray, flips: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean squared differences float32 [block, M] of the images, block by block, to the nearest flip of each reference.

    The first of each pair is that of the shapes, the second that of the channels' means; their sum is the whole.
    """
    for start in range(0, len(images), BLOCK):
        shape, mean = _shape_and_mean(images[start : start + BLOCK])
        # A flip is its own inverse, so flipping the fewer images of a block finds flipped references.
        copies = [copy.flatten(1) for copy in _flipped(shape, flips)]
        shapes, means = [], []
        for first in range(0, len(references), BLOCK):
            other_shape, other_mean = _shape_and_mean(references[first : first + BLOCK])
            flat = other_shape.flatten(1)
            shapes.append(torch.stack([_squared_difference(copy, flat) for copy in copies]).amin(0))
            means.append(_squared_difference(mean, other_mean))
        yield torch.cat(shapes, dim=1), torch.cat(means, dim=1)


def _shape_and_mean(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """float32 [N, C, H, W] without the channels' means, and these [N, C]; their squares sum to mean squares."""
    pixels = tensor(images).float()
    if pixels.shape[2] > SIDE:
        pixels = F.adaptive_avg_pool2d(pixels, SIDE)
    mean = pixels.mean(dim=(2, 3))
    return (pixels - mean[:, :, None, None]) / pixels[0].numel() ** 0.5, mean / mean.shape[1] ** 0.5


def _flipped(images: Tensor, flips: list[str]) -> list[Tensor]:
    """The images [N, C, H, W] under every combination of flips, as they are first."""
    copies = [images]
    for flip in flips:
        axis = 3 if flip == "horizontal" else 2
        copies += [copy.flip(axis) for copy in copies]
    return copies


def _squared_difference(one: Tensor, other: Tensor) -> Tensor:
    """Squared distances [N, M] of rows [N, D] and [M, D]; of equal rows, off by float32 rounding."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1)
    return torch.addmm(squares, one, other.T, alpha=-2).clamp(min=0)


def _grouped_area(
    members: np.ndarray,
    member_groups: np.ndarray,
    others: np.ndarray,
    other_groups: np.ndarray,
    rounds: int,
    random: np.random.Generator,
) -> dict[str, float]:
    """Area under the ROC curve of scores, members being the positives, with an interval from resampled groups."""
    draws = [
        _area(_resampled(members, member_groups, random), _resampled(others, other_groups, random))
        for _ in range(rounds)
    ]
    low, high = np.quantile(draws, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {"value": _area(members, others), "low": float(low), "high": float(high)}


def _area(members: np.ndarray, others: np.ndarray) -> float:
    member = np.arange(len(members) + len(others)) < len(members)
    return area_under_curve(member, np.concatenate([members, others]))


def _resampled(scores: np.ndarray, groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The scores of as many groups as there are, drawn with replacement."""
    parts = [scores[groups == name] for name in np.unique(groups)]
    return np.concatenate([parts[index] for index in random.integers(len(parts), size=len(parts))])
