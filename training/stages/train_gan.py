"""Stage train_gan@D-R: train a recipe on a prepared dataset.  python -m training.stages.train_gan D R

Leaves `generator.pt`, `metrics.json`, `stats.jsonl`, `looks.jsonl`, and of every look a grid in `grids/` and the
generator in `snapshots/`. A stopped training goes on from its checkpoint. VERISYNTH_DEVICES=2 trains on two GPUs.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from training import checkpoints, folders, params, tracking
from training.border import border
from training.data import prepared
from training.data.prepared import PreparedSplit
from training.evaluation import fidelity
from training.gans import conditioning, geometry, loop, recipes, watch
from training.gans.fabric import launch
from training.reading import ParamsError


def train_gan(dataset: str, recipe: str) -> None:
    """Train one GAN."""
    configuration = params.load()
    entry, settings = configuration.dataset(dataset), configuration.gan(dataset, recipe)
    info = prepared.read_dataset(folders.prepared(dataset))
    real = {split: prepared.load(folders.prepared(dataset), split) for split in ("train", "validation")}
    labels = recipes.UNLABELLED
    if entry.train_gan.conditional:
        labels = conditioning.labels_of(dataset, info.labels, real["train"].labels)
    training = loop.GanTraining(recipe, entry.prepare.image, settings, entry.train_gan, labels, info.content_hash)
    record = tracking.Record(
        "train_gan",
        f"{dataset}-{recipe}",
        dataset,
        {"recipe": recipe} | asdict(entry.train_gan) | asdict(settings),
        tracking.lineage(info),
    )
    work, out = folders.checkpoints(dataset, recipe), folders.gan(dataset, recipe)
    if record.is_of(out):
        print(f"train_gan@{dataset}-{recipe} is done, as params.yaml says; remove {out} to repeat it", file=sys.stderr)
        return
    images, held_out = (
        _with_masks(dataset, split) if recipes.RECIPES[recipe].draws_masks else np.asarray(split.images)
        for split in real.values()
    )
    fabric = launch()
    if fabric.is_global_zero:
        checkpoints.claim(work, training.identity)
    with tracking.run(record, work, enabled=fabric.is_global_zero) as run:
        outcome = loop.train(
            training,
            images,
            real["train"].labels if labels.names else None,
            _validator(images, held_out, entry.prepare.image.channels),
            work,
            run.metrics,
            fabric,
            f"training {recipe} on {dataset}",
        )
        if outcome is None:
            return
        _write(outcome, work, out)
        record.write(out)
        run.finish(out)
    shutil.rmtree(work)
    print(f"train_gan@{dataset}-{recipe} took {time.process_time() / 60:.1f} minutes of CPU time", file=sys.stderr)
    if outcome.ended != loop.AS_PLANNED:
        print(
            f"train_gan@{dataset}-{recipe} ended early: {outcome.ended}. Kept is the generator after "
            f"{outcome.kept_at_images} images, the best until then (KID {outcome.kid:.3f})",
            file=sys.stderr,
        )


def _with_masks(dataset: str, split: PreparedSplit) -> np.ndarray:
    """Images with the distances of their masks as one more channel."""
    if split.masks is None:
        raise ParamsError(f"recipe dual needs masks, and dataset {dataset} has none; give it a source with masks")
    if (split.masks == split.masks[0]).all():
        raise ParamsError(f"recipe dual needs masks that differ, and all masks of dataset {dataset} are the same one")
    return np.concatenate([split.images, geometry.distances(split.masks)[..., None]], axis=3)


def _validator(train: np.ndarray, held_out: np.ndarray, channels: int) -> Callable[[np.ndarray], float]:
    """From generated images to their KID; the mean of images' and masks' where these are one more channel."""
    images = fidelity.validator(train[..., :channels], held_out[..., :channels])
    if train.shape[3] == channels:
        return images
    masks = fidelity.validator(train[..., channels:], held_out[..., channels:])
    return lambda drawn: (images(drawn[..., :channels]) + masks(drawn[..., channels:])) / 2


def _write(outcome: loop.Outcome, work: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    outcome.trained.save(out / recipes.GENERATOR_FILE)
    for name in (loop.STATS_FILE, watch.LOOKS_FILE):
        shutil.copy(work / name, out)
    for folder in (watch.GRIDS_FOLDER, watch.SNAPSHOTS_FOLDER):
        shutil.copytree(work / folder, out / folder)
    numbers = {
        "images_seen": outcome.images_seen,
        "kept_at_images": outcome.kept_at_images,
        "kid_against_validation": outcome.kid,
        "ended": outcome.ended,
    }
    (out / tracking.METRICS).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("recipe")
    arguments = parser.parse_args()
    with border("train_gan", f"{arguments.dataset}-{arguments.recipe}"):
        train_gan(arguments.dataset, arguments.recipe)
