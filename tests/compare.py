"""What a recipe gains over a baseline that is given as much CPU time, into reports/compare.jsonl.

    make repro                                                # builds data/gans/NAME/dcgan_grain
    OMP_NUM_THREADS=1 python -m tests.compare ihc --cpu-minutes 10 --seed 0

The baseline is trained here, without labels as in its paper, with its last weights; the recipe is taken as the pipeline
left it, whose training prints its CPU minutes. Both are measured on the same held-out images, beside the floor.
With --train-recipe the recipe is trained here too, for as long: for more seeds than the pipeline's.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training import folders, params
from training.data import prepared
from training.data.prepared import PreparedSplit
from training.evaluation import fidelity, privacy, spaces
from training.gans import conditioning, loop, recipes
from training.gans.fabric import launch
from training.gans.recipes import Trained

REPORT = Path("reports/compare.jsonl")
SAMPLES = 400
SAMPLE_SEED = 7
TRIAL_IMAGES = (1600, 4800)
"""Lengths of two short trainings: their difference is free of what starting costs."""


def trained_for(
    cpu_seconds: float, dataset: str, recipe: str, labelled: bool, seed: int, real: dict[str, PreparedSplit]
) -> tuple[loop.Outcome, float]:
    """A recipe trained for some CPU time, by its speed in a short trial, and the time that it took."""
    configuration = params.load()
    entry, settings = configuration.dataset(dataset), configuration.gan(dataset, recipe)
    info = prepared.read_dataset(folders.prepared(dataset))
    conditional = labelled and entry.train_gan.conditional
    labels = conditioning.labels_of(dataset, info.labels, real["train"].labels) if conditional else recipes.UNLABELLED
    images, fabric = np.asarray(real["train"].images), launch()
    validate = fidelity.validator(images, np.asarray(real["validation"].images))

    def train(length: int, looking: int) -> tuple[loop.Outcome, float]:
        options = replace(entry.train_gan, images=length, seed=seed, conditional=conditional)
        task = loop.GanTraining(
            recipe, entry.prepare.image, replace(settings, look_every_images=looking), options, labels, "compare"
        )
        with tempfile.TemporaryDirectory() as work:
            start = time.process_time()
            outcome = loop.train(
                task,
                images,
                real["train"].labels if conditional else None,
                validate,
                Path(work) / "work",
                lambda numbers, seen: None,
                fabric,
                f"{recipe} of {dataset}",
            )
            assert outcome is not None
            return outcome, time.process_time() - start

    (_, short), (_, long) = (train(length, looking=10**9) for length in TRIAL_IMAGES)
    per_image = (long - short) / (TRIAL_IMAGES[1] - TRIAL_IMAGES[0])
    return train(int(cpu_seconds / per_image), settings.look_every_images)


def measured(trained: Trained, real: dict[str, PreparedSplit], neighbours: int, flips: list[str]) -> dict[str, Any]:
    """KID, recall and coverage per weight-free space, against held-out images; the distance to training ones."""
    train, test = (np.asarray(real[split].images) for split in ("train", "test"))
    fakes = trained.generate(SAMPLE_SEED, 0, SAMPLES)
    numbers: dict[str, Any] = {}
    for space in spaces.weight_free(train):
        fake, held_out = space.coordinates(fakes), space.coordinates(test)
        count = min(len(fake), len(held_out))
        near = fidelity.neighbourhoods(held_out[:count], fake[:count], neighbours)
        numbers[space.name] = {
            "kid": fidelity.squared_discrepancy(fake, held_out),
            "recall": near["recall"],
            "coverage": near["coverage"],
        }
    nearest = privacy.nearest(fakes, train, flips)
    return numbers | {
        "mean_kid": float(np.mean([one["kid"] for one in numbers.values()])),
        "median_distance_to_training": float(np.median(nearest.distances)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--recipe", default="dcgan_grain")
    parser.add_argument("--baseline", default="dcgan")
    parser.add_argument("--cpu-minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-recipe", action="store_true")
    arguments = parser.parse_args()
    neighbours, seconds = params.load().evaluate.neighbours, arguments.cpu_minutes * 60
    REPORT.parent.mkdir(exist_ok=True)
    for dataset in arguments.datasets:
        real = {split: prepared.load(folders.prepared(dataset), split) for split in prepared.SPLITS}
        flips = params.load().dataset(dataset).train_gan.flips
        row: dict[str, Any] = {"dataset": dataset, "seed": arguments.seed}
        trainings = [(arguments.baseline, False)] + ([(arguments.recipe, True)] if arguments.train_recipe else [])
        for recipe, labelled in trainings:
            outcome, spent = trained_for(seconds, dataset, recipe, labelled, arguments.seed, real)
            row[recipe] = measured(outcome.trained, real, neighbours, flips) | {
                "cpu_minutes": round(spent / 60, 1),
                "images": outcome.images_seen,
                "ended": outcome.ended,
            }
        if not arguments.train_recipe:
            built = Trained.load(folders.gan(dataset, arguments.recipe) / recipes.GENERATOR_FILE)
            row[arguments.recipe] = measured(built, real, neighbours, flips)
        row["kid_ratio"] = row[arguments.recipe]["mean_kid"] / row[arguments.baseline]["mean_kid"]
        with REPORT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
