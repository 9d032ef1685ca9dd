"""The two real bioimages inside the scikit-image wheel: each is one image, cut into details and split by region."""

from skimage import data

from training.data.items import Collection, Item, Pixels
from training.data.params import SkimageSource


def collect(source: SkimageSource) -> Collection:
    """The one item of a bundled image."""
    if source.image == "retina":
        return Collection([Item("retina.jpg", "retina.jpg", None, lambda: Pixels(data.retina()))])
    return Collection([Item("ihc.png", "ihc.png", None, lambda: Pixels(data.immunohistochemistry()))])
