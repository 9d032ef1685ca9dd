"""Stage sample@D-R: generated images for detectors and evaluation.  python -m training.stages.sample D R

Leaves uint8 arrays `train.npy`, `validation.npy` and `test.npy`: disjoint index ranges of one seed. Of a conditional
GAN also `train_labels.npy` and so on. For detectors, which are to know more than one state of a generator,
`train_variants.npy`: images of earlier snapshots and of truncated latents.
"""

import argparse
import shutil

import numpy as np

from training import device, folders, params, progress
from training.border import border
from training.gans import recipes, watch
from training.gans.recipes import Trained

SPLITS = ("train", "validation", "test")
TRUNCATIONS = (0.7, 0.4)
SNAPSHOTS = 3


def sample(dataset: str, recipe: str) -> None:
    """Generate the images of all three splits."""
    settings = params.load().sample
    trained = recipes.Trained.load(folders.gan(dataset, recipe) / recipes.GENERATOR_FILE).to(device.choose())
    out = folders.samples(dataset, recipe)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    counts = {split: getattr(settings, split) for split in SPLITS}
    start = 0
    with progress.bar(sum(counts.values()), f"sampling {recipe} of {dataset}", "images") as bar:
        for split, count in counts.items():
            np.save(out / f"{split}.npy", trained.generate(settings.seed, start, count))
            labels = trained.labels_of(settings.seed, start, count)
            if labels is not None:
                np.save(out / f"{split}_labels.npy", labels)
            start += count
            bar.update(count)
    variants = _variants(dataset, recipe, trained, settings.seed, start, settings.variants)
    np.save(folders.variants(dataset, recipe), variants)


def _variants(dataset: str, recipe: str, trained: Trained, seed: int, start: int, count: int) -> np.ndarray:
    """Images uint8 [count, H, W, C], evenly of truncated latents and of snapshots before the last."""
    paths = sorted((folders.gan(dataset, recipe) / watch.SNAPSHOTS_FOLDER).glob("*.pt"))[:-1]
    device_used = next(trained.generator.parameters()).device
    generators = [(trained, truncation) for truncation in TRUNCATIONS]
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(SNAPSHOTS, len(paths))).round().astype(int))
    generators += [(Trained.load(paths[row]).to(device_used), 1.0) for row in chosen]
    parts = np.diff(np.linspace(0, count, len(generators) + 1).astype(int))
    starts = start + np.cumsum(parts) - parts
    return np.concatenate(
        [
            one.generate(seed, int(first), int(part), truncation)
            for (one, truncation), first, part in zip(generators, starts, parts, strict=True)
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("recipe")
    arguments = parser.parse_args()
    with border("sample", f"{arguments.dataset}-{arguments.recipe}"):
        sample(arguments.dataset, arguments.recipe)
