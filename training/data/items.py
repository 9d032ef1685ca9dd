"""What every source of images yields: items that are read one at a time, and what was left out and why."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contracts.errors import ImageError, VerisynthError

MAXIMUM_FILE_BYTES = 1 << 30


class UnusableError(ImageError):
    """An image left out for what its source says of it rather than for its bytes; `code` is the reason."""


@dataclass(frozen=True)
class Pixels:
    """A decoded image uint8 [H, W, 1 or 3] and, where the source has masks, its mask uint8 [H, W] of 0 and 255."""

    image: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Item:
    """One image of a source, not yet decoded."""

    name: str
    """Stable and unique within the source: the relative path, or the place in an archive."""
    patient: str
    """Whatever must stay in one part of the split: a patient, a slide, a child with two eyes."""
    label: str | None
    read: Callable[[], Pixels]
    """Decodes the image; raises ImageError where it cannot be used."""
    split: str | None = None
    """The part of the split that the source itself gives; None: we split."""


@dataclass(frozen=True)
class LeftOut:
    """Images that are not used. `reason` is one word to count by, `detail` a sentence."""

    name: str
    reason: str
    detail: str
    images: int = 1


@dataclass(frozen=True)
class Collection:
    """All a source holds. Where items bring splits, held-out ones come first: of duplicates the first is kept."""

    items: list[Item] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    has_masks: bool = False


def files_below(root: Path) -> list[Path]:
    """Every file below a folder, links followed, sorted by relative path.

    Raises:
        VerisynthError: where there is no such folder.
    """
    if not root.is_dir():
        raise VerisynthError(f"{root} is no folder; put or link the images there (data/raw/README.md says where from)")
    return sorted(_walk(root, frozenset()), key=lambda path: path.relative_to(root).as_posix())


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    try:
        real = folder.resolve()
        if real in above:
            return  # a link back to a folder above
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue  # what file managers leave behind
            if path.is_dir():
                yield from _walk(path, above | {real})
            else:
                yield path
    except OSError as error:
        raise VerisynthError(f"folder {folder} cannot be listed: {error.strerror}") from error


def refuse_links_below(root: Path) -> None:
    """Refuse linked folders inside a raw folder: DVC does not look into them, so it would not see their images change.

    Raises:
        VerisynthError: naming the first one.
    """
    for folder, names, _ in os.walk(root):
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink():
                raise VerisynthError(f"{path} is a linked folder, which DVC does not look into; link {root} as a whole")


def name_of(path: Path, root: Path) -> str:
    """The relative path with forward slashes; bytes that are no UTF-8 are escaped, so that it can always be written."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ImageError: for what is no regular file, too large to be an image we take, or unreadable.
    """
    if not path.is_file():
        raise UnusableError("not_a_file", "a broken link or a special file")
    try:
        size = path.stat().st_size
        if size > MAXIMUM_FILE_BYTES:
            raise ImageError("image_too_large", f"the file has {size} bytes; at most {MAXIMUM_FILE_BYTES} are taken")
        return path.read_bytes()
    except OSError as error:
        raise UnusableError("unreadable", f"the file cannot be read: {error.strerror}") from error
