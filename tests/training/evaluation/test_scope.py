import numpy as np
import pytest
import torch

from contracts.imaging import ImageSpec
from tests.training.detectors.traces import smooth_images
from training.detectors import detector, linear_evidence
from training.detectors.calibration import Calibration
from training.detectors.typicality import Typicality
from training.evaluation import scope

COLOUR, GREY = ImageSpec(32, 3), ImageSpec(64, 1)


class Brightness(torch.nn.Module):
    """Bright images are typical."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))


def test_areas_are_counted_over_pairs_of_images() -> None:
    levels = {"bright": (200, 90), "dark": (100, 80)}
    images = {
        name: np.stack([np.full((32, 32, 3), level, np.uint8) for level in found]) for name, found in levels.items()
    }
    specs = dict.fromkeys(images, COLOUR)
    found = scope.pairs(dict.fromkeys(images, Brightness()), images, specs)
    # Of four pairs, 90 and 100 are the wrong way round.
    assert found == {"bright": {"dark": 0.75}, "dark": {"bright": 0.25}}


def test_other_sets_come_into_the_form_of_the_model() -> None:
    """Grey of 64 pixels and colour of 32, by detectors and by typicality alone."""
    colour, grey = smooth_images(120, 32, 3, seed=0), 255 - smooth_images(120, 64, 1, seed=0) // 2
    known = {}
    for name, images, spec in (("colour", colour, COLOUR), ("grey", grey, GREY)):
        known[name] = Typicality(spec)
        content = linear_evidence.features_of(images, known[name].content)
        known[name].take(content[:60], content[60:90])
    network = detector.scorer("residual_network", COLOUR, 4)
    scorers = {
        "colour": detector.Detector(network, known["colour"], Calibration(1, 0)).eval(),
        "grey": known["grey"],
    }
    held_out = {"colour": colour[90:], "grey": grey[90:]}
    found = scope.pairs(scorers, held_out, {"colour": COLOUR, "grey": GREY})
    assert found["colour"]["grey"] > 0.98
    assert found["grey"]["colour"] > 0.98
    assert min(scope.against_strangers(scorers["colour"], held_out["colour"], COLOUR).values()) > 0.9


def test_strangers_are_the_same_pixels_every_time() -> None:
    first, second = scope.strangers(64), scope.strangers(64)
    assert set(first) == {
        "noise",
        "plain",
        "photographs",
        "photograph_tiles",
        "pages",
        "page_tiles",
        "drawings",
        "drawing_tiles",
    }
    for kind, images in first.items():
        assert all(np.array_equal(one, other) for one, other in zip(images, second[kind], strict=True))
        assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3) for image in images)
    assert {image.shape[0] for image in first["photograph_tiles"]} == {64, 128}


@pytest.mark.parametrize("images", [10, 1000])
def test_large_sets_are_thinned(images: int) -> None:
    found = scope._thinned(np.arange(images)[:, None, None, None])
    assert len(found) == min(images, scope.MAXIMUM_IMAGES)
    assert (found[0], found[-1]) == (0, images - 1)
