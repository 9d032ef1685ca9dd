"""Write a collection, a versioned set of generated images that describes itself, after SynthMed (Guibas et al.).

    python -m training.collections retina --count 5000             # or: make collection NAME=retina COUNT=5000
    python -m training.collections retina --count 5000 --shard 3   # that shard alone, bit for bit the same

Out of the release in `models/NAME`, into `collections/NAME/VERSION`. A stopped run goes on where it stopped. Images
that look like copies of training images are left out and counted.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from contracts.collection import CARD, CHECKSUMS, CROISSANT, PROVENANCE, RECORDS
from contracts.errors import VerisynthError
from contracts.manifest import Release, read_release
from training import folders, params, progress
from training.border import border
from training.collections import description, shards
from training.collections.shards import Guard
from training.data import prepared


class CollectionError(VerisynthError):
    """A collection that cannot be made as asked."""


def collect(dataset: str, count: int, seed: int, only: int | None = None) -> Path:
    """Write a collection of `count` images of a dataset's release, or the shard `only` of it; its folder.

    Raises:
        CollectionError: a count or shard that makes no sense, or prepared images that the release was not trained on.
        ReleaseError: a release that is missing or altered.
    """
    if count < 1:
        raise CollectionError(f"count is {count}; ask for at least one image")
    if seed < 0:
        raise CollectionError(f"seed is {seed}; it must be at least 0")
    total = shards.count_of(count)
    if only is not None and not 0 <= only < total:
        raise CollectionError(f"shard is {only}; {count} images are in the shards 0 to {total - 1}")
    release = read_release(folders.release(dataset))
    version = version_of(release, count, seed)
    out = folders.collection(dataset, version)
    wanted = list(shards.missing(out, count)) if only is None else [only]
    if wanted:
        guard = _guard(dataset, release)
        with progress.bar(total, f"collecting {dataset}", "shards", initial=total - len(wanted)) as bar:
            for number in wanted:
                shards.write(out, release, seed, number, count, guard)
                bar.update()
    if not list(shards.missing(out, count)):
        _describe(out, dataset, version, release, seed, count)
    return out


def version_of(release: Release, count: int, seed: int) -> str:
    """Of what a collection holds: the model's version, how many images and which; 12 hexadecimal digits."""
    return hashlib.sha256(f"{release.version} {count} {seed}".encode()).hexdigest()[:12]


def _describe(out: Path, name: str, version: str, release: Release, seed: int, count: int) -> None:
    total = shards.count_of(count)
    found = [shards.read(out, number) for number in range(total)]
    made = description.provenance(release, seed, count, found)
    shards.join_tables(out, total, out / RECORDS)
    (out / PROVENANCE).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    (out / CARD).write_text(description.data_card(name, version, release, made), encoding="utf-8")
    text = description.croissant(out, name, version, release, made, total)
    (out / CROISSANT).write_text(text, encoding="utf-8")
    (out / CHECKSUMS).write_text(description.checksums(out), encoding="utf-8")


def _guard(dataset: str, release: Release) -> Guard:
    """Of the training images of the release, and of no others: beside these its copies would look new."""
    folder = folders.prepared(dataset)
    found, wanted = prepared.read_dataset(folder).content_hash, release.manifest["data"]["content_hash"]
    if found != wanted:
        raise CollectionError(
            f"{folder} holds other images (content_hash {found}) than version {release.version} of {dataset} was "
            f"trained on ({wanted}), so copies would not be seen: prepare those again, or release a model of these"
        )
    flips = params.load().dataset(dataset).train_gan.flips
    train, held_out = (np.asarray(prepared.load(folder, split).images) for split in ("train", "test"))
    return Guard.of(train, held_out, flips)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--count", type=int, default=1000, help="images to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", type=int, help="write this one alone")
    arguments = parser.parse_args()
    with border("collection", arguments.dataset, go_on="the same command; whole shards are kept"):
        print(collect(arguments.dataset, arguments.count, arguments.seed, arguments.shard))
