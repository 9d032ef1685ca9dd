"""A folder of images and a folder of masks: `images/Image_01L.jpg` goes with `masks/Image_01L_1stHO.png`."""

from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from contracts.errors import ImageError
from contracts.imaging import decode_mask
from training.data.folder import patient_by_pattern, read_image
from training.data.items import Collection, Item, LeftOut, Pixels, UnusableError, files_below, name_of, read_bytes
from training.data.params import MaskedFolderSource


def collect(source: MaskedFolderSource) -> Collection:
    """One item per image that has exactly one mask; images without, and masks without image, are left out by name.

    Raises:
        VerisynthError: for a folder that is missing.
    """
    images, masks = Path(source.images), Path(source.masks)
    image_files = {name_of(path, images): path for path in files_below(images)}
    mask_files = {name_of(path, masks): path for path in files_below(masks)}
    owners = match(list(image_files), list(mask_files))
    collection = Collection(has_masks=True)
    for name, path in image_files.items():
        try:
            mask = _only_mask(owners[name])
            patient = patient_by_pattern(name, source.patient_pattern)
        except ImageError as error:
            collection.left_out.append(LeftOut(name, error.code, str(error)))
            continue
        collection.items.append(Item(name, patient, None, partial(_read, path, mask_files[mask])))
    owned = {mask for names in owners.values() for mask in names}
    collection.left_out.extend(
        LeftOut(name, "mask_without_image", "a mask whose name begins with no image's name", images=0)
        for name in mask_files
        if name not in owned
    )
    return collection


def match(images: list[str], masks: list[str]) -> dict[str, list[str]]:
    """Masks by image: a mask belongs to the image of the same subfolder with the longest name that its own begins with.

    A word or number is not cut in two: `cell_10_mask.png` is no mask of `cell_1.png`.
    """
    stems: dict[str, list[str]] = {}
    for image in images:
        stems.setdefault(str(PurePosixPath(image).with_suffix("")), []).append(image)
    owners: dict[str, list[str]] = {image: [] for image in images}
    for mask in masks:
        path = PurePosixPath(mask)
        folder, own = path.parent, path.stem
        for length in range(len(own), 0, -1):
            if own[length : length + 1].isalnum():
                continue
            owning = stems.get(str(folder / own[:length]))
            if owning is not None:
                for image in owning:
                    owners[image].append(mask)
                break
    return owners


def _only_mask(masks: list[str]) -> str:
    if not masks:
        raise UnusableError("mask_missing", "no mask's name begins with this image's name")
    if len(masks) > 1:
        raise UnusableError("several_masks", f"{len(masks)} masks go with it: {', '.join(masks)}; keep one per image")
    return masks[0]


def _read(image: Path, mask: Path) -> Pixels:
    pixels = read_image(image).image
    try:
        foreground = decode_mask(read_bytes(mask))
    except ImageError as error:
        raise UnusableError("mask_broken", f"its mask {mask.name}: {error}") from error
    if foreground.shape != pixels.shape[:2]:
        (height, width), (mask_height, mask_width) = pixels.shape[:2], foreground.shape
        raise UnusableError(
            "mask_of_another_size", f"its mask {mask.name} is {mask_width}x{mask_height}, the image {width}x{height}"
        )
    if not foreground.any():
        raise UnusableError("mask_empty", f"its mask {mask.name} has no foreground")
    if foreground.all():
        raise UnusableError("mask_full", f"its mask {mask.name} has no background: no pixel is 0, as in a photograph")
    return Pixels(pixels, foreground.astype(np.uint8) * np.uint8(255))
