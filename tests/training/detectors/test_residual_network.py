import dataclasses

import numpy as np
import torch

from contracts.imaging import ImageSpec
from tests.training.detectors.test_linear_evidence import IMAGES, SETTINGS, SPEC, SYNTHETIC
from tests.training.detectors.traces import smooth_images, upsampled
from training.detectors import linear_evidence, residual_network
from training.detectors.residual_network import ResidualNetwork


def test_the_decision_is_the_mean_of_the_heatmap() -> None:
    model = ResidualNetwork(ImageSpec(32, 1), width=4).eval()
    with torch.inference_mode():
        logits, heatmap = model(torch.rand(3, 1, 32, 32))
    assert heatmap.shape[0] == 3
    torch.testing.assert_close(logits, heatmap.mean(dim=(1, 2)))


def test_brightness_and_slow_content_are_invisible() -> None:
    model = ResidualNetwork(ImageSpec(32, 1), width=4).eval()
    images = torch.rand(2, 1, 32, 32) * 0.5
    ramp = torch.linspace(0, 0.4, 32)[None, None, None, :]
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[0], model(images + ramp)[0], atol=1e-4, rtol=1e-3)


def test_training_finds_the_traces_and_is_seeded() -> None:
    settings = dataclasses.replace(SETTINGS, epochs=8, batch_size=20, width=8)
    one, again = (residual_network.fit(IMAGES, SYNTHETIC, SPEC, settings, "test") for _ in range(2))
    fresh = smooth_images(20, 32, 3, seed=2)
    with torch.inference_mode():
        real, fake = (one(linear_evidence.as_input(images))[0].numpy() for images in (fresh, upsampled(fresh)))
        repeated = again(linear_evidence.as_input(fresh))[0].numpy()
    assert np.median(fake) > np.max(real)
    assert np.array_equal(real, repeated)
