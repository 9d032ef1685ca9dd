"""The linear evidence model: logistic regression on the evidence features, small and hard to fool.

On unseen generators it was measured far ahead of small convolutional networks; its weights can be read.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from training.detectors.features import LOGARITHM_FLOOR, PATTERNS, EvidenceFeatures
from training.params import TrainDetector
from training.pixels import tensor, to_unit

CELL = 8
"""Side in pixels of one cell of the heatmap."""
BATCH_PIXELS = 128 * 64**2
"""Of all images that go through a detector at a time."""


class LinearEvidence(nn.Module):
    """Images float [N, C, H, W] in [0, 1] to log-odds of being synthetic [N] and their heatmap [N, H/8, W/8]."""

    mean: Tensor
    weights: Tensor
    intercept: Tensor

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.features = EvidenceFeatures(image)
        self.register_buffer("mean", torch.zeros(self.features.count))
        self.register_buffer("weights", torch.zeros(self.features.count))
        self.register_buffer("intercept", torch.zeros(()))

    def take(self, pipeline: Pipeline) -> None:
        """Take over a fitted scaler and logistic regression, folded into a mean, weights and an intercept."""
        scaler, regression = pipeline[0], pipeline[1]
        self.mean = torch.from_numpy(scaler.mean_).float()
        self.weights = torch.from_numpy(regression.coef_[0] / scaler.scale_).float()
        self.intercept = torch.tensor(regression.intercept_[0]).float()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = (self.features(images) - self.mean) @ self.weights + self.intercept
        return logits, self.heatmap(images)

    def heatmap(self, images: Tensor) -> Tensor:
        """Where the log-odds come from; positive speaks for synthetic, the mean is the share that has a place.

        The local binary patterns are means over pixels, so their share is exact; residual
        magnitudes enter to first order. Transforms and correlations belong to no place and are left out.
        """
        features = self.features
        residual_start = features.spectrum.count + features.cosine.count
        pattern_start = residual_start + features.residuals.count

        residuals = features.residuals.residuals(images).abs()
        magnitude_weights = self.weights[residual_start : residual_start + residuals.shape[1]]
        relative = residuals / (residuals.mean(dim=(2, 3), keepdim=True) + LOGARITHM_FLOOR) - 1
        pixels = (relative * magnitude_weights[None, :, None, None]).sum(1)

        codes = features.patterns.codes(images)
        for channel in range(images.shape[1]):
            start = pattern_start + channel * PATTERNS
            weights, means = (values[start : start + PATTERNS] for values in (self.weights, self.mean))
            pixels = pixels + F.embedding(codes[:, channel], weights[:, None])[..., 0] - weights @ means
        cells = F.pad(pixels[:, None], (1, 1, 1, 1), mode="replicate")
        return F.avg_pool2d(cells, CELL)[:, 0]


@torch.inference_mode()
def features_of(images: np.ndarray, features: nn.Module) -> np.ndarray:
    """Features float32 [N, count] of uint8 images [N, H, W, C]."""
    return torch.cat([features(as_input(batch)) for batch in in_batches(images)]).numpy()


def in_batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of [N, H, W, C], the smaller the larger the images: memory stays the same."""
    size = max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    return (images[start : start + size] for start in range(0, len(images), size))


def as_input(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, C] to float [N, C, H, W] in [0, 1]."""
    return to_unit(tensor(images))


def fit(
    rows: np.ndarray, synthetic: np.ndarray, spec: ImageSpec, settings: TrainDetector
) -> tuple[LinearEvidence, Pipeline]:
    """Fit on evidence features float [N, count] and targets bool [N]; returns the torch module and its original."""
    model = LinearEvidence(spec)
    pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=settings.regularisation, max_iter=5000, class_weight="balanced")
    )
    pipeline.fit(rows.astype(np.float64), synthetic)
    model.take(pipeline)
    return model.eval(), pipeline
