import numpy as np
import pytest
import torch

from contracts.imaging import ImageSpec
from tests.training.detectors.traces import smooth_images, upsampled
from training.detectors import linear_evidence
from training.detectors.features import PATTERNS
from training.detectors.linear_evidence import LinearEvidence
from training.params import TrainDetector

SETTINGS = TrainDetector(
    corrupted_copies=0,
    regularisation=0.1,
    epochs=1,
    width=4,
    batch_size=16,
    learning_rate=1e-3,
    error_share=0.01,
    maximum_training_images=100,
    forger_images=64,
)
SPEC = ImageSpec(32, 3)
REAL = smooth_images(60, 32, 3, seed=0)
IMAGES = np.concatenate([REAL, upsampled(smooth_images(60, 32, 3, seed=1))])
SYNTHETIC = np.arange(120) >= 60


@pytest.fixture(scope="module")
def fitted() -> tuple[LinearEvidence, object]:
    rows = linear_evidence.features_of(IMAGES, LinearEvidence(SPEC).features)
    return linear_evidence.fit(rows, SYNTHETIC, SPEC, SETTINGS)


def logits(model: LinearEvidence, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(linear_evidence.as_input(images))[0].numpy()


def test_the_folded_model_equals_scikit_learns(fitted: tuple[LinearEvidence, object]) -> None:
    model, pipeline = fitted
    rows = linear_evidence.features_of(IMAGES, model.features).astype(np.float64)
    np.testing.assert_allclose(logits(model, IMAGES), pipeline.decision_function(rows), atol=2e-3)


def test_it_finds_the_traces_in_images_it_has_not_seen(fitted: tuple[LinearEvidence, object]) -> None:
    fresh = smooth_images(20, 32, 3, seed=2)
    assert logits(fitted[0], fresh).max() < 0 < logits(fitted[0], upsampled(fresh)).min()


def test_the_patterns_share_of_the_heatmap_is_exact(fitted: tuple[LinearEvidence, object]) -> None:
    model, _ = fitted
    start = model.features.count - 3 * PATTERNS
    only_patterns = LinearEvidence(SPEC)
    only_patterns.mean, only_patterns.weights = model.mean.clone(), model.weights.clone()
    only_patterns.weights[:start] = 0
    images = linear_evidence.as_input(IMAGES[:4])
    with torch.inference_mode():
        total, heatmap = only_patterns(images)
        inner = only_patterns.heatmap(images).shape
    assert inner == (4, 4, 4)
    # The border row and column are repeated to fill the cells, so the means agree up to their weight.
    np.testing.assert_allclose(heatmap.mean(dim=(1, 2)).numpy(), total.numpy(), rtol=0.1, atol=0.3)


def test_the_heat_falls_where_the_traces_are(fitted: tuple[LinearEvidence, object]) -> None:
    patched = smooth_images(12, 32, 3, seed=4)
    patched[:, :16, :16] = upsampled(patched)[:, :16, :16]
    with torch.inference_mode():
        heat = fitted[0].heatmap(linear_evidence.as_input(patched)).mean(0).numpy()
    assert heat[:2, :2].mean() > heat[2:, 2:].mean() + 1
