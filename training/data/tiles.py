"""Square details of larger images: where they lie, which hold enough foreground, and how they are cut."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from contracts.imaging import central_square, fit, resize, with_channels
from training.data.items import Pixels
from training.data.params import Prepare


@dataclass(frozen=True)
class Box:
    """A rectangle of an image, in its own pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The part of [H, W, ...] inside the box."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def boxes(region: Box, side: int, stride: int) -> list[Box]:
    """All squares of `side` inside a region, row by row, `stride` apart."""
    return [
        Box(left, top, side, side)
        for top in range(region.top, region.top + region.height - side + 1, stride)
        for left in range(region.left, region.left + region.width - side + 1, stride)
    ]


def whole(pixels: Pixels, wanted: Prepare) -> Pixels:
    """An image taken whole, as the service takes an upload: its central square, resized to `size`."""
    image = fit(pixels.image, wanted.image)[0]
    return Pixels(image, None if pixels.mask is None else resize_mask(central_square(pixels.mask), wanted.size))


def detail(pixels: Pixels, box: Box, wanted: Prepare) -> Pixels:
    """The detail inside `box`, resized to `size`."""
    image = resize(with_channels(box.cut(pixels.image), wanted.channels), wanted.size, wanted.size)
    return Pixels(image, None if pixels.mask is None else resize_mask(box.cut(pixels.mask), wanted.size))


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A square mask uint8 [side, side] to uint8 [size, size] by nearest neighbour: it stays 0 and 255."""
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
