"""What both kinds of detector learn from, and how one of a kind is trained on it."""

from dataclasses import dataclass

import numpy as np
from sklearn.pipeline import Pipeline
from torch import nn

from contracts.imaging import ImageSpec
from training.detectors import corruptions, linear_evidence, residual_network
from training.detectors.examples import Examples
from training.params import TrainDetector


@dataclass(frozen=True)
class Lesson:
    """Examples with their corrupted copies, and the evidence features of all of them."""

    examples: Examples
    features: np.ndarray
    spec: ImageSpec
    settings: TrainDetector

    @staticmethod
    def of(clean: Examples, spec: ImageSpec, settings: TrainDetector) -> "Lesson":
        """Real and synthetic images are corrupted alike."""
        copies = [
            Examples(corruptions.corrupt_randomly(clean.images, settings.seed + copy), clean.origins)
            for copy in range(settings.corrupted_copies)
        ]
        whole = Examples.joined([clean, *copies])
        features = linear_evidence.features_of(whole.images, linear_evidence.LinearEvidence(spec).features)
        return Lesson(whole, features, spec, settings)

    def scorer(self, kind: str, unseen: str | None, name: str) -> tuple[nn.Module, Pipeline | None]:
        """A trained scorer of a kind, without the images of a recipe; and its scikit-learn original, if it has one."""
        known = self.examples.origins != unseen
        if kind == "linear_evidence":
            return linear_evidence.fit(self.features[known], self.examples.synthetic[known], self.spec, self.settings)
        chosen = self.examples if unseen is None else self.examples.rows(known)
        return residual_network.fit(chosen.images, chosen.synthetic, self.spec, self.settings, name), None
