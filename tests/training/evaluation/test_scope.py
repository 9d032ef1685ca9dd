import numpy as np
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
    # Of four pairs, 0.2 and 0.3 are the wrong way round.
    assert scope.area(np.array([0.9, 0.2]), np.array([0.1, 0.3])) == 0.75


def test_images_come_into_the_form_of_the_model() -> None:
    """Grey of 64 pixels and colour of 32, by detectors and by typicality alone."""
    colour, grey = smooth_images(120, 32, 3, seed=0), 255 - smooth_images(120, 64, 1, seed=0) // 2
    known = {}
    for name, images, spec in (("colour", colour, COLOUR), ("grey", grey, GREY)):
        known[name] = Typicality(spec)
        content = linear_evidence.features_of(images, known[name].content)
        known[name].take(content[:60], content[60:90])
    network = detector.scorer("residual_network", COLOUR, 4)
    of_colour = detector.Detector(network, known["colour"], Calibration(1, 0)).eval()
    own, other = scope.typicality(of_colour, colour[90:]), scope.typicality(known["grey"], grey[90:])
    assert scope.area(own, scope.typicality(of_colour, scope.as_uploaded(grey[90:], COLOUR))) > 0.98
    assert scope.area(other, scope.typicality(known["grey"], scope.as_uploaded(colour[90:], GREY))) > 0.98
    assert min(scope.against_strangers(of_colour, colour[90:], COLOUR).values()) > 0.9


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
