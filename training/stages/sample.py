"""Stage sample@D-R: generated images for detectors and evaluation.  python -m training.stages.sample D R

Leaves uint8 arrays `train.npy`, `validation.npy` and `test.npy`: disjoint index ranges of one seed. Of a conditional
GAN also `train_labels.npy` and so on.
"""

import argparse
import shutil

import numpy as np

from training import device, folders, params, progress
from training.border import border
from training.gans import recipes

SPLITS = ("train", "validation", "test")


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("recipe")
    arguments = parser.parse_args()
    with border("sample", f"{arguments.dataset}-{arguments.recipe}"):
        sample(arguments.dataset, arguments.recipe)
