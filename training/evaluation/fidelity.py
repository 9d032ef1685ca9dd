"""How close generated images come to real ones as a set: distances, precision and recall, with their floor.

Numbers on coordinates float64 [N, d] in the spaces of `spaces.py`; every number names its space.

- KID (Binkowski et al., ICLR 2018): the squared maximum mean discrepancy (Gretton et al., JMLR 2012) with
  the kernel (x.y / d + 1)^3. Unbiased, so it can be used on a few hundred images.
- Frechet distance, the formula of FID (Heusel et al., NeurIPS 2017). Biased, so it is read beside its floor.
- Precision and recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from contracts.errors import VerisynthError
from training.evaluation.spaces import MOST_FITTED, Space, evenly_spread, weight_free

NORMAL_QUANTILE = 1.959964
"""Of 97.5 %: a normal 95 % interval reaches as many standard errors to either side."""
KERNEL_ROWS = 1024
"""Rows of a kernel matrix that are in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def squared_discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of coordinates [N, d] and [M, d] under the cubic kernel."""
    whole_one, whole_other = np.zeros(len(one), np.int64), np.zeros(len(other), np.int64)
    within_one, within_other = _sums_within(one, whole_one), _sums_within(other, whole_other)
    between = _sums_between(one, other, whole_one, whole_other)
    return float(_discrepancy(within_one, within_other, between, len(one), len(other)).item())


def kernel_distance(
    one: np.ndarray,
    other: np.ndarray,
    blocks: int,
    one_groups: np.ndarray | None = None,
    other_groups: np.ndarray | None = None,
) -> Interval:
    """KID of coordinates [N, d] and [M, d] with the interval of a delete-a-block jackknife of either set.

    Rows of one group, str [N], stand in one of at most `blocks` blocks; None: every row is its own group. The
    variance is the sum of both sets' jackknife variances. Between equal distributions it is up to twice too
    large, never too small on average: there each pair's part is counted with both of its images
    (Efron and Stein, Annals of Statistics, 1981).

    Raises:
        VerisynthError: when all rows of a set are one group, or a block leaves fewer than two rows.
    """
    one_blocks, other_blocks = _dealt(one, one_groups, blocks), _dealt(other, other_groups, blocks)
    n, m = np.bincount(one_blocks), np.bincount(other_blocks)
    within_one, within_other = _sums_within(one, one_blocks), _sums_within(other, other_blocks)
    between = _sums_between(one, other, one_blocks, other_blocks)
    value = float(_discrepancy(within_one.sum(), within_other.sum(), between.sum(), n.sum(), m.sum()))
    without_one = _discrepancy(
        _sums_without(within_one), within_other.sum(), between.sum() - between.sum(1), n.sum() - n, m.sum()
    )
    without_other = _discrepancy(
        within_one.sum(), _sums_without(within_other), between.sum() - between.sum(0), n.sum(), m.sum() - m
    )
    variance = _jackknife_variance(value, without_one, n) + _jackknife_variance(value, without_other, m)
    reach = NORMAL_QUANTILE * float(np.sqrt(variance))
    return Interval(value, value - reach, value + reach)


def _discrepancy(
    within_one: np.ndarray, within_other: np.ndarray, between: np.ndarray, n: np.ndarray | int, m: np.ndarray | int
) -> np.ndarray:
    """The estimate from sums of the kernel over pairs, its diagonal left out, among n and m rows."""
    return np.asarray(within_one / (n * (n - 1)) + within_other / (m * (m - 1)) - 2 * between / (n * m))


def _sums_between(one: np.ndarray, other: np.ndarray, one_blocks: np.ndarray, other_blocks: np.ndarray) -> np.ndarray:
    """Sums of the kernel over the pairs of each two blocks, float64 [blocks of one, blocks of other]."""
    members = np.eye(other_blocks.max() + 1)[other_blocks]
    sums = np.zeros((one_blocks.max() + 1, members.shape[1]))
    for start in range(0, len(one), KERNEL_ROWS):
        rows = slice(start, start + KERNEL_ROWS)
        np.add.at(sums, one_blocks[rows], (one[rows] @ other.T / one.shape[1] + 1) ** 3 @ members)
    return sums


def _sums_within(rows: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """As `_sums_between` of a set and itself, without the pairs of a row and itself."""
    own = ((rows**2).sum(1) / rows.shape[1] + 1) ** 3
    return _sums_between(rows, rows, blocks, blocks) - np.diag(np.bincount(blocks, own))


def _sums_without(within: np.ndarray) -> np.ndarray:
    """Sums over all pairs but those with a row in a block, [blocks]."""
    return np.asarray(within.sum() - 2 * within.sum(1) + within.diagonal())


def _dealt(rows: np.ndarray, groups: np.ndarray | None, blocks: int) -> np.ndarray:
    """Block of every row, int64 [N]: whole groups, the largest first, each into the block with the fewest rows."""
    assert blocks >= 2
    names, members, sizes = np.unique(
        np.arange(len(rows)) if groups is None else groups, return_inverse=True, return_counts=True
    )
    loads = np.zeros(min(blocks, len(names)), np.int64)
    home = np.zeros(len(names), np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        home[group] = loads.argmin()
        loads[home[group]] += sizes[group]
    if len(loads) < 2 or len(rows) - loads.max() < 2:
        raise VerisynthError(
            f"{len(rows)} images in {len(names)} independent groups are too few for an interval; "
            "two groups, and two images outside the largest, are needed"
        )
    return home[members]


def _jackknife_variance(value: float, without: np.ndarray, sizes: np.ndarray) -> float:
    """Jackknife for blocks of unequal size (Busing, Meijer and van der Leeden, Statistics and Computing, 1999).

    `without` holds the estimates without each of the blocks [B], `sizes` their rows.
    """
    ratio = sizes.sum() / sizes
    estimate = (value - without + without / ratio).sum()
    pseudovalues = ratio * value - (ratio - 1) * without
    return float(((pseudovalues - estimate) ** 2 / (ratio - 1)).mean())


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance of the normal distributions with the means and covariances of [N, d] and [M, d].

    The formula of FID. It is biased upward, the more the fewer images: never compare it between sets of
    different sizes, and read it beside the floor, that of equally many real images.
    """
    covariance_one, covariance_other = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (one, other))
    values, vectors = np.linalg.eigh(covariance_one)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    # The root of the product has the eigenvalues of this symmetric matrix, which stays real for singular covariances.
    overlap = np.sqrt(np.linalg.eigvalsh(root @ covariance_other @ root).clip(0)).sum()
    difference = ((one.mean(0) - other.mean(0)) ** 2).sum()
    return float(difference + np.trace(covariance_one) + np.trace(covariance_other) - 2 * overlap)


def neighbourhoods(real: np.ndarray, fake: np.ndarray, neighbours: int) -> dict[str, float]:
    """Precision, recall, density and coverage of coordinates [N, d] and [M, d], by k-th nearest neighbours.

    A ball around each image reaches to its k-th nearest other image of the same set and includes its surface,
    as the papers define it. Precision: share of fakes in a real image's ball. Recall: share of real images
    in a fake's ball. Density: real balls a fake lies in, over k. Coverage: share of real balls with a fake.
    A collapsed set's balls have no radius: its recall is 0 unless it copies real images.

    Raises:
        VerisynthError: when a set has no k-th neighbours.
    """
    fewest = min(len(real), len(fake))
    if fewest <= neighbours:
        raise VerisynthError(
            f"{fewest} images have {fewest - 1} neighbours each, not {neighbours}; "
            "compare more images or set neighbours lower"
        )
    between = cdist(real, fake)
    in_real = between <= _radii(real, neighbours)[:, None]
    in_fake = between <= _radii(fake, neighbours)[None, :]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float(in_fake.any(1).mean()),
        "density": float(in_real.sum(0).mean() / neighbours),
        "coverage": float(in_real.any(1).mean()),
    }


def _radii(rows: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance [N] to the k-th nearest other row; the nearest of all is the row itself."""
    return np.asarray(np.partition(cdist(rows, rows), neighbours, axis=1)[:, neighbours])


def report(
    spaces: list[Space],
    train: np.ndarray,
    reference: np.ndarray,
    reference_groups: np.ndarray | None,
    fakes: np.ndarray,
    neighbours: int,
    blocks: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """All numbers of generated images, by the name of the space; images are uint8 [N, H, W, C].

    `kid` is against the reference, real images held out from training, whose groups str [N] are independent;
    `kid_against_train` is against evenly spread training images, at most as many as a space is fitted on.
    The other numbers depend on the sizes of the sets. They compare the reference, which is their real side, and
    the fakes, both thinned at random to `images`: as many as either set has, and half of the training images,
    so that `floor` can match them.

    Raises:
        VerisynthError: when a set is too small for an interval or for its neighbourhoods.
    """
    count = _common_count(train, reference, len(fakes))
    sets = (train[evenly_spread(len(train), MOST_FITTED)], reference, reference_groups, fakes)
    return _report(spaces, *sets, count, neighbours, blocks, seed)


def floor(
    spaces: list[Space],
    train: np.ndarray,
    train_groups: np.ndarray | None,
    reference: np.ndarray,
    reference_groups: np.ndarray | None,
    fakes: int,
    neighbours: int,
    blocks: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What `report` says of real images: `fakes`, a count, random training images stand in for the fakes.

    They are at most half of the training images, and `kid_against_train` compares them with the rest; `train_groups`
    str [N] are independent.

    Raises:
        VerisynthError: as `report`.
    """
    count = _common_count(train, reference, fakes)
    shuffled = np.random.default_rng(seed).permutation(len(train))
    chosen, rest = np.split(shuffled, [min(fakes, len(train) // 2)])
    sets = (train[rest[:MOST_FITTED]], reference, reference_groups, train[chosen])
    groups = None if train_groups is None else train_groups[chosen]
    return _report(spaces, *sets, count, neighbours, blocks, seed, groups)


def _common_count(train: np.ndarray, reference: np.ndarray, fakes: int) -> int:
    return min(len(train) // 2, len(reference), fakes)


def _report(
    spaces: list[Space],
    train: np.ndarray,
    reference: np.ndarray,
    reference_groups: np.ndarray | None,
    fakes: np.ndarray,
    count: int,
    neighbours: int,
    blocks: int,
    seed: int,
    fake_groups: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    random = np.random.default_rng(seed)
    reference_rows, fake_rows = (random.permutation(len(images))[:count] for images in (reference, fakes))
    numbers: dict[str, dict[str, Any]] = {}
    for space in spaces:
        trained, real, fake = (space.coordinates(images) for images in (train, reference, fakes))
        thinned = real[reference_rows], fake[fake_rows]
        numbers[space.name] = {
            "kid": asdict(kernel_distance(fake, real, blocks, fake_groups, reference_groups)),
            "kid_against_train": asdict(kernel_distance(fake, trained, blocks, fake_groups)),
            "frechet_distance": frechet_distance(*thinned),
            **neighbourhoods(*thinned, neighbours),
            "images": count,
        }
    return numbers


def mean_kernel_distance(spaces: list[Space], one: np.ndarray, other: np.ndarray) -> float:
    """Mean over the spaces of the KID between two sets of images, uint8 [N, H, W, C]."""
    return float(np.mean([squared_discrepancy(space.coordinates(one), space.coordinates(other)) for space in spaces]))


def validator(train: np.ndarray, validation: np.ndarray, limit: int = 400) -> Callable[[np.ndarray], float]:
    """A function from generated images uint8 [N, H, W, C] to their mean KID against the validation split.

    In the weight-free spaces, fitted on real training images. At most `limit` images of either set are compared,
    evenly spread.

    Raises:
        VerisynthError: when the training images do not differ.
    """
    spaces = weight_free(train)
    held_out = [space.coordinates(validation[evenly_spread(len(validation), limit)]) for space in spaces]

    def distance(generated: np.ndarray) -> float:
        images = generated[evenly_spread(len(generated), limit)]
        pairs = zip(spaces, held_out, strict=True)
        return float(np.mean([squared_discrepancy(space.coordinates(images), real) for space, real in pairs]))

    return distance
