"""The gate: whether a new release may take the champion's place, measured on the same held-out images.

Quality compares the generators by their KID in the spaces that need no trained weights; detectability compares the
detectors on real images against the samples of both generators; privacy reads the checks that `evaluate` made.
Both sides run from their ONNX graphs, as they are served.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime

from contracts.latents import labels, latents
from contracts.manifest import DETECTOR, GENERATOR, Release
from training.detectors.ranking import area_under_curve
from training.evaluation import fidelity, spaces
from training.evaluation.fidelity import Interval
from training.params import Gate

SAMPLES = 400
SAMPLE_SEED = 4321
"""Another seed than `sample.seed`, so that neither detector has seen these images."""
BATCH = 50
REPORTED_ONLY = ("authenticity",)
"""Privacy checks that a reader should see and that bar no release: half of all real images fail them."""
NO_CHAMPION = "no champion yet"


@dataclass(frozen=True)
class Evidence:
    """Real images on which all releases of a dataset are compared."""

    train: np.ndarray
    """uint8 [N, H, W, C]: gives the spaces their units."""
    held_out: np.ndarray
    """uint8 [M, H, W, C]."""
    groups: np.ndarray
    """str [M]: held-out images of one group are not independent."""
    blocks: int
    """Of the jackknife behind the intervals of KID."""


@dataclass(frozen=True)
class Rule:
    """One rule and what it found."""

    name: str
    passed: bool
    detail: str
    """What was found and what was allowed, for people."""
    binding: bool = True
    """Whether the release must pass; the others are told."""
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """The rules in the order they were held against a release."""

    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules if rule.binding)

    @property
    def reasons(self) -> list[str]:
        """Why the release did not pass, as `rule: detail`."""
        return [f"{rule.name}: {rule.detail}" for rule in self.rules if rule.binding and not rule.passed]


def decide(
    candidate: Release, champion: Release | None, evidence: Evidence, limits: Gate, withdrawn: Collection[str] = ()
) -> Decision:
    """Hold every rule against `candidate`; the same releases and images give the same decision.

    Without a champion, or with one of another image size or number of channels, there is nothing to compare with:
    quality and detectability then ask for finite numbers only. Versions in `withdrawn` do not pass.
    """
    alone = _nothing_to_compare(candidate, champion)
    rival = None if alone else champion
    releases = [candidate] if rival is None else [candidate, rival]
    fakes = [samples(release) for release in releases]
    rules = [
        _quality(fakes, evidence, limits.maximum_kid_ratio, alone),
        _detectability(releases, fakes, evidence.held_out, limits.maximum_auc_drop, alone),
        *_privacy(candidate.manifest["privacy"]["checks"]),
        _not_withdrawn(candidate, withdrawn),
    ]
    return Decision(tuple(rules))


def samples(release: Release) -> np.ndarray:
    """Images uint8 [SAMPLES, H, W, C] of a release's generator; of a conditional one, labels as training had them."""
    feeds: dict[str, np.ndarray] = {"latent": latents(SAMPLE_SEED, 0, SAMPLES, release.latent_size)}
    if release.labels:
        feeds["label"] = labels(SAMPLE_SEED, 0, SAMPLES, release.manifest["generator"]["label_shares"])
    return _run(release, GENERATOR, "image", feeds)


def _quality(fakes: list[np.ndarray], evidence: Evidence, maximum_ratio: float, alone: str) -> Rule:
    found, *compared = _distances(fakes, evidence)
    numbers = {"candidate_kid": found.value, "candidate_kid_low": found.low, "candidate_kid_high": found.high}
    text = f"KID {found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
    if not compared:
        return Rule("quality", bool(np.isfinite(found.value)), f"{alone}; {text}", numbers=numbers)
    (rival,) = compared
    # Near zero a ratio compares noise with noise, so the champion's own uncertainty is allowed as well.
    allowed = max(maximum_ratio * rival.value, rival.high)
    numbers |= {"champion_kid": rival.value, "champion_kid_low": rival.low, "champion_kid_high": rival.high}
    detail = (
        f"{text}, allowed {allowed:.4f}: the larger of {maximum_ratio:g} x the champion's {rival.value:.4f} and the "
        f"upper end of its interval, {rival.high:.4f}"
    )
    return Rule("quality", found.value <= allowed, detail, numbers=numbers | {"allowed_kid": allowed})


def _distances(fakes: list[np.ndarray], evidence: Evidence) -> list[Interval]:
    """KID of each set to the held-out images: value and bounds, each the mean over the spaces.

    The mean of the bounds is the interval of the mean where the spaces err together, and too wide where they do not.
    """
    found = []
    weight_free = spaces.weight_free(evidence.train)
    real = [space.coordinates(evidence.held_out) for space in weight_free]
    for images in fakes:
        intervals = [
            fidelity.kernel_distance(
                space.coordinates(images), coordinates, evidence.blocks, other_groups=evidence.groups
            )
            for space, coordinates in zip(weight_free, real, strict=True)
        ]
        value, low, high = np.mean([(each.value, each.low, each.high) for each in intervals], axis=0).tolist()
        found.append(Interval(value, low, high))
    return found


def _detectability(
    releases: list[Release], fakes: list[np.ndarray], real: np.ndarray, maximum_drop: float, alone: str
) -> Rule:
    images = np.concatenate([real, *fakes])
    synthetic = np.arange(len(images)) >= len(real)
    found, *compared = (_area_under_curve(release, images, synthetic) for release in releases)
    numbers = {"candidate_auc": found}
    if not compared:
        return Rule("detectability", bool(np.isfinite(found)), f"{alone}; AUC {found:.4f}", numbers=numbers)
    (rival,) = compared
    allowed = rival - maximum_drop
    detail = (
        f"AUC {found:.4f} on the samples of both generators, required {allowed:.4f}: {maximum_drop:g} less than the "
        f"champion's {rival:.4f}"
    )
    return Rule(
        "detectability", found >= allowed, detail, numbers=numbers | {"champion_auc": rival, "required_auc": allowed}
    )


def _area_under_curve(release: Release, images: np.ndarray, synthetic: np.ndarray) -> float:
    """NaN where the detector gives a value that is not finite."""
    probabilities = _run(release, DETECTOR, "synthetic_probability", {"image": images})
    return area_under_curve(synthetic, probabilities) if np.isfinite(probabilities).all() else float("nan")


def _privacy(checks: list[dict[str, Any]]) -> list[Rule]:
    if not checks:
        return [Rule("privacy", False, "the release carries no privacy checks")]
    return [
        Rule(check["name"], check["passed"], check["detail"], binding=check["name"] not in REPORTED_ONLY)
        for check in checks
    ]


def _not_withdrawn(candidate: Release, withdrawn: Collection[str]) -> Rule:
    if candidate.version not in withdrawn:
        return Rule("not_withdrawn", True, f"{candidate.version} was never rolled back")
    detail = (
        f"{candidate.version} was rolled back; "
        f"`python -m training.releases.rollback {candidate.name} --forgive {candidate.version}` lets it be judged again"
    )
    return Rule("not_withdrawn", False, detail)


def _nothing_to_compare(candidate: Release, champion: Release | None) -> str:
    """Why the two cannot be compared; empty where they can."""
    if champion is None:
        return NO_CHAMPION
    new, old = candidate.image, champion.image
    if (new.size, new.channels) != (old.size, old.channels):
        return (
            f"not comparable: the champion's images are {old.size} pixels wide with {old.channels} channels, "
            f"these {new.size} with {new.channels}"
        )
    return ""


def _run(release: Release, file: str, output: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """One output of a graph, in batches, on the CPU."""
    session = onnxruntime.InferenceSession(release.folder / file, providers=["CPUExecutionProvider"])
    count = len(next(iter(feeds.values())))
    batches = [
        session.run([output], {name: rows[start : start + BATCH] for name, rows in feeds.items()})[0]
        for start in range(0, count, BATCH)
    ]
    return np.concatenate(batches)
