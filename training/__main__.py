"""The stages of one dataset, one after the other, without DVC: for a machine that has little more than a GPU.

    python -m training ihc                      # all of them
    python -m training ihc --until train_gan    # train, and take data/gans/ihc home

What `dvc repro` adds is that finished stages are not run again. Without mlflow installed nothing is tracked.
VERISYNTH_DEVICES=2 trains on two GPUs.
"""

import argparse
import subprocess
import sys

from training import params
from training.border import border
from training.params import Params

STAGES = ("prepare", "train_gan", "sample", "train_detector", "evaluate", "export", "register")
PER_RECIPE = ("train_gan", "sample")


def commands(configuration: Params, dataset: str, first: str, last: str) -> list[list[str]]:
    """The arguments of every stage to run, in order."""
    chosen = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    return [
        [f"training.stages.{stage}", dataset, *cell]
        for stage in chosen
        for cell in ([[recipe] for recipe in configuration.run.recipes] if stage in PER_RECIPE else [[]])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--from", dest="first", choices=STAGES, default=STAGES[0], help="the first stage to run")
    parser.add_argument("--until", dest="last", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    arguments = parser.parse_args()
    with border("training", arguments.dataset, go_on="the same command; a stopped training keeps its checkpoint"):
        configuration = params.load()
        configuration.dataset(arguments.dataset)
        for command in commands(configuration, arguments.dataset, arguments.first, arguments.last):
            # A process each: several GPUs start the stage again per GPU, and memory is given back.
            status = subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603 - our own
            if status:
                sys.exit(status)


if __name__ == "__main__":
    main()
