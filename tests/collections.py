"""A small real collection for tests: what `make collection` writes, of a release that takes no training."""

from pathlib import Path
from unittest.mock import patch

from contracts.manifest import Release
from tests.releases import real_images
from training.collections import __main__ as command
from training.collections import shards
from training.collections.shards import Guard


def write_small_collection(root: Path, release: Release, images: int = 30, seed: int = 5, shard: int = 12) -> Path:
    """A whole collection of `release` below `root`, in shards of so many images; its folder `NAME/VERSION`."""
    version = command.version_of(release, images, seed)
    folder = root / release.name / version
    folder.mkdir(parents=True)
    size, channels = release.image.size, release.image.channels
    guard = Guard.of(real_images(20, size, channels), real_images(10, size, channels, seed=1), [])
    with patch.object(shards, "SHARD_IMAGES", shard):
        for number in range(shards.count_of(images)):
            shards.write(folder, release, seed, number, images, guard)
        command._describe(folder, release.name, version, release, seed, images)
    return folder
