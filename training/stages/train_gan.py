"""Stage train_gan@D-R: train a recipe on a prepared dataset.  python -m training.stages.train_gan D R

Leaves `generator.pt` (averaged weights), `stats.jsonl` and `grids/`. A stopped training goes on from its checkpoint.
"""

import argparse
import shutil
from dataclasses import asdict

from training import checkpoints, folders, params, tracking
from training.border import border
from training.data import prepared
from training.gans import loop, recipes


def train_gan(dataset: str, recipe: str) -> None:
    """Train one GAN."""
    configuration = params.load()
    entry, settings = configuration.dataset(dataset), configuration.gan(dataset, recipe)
    info = prepared.read_dataset(folders.prepared(dataset))
    real = prepared.load(folders.prepared(dataset), "train")
    training = loop.GanTraining(recipe, entry.prepare.image, settings, entry.train_gan, info.content_hash)
    record = tracking.Record(
        "train_gan",
        f"{dataset}-{recipe}",
        dataset,
        {"recipe": recipe, "images": entry.train_gan.images, "flips": entry.train_gan.flips} | asdict(settings),
        tracking.lineage(info),
    )
    work, out = folders.checkpoints(dataset, recipe), folders.gan(dataset, recipe)
    checkpoints.claim(work, training.identity)
    with tracking.run(record, work) as run:
        generator = loop.train(training, real.images, work, run.metrics, f"training {recipe} on {dataset}")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        recipes.save_generator(out / recipes.GENERATOR_FILE, generator, recipe, entry.prepare.image, settings)
        shutil.copy(work / loop.STATS_FILE, out)
        shutil.copytree(work / loop.GRIDS_FOLDER, out / loop.GRIDS_FOLDER)
        record.write(out)
        run.finish(out)
    shutil.rmtree(work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("recipe")
    arguments = parser.parse_args()
    with border("train_gan", f"{arguments.dataset}-{arguments.recipe}"):
        train_gan(arguments.dataset, arguments.recipe)
