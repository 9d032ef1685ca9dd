"""Leave one generator out: what scorers say of a recipe whose images they never saw.

It calibrates probabilities, sets thresholds and chooses between the kinds of detector, because every detector is right
about the generators that it learned from.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from training.detectors import calibration, detector
from training.detectors.calibration import Calibration, Decision, Scale
from training.detectors.detector import Detector
from training.detectors.ensemble import Ensemble
from training.detectors.examples import REAL, Examples
from training.detectors.ranking import area_under_curve
from training.detectors.typicality import Typicality


@dataclass(frozen=True)
class Scorers:
    """A kind's scorer that was taught with all recipes, and by the name of each recipe one that never saw it."""

    whole: nn.Module
    without: dict[str, nn.Module]

    @staticmethod
    def together(members: dict[str, "Scorers"], real: np.ndarray) -> "Scorers":
        """The ensembles of several kinds' scorers; `real` are held-out real images uint8 [N, H, W, C], as they
        are and corrupted."""

        def ensemble(scorers: dict[str, nn.Module]) -> Ensemble:
            return Ensemble.of(scorers, {kind: Scale.of(detector.log_odds(one, real)) for kind, one in scorers.items()})

        recipes = next(iter(members.values())).without
        return Scorers(
            ensemble({kind: one.whole for kind, one in members.items()}),
            {recipe: ensemble({kind: one.without[recipe] for kind, one in members.items()}) for recipe in recipes},
        )


@dataclass(frozen=True)
class Calibrated:
    """A kind's detector, its verdicts, and of every recipe a detector that never saw its images."""

    detector: Detector
    decision: Decision
    without: dict[str, Detector]


@dataclass(frozen=True)
class Trial:
    """Scorers of a kind, and the log-odds float [N] of all `examples` by the recipe that was not taught."""

    scorers: Scorers
    examples: Examples
    """Held-out images as they are, then the same ones corrupted."""
    clean: int
    """How many are as they are."""
    log_odds: dict[str, np.ndarray]

    @staticmethod
    def of(scorers: Scorers, held_out: Examples, corrupted: Examples) -> "Trial":
        """Let every scorer that does not know a recipe judge the held-out images, clean and corrupted."""
        examples = Examples.joined([held_out, corrupted])
        log_odds = {name: detector.log_odds(one, examples.images) for name, one in scorers.without.items()}
        return Trial(scorers, examples, len(held_out.images), log_odds)

    @property
    def aucs(self) -> dict[str, float]:
        """AUC on each unseen recipe against real images: the mean of clean and corrupted ones."""
        return {
            recipe: (self._area(recipe, self._is_clean) + self._area(recipe, ~self._is_clean)) / 2
            for recipe in self.scorers.without
        }

    def calibrate(self, groups: np.ndarray, typicality: Typicality, error_share: float) -> Calibrated:
        """Calibrate the scorer that saw all recipes by those that did not, and these by one another.

        Corrupted images calibrate, too: a border drawn by clean ones alone takes a blurred real image for synthetic.
        Thresholds are promises about clean ones. `groups` str [real images] tells which held-out real images belong
        together; see `calibration.decide` for it and for `error_share`.
        """
        real = ~self.examples.synthetic
        scales = {recipe: Scale.of(found[real]) for recipe, found in self.log_odds.items()}
        general = self._platt(scales, list(self.scorers.without))
        known = Scale.of(detector.log_odds(self.scorers.whole, self.examples.images[real]))
        whole = Detector(self.scorers.whole, typicality, general.of(known))
        without = {}
        for recipe, one in self.scorers.without.items():
            # Nor is it calibrated on its own images, where there are others.
            others = [other for other in self.scorers.without if other != recipe] or [recipe]
            without[recipe] = Detector(one, typicality, self._platt(scales, others).of(scales[recipe])).eval()
        clean = self.examples.rows(self._is_clean)
        probabilities, typical = detector.judge(whole.eval(), clean.images)
        unknown = [
            general.of(scales[recipe]).probabilities(found[self._is_clean & (self.examples.origins == recipe)])
            for recipe, found in self.log_odds.items()
        ]
        decision = calibration.decide(
            probabilities[~clean.synthetic], groups, np.concatenate(unknown), typical, error_share
        )
        return Calibrated(whole, decision, without)

    @property
    def _is_clean(self) -> np.ndarray:
        return np.arange(len(self.examples.images)) < self.clean

    def _judged(self, recipe: str) -> np.ndarray:
        return np.isin(self.examples.origins, (REAL, recipe))

    def _area(self, recipe: str, rows: np.ndarray) -> float:
        chosen = rows & self._judged(recipe)
        return area_under_curve(self.examples.synthetic[chosen], self.log_odds[recipe][chosen])

    def _platt(self, scales: dict[str, Scale], recipes: list[str]) -> Calibration:
        """Of the scaled log-odds of several recipes' scorers, each on real images and its own recipe's."""
        parts = [self._judged(recipe) for recipe in recipes]
        logits = [scales[recipe](self.log_odds[recipe][part]) for recipe, part in zip(recipes, parts, strict=True)]
        return calibration.platt(
            np.concatenate(logits), np.concatenate([self.examples.synthetic[part] for part in parts])
        )
