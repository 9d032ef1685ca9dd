"""Stage register@D: the release into the MLflow registry as `champion`.  python -m training.stages.register D

Makes the runs of cached stages again where the tracking store lacks them: a cached stage is not a missing run.
"""

import argparse
import json

from contracts.manifest import read_release
from training import folders, params, registry, tracking
from training.border import border


def register(dataset: str) -> None:
    """Register the release of a dataset."""
    release = read_release(folders.release(dataset))
    stages = {f"train_gan.{recipe}": folders.gan(dataset, recipe) for recipe in params.load().run.recipes}
    stages |= {"train_detector": folders.detectors(dataset), "evaluate": folders.evaluation(dataset)}
    mlflow = tracking.client()
    models = []
    if mlflow is None:
        print("mlflow is not installed: nothing is registered, the release itself is complete")
    else:
        run_ids = {stage: tracking.ensure_run(folder) for stage, folder in stages.items()}
        models = sorted(registry.register(mlflow, release, {stage: str(run) for stage, run in run_ids.items()}))
        print(f"{', '.join(models)}: version {release.version} is `{registry.ALIAS}`")
    path = folders.registry(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"version": release.version, "models": models, "alias": registry.ALIAS}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("register", arguments.dataset):
        register(arguments.dataset)
