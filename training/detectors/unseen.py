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
        """The ensembles of several kinds' scorers; `real` are held-out real images uint8 [N, H, W, C]."""

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
    """Scorers of a kind, and the log-odds float [N] of all `held_out` images by the recipe that was not taught."""

    scorers: Scorers
    held_out: Examples
    log_odds: dict[str, np.ndarray]

    @staticmethod
    def of(scorers: Scorers, held_out: Examples) -> "Trial":
        """Let every scorer that does not know a recipe judge the held-out images."""
        log_odds = {name: detector.log_odds(one, held_out.images) for name, one in scorers.without.items()}
        return Trial(scorers, held_out, log_odds)

    def aucs(self, corrupted: Examples) -> dict[str, float]:
        """AUC on each unseen recipe against real images: the mean of held-out images as they are and `corrupted`."""
        found = {}
        for recipe, scorer in self.scorers.without.items():
            handled, chosen = corrupted.only(REAL, recipe), self._judged(recipe)
            found[recipe] = (
                area_under_curve(self.held_out.synthetic[chosen], self.log_odds[recipe][chosen])
                + area_under_curve(handled.synthetic, detector.log_odds(scorer, handled.images))
            ) / 2
        return found

    def calibrate(self, groups: np.ndarray, typicality: Typicality, error_share: float) -> Calibrated:
        """Calibrate the scorer that saw all recipes by those that did not, and these by one another.

        `groups` str [real images] tells which held-out real images belong together; see `calibration.decide` for it
        and for `error_share`.
        """
        real = ~self.held_out.synthetic
        scales = {recipe: Scale.of(found[real]) for recipe, found in self.log_odds.items()}
        general = self._platt(scales, list(self.scorers.without))
        known = Scale.of(detector.log_odds(self.scorers.whole, self.held_out.images[real]))
        whole = Detector(self.scorers.whole, typicality, general.of(known))
        without = {}
        for recipe, one in self.scorers.without.items():
            # Nor is it calibrated on its own images, where there are others.
            others = [other for other in self.scorers.without if other != recipe] or [recipe]
            without[recipe] = Detector(one, typicality, self._platt(scales, others).of(scales[recipe])).eval()
        probabilities, typical = detector.judge(whole.eval(), self.held_out.images)
        unknown = [
            general.of(scales[recipe]).probabilities(found[self.held_out.origins == recipe])
            for recipe, found in self.log_odds.items()
        ]
        decision = calibration.decide(probabilities[real], groups, np.concatenate(unknown), typical, error_share)
        return Calibrated(whole, decision, without)

    def _judged(self, recipe: str) -> np.ndarray:
        return np.isin(self.held_out.origins, (REAL, recipe))

    def _platt(self, scales: dict[str, Scale], recipes: list[str]) -> Calibration:
        """Of the scaled log-odds of several recipes' scorers, each on real images and its own recipe's."""
        parts = [self._judged(recipe) for recipe in recipes]
        logits = [scales[recipe](self.log_odds[recipe][part]) for recipe, part in zip(recipes, parts, strict=True)]
        return calibration.platt(
            np.concatenate(logits), np.concatenate([self.held_out.synthetic[part] for part in parts])
        )
