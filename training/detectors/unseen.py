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
    """A detector and its verdicts."""

    detector: Detector
    decision: Decision


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

    def calibrate(
        self, groups: np.ndarray, typicality: Typicality, error_share: float
    ) -> tuple[Calibrated, dict[str, Calibrated]]:
        """The detector that saw all recipes, and by the name of each recipe one that never saw it.

        The first is calibrated by the others, and these by one another: none by its own images, where there are others.
        Corrupted images calibrate, too: a border drawn by clean ones alone takes a blurred real image for synthetic.
        Thresholds are promises about clean ones. `groups` str [real images] tells which held-out real images belong
        together; see `calibration.decide` for it and for `error_share`.
        """
        real, clean = ~self.examples.synthetic, self._is_clean
        scales = {recipe: Scale.of(found[real]) for recipe, found in self.log_odds.items()}

        def of_unseen(platt: Calibration, recipes: list[str]) -> np.ndarray:
            """Probabilities of clean images of each recipe, by the scorer that does not know it."""
            rows = {recipe: clean & (self.examples.origins == recipe) for recipe in recipes}
            found = [platt.of(scales[recipe]).probabilities(self.log_odds[recipe][rows[recipe]]) for recipe in recipes]
            return np.concatenate(found)

        general = self._platt(scales, list(scales))
        known = Scale.of(detector.log_odds(self.scorers.whole, self.examples.images[real]))
        whole = Detector(self.scorers.whole, typicality, general.of(known)).eval()
        probabilities, typical = detector.judge(whole, self.examples.images[clean])
        unknown = of_unseen(general, list(scales))
        decision = calibration.decide(probabilities[real[clean]], groups, unknown, typical, error_share)

        without = {}
        for recipe, one in self.scorers.without.items():
            others = [other for other in scales if other != recipe] or [recipe]
            platt = self._platt(scales, others)
            mine = platt.of(scales[recipe])
            without[recipe] = Calibrated(
                Detector(one, typicality, mine).eval(),
                calibration.decide(
                    mine.probabilities(self.log_odds[recipe][clean & real]).astype(np.float32),
                    groups,
                    of_unseen(platt, others),
                    typical[np.isin(self.examples.origins[clean], (REAL, *others))],
                    error_share,
                ),
            )
        return Calibrated(whole, decision), without

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
