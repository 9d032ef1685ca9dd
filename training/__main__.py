"""The stages of one dataset, one after the other, without DVC: for a machine that has little more than a GPU.

    python -m training ihc                      # all of them
    python -m training ihc --until train_gan    # train there; with data/gans/ihc brought home:
    python -m training ihc --from sample        # the rest, where there is no GPU

A training that is finished is not repeated. What `dvc repro` adds is that no other finished stage is either, and the
stage `across`, which is of several datasets.
Without mlflow installed nothing is tracked.
VERISYNTH_DEVICES=2 trains on two GPUs.
"""

import argparse
import signal
import subprocess
import sys

from training import params
from training.border import border
from training.params import Params

STAGES = ("prepare", "train_gan", "sample", "train_detector", "evaluate", "pairs", "study", "export", "register")
PER_RECIPE = ("train_gan", "sample")


def commands(configuration: Params, dataset: str, first: str, last: str) -> list[list[str]]:
    """The arguments of every stage to run, in order."""
    chosen = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    recipes = [[recipe] for recipe in configuration.recipes_of(dataset)]
    run = configuration.run
    cells: dict[str, list[list[str]]] = dict.fromkeys(PER_RECIPE, recipes)
    cells |= {
        stage: [[]] if dataset in asked else [] for stage, asked in (("pairs", run.pairs), ("study", run.studies))
    }
    return [[f"training.stages.{stage}", dataset, *cell] for stage in chosen for cell in cells.get(stage, [[]])]


def run(command: list[str]) -> int:
    """The exit status of a stage in a process of its own: with several GPUs it starts itself again for each.

    Ctrl-C reaches the stage from the terminal, SIGTERM through us; we wait until it has saved what it has.
    """
    process = subprocess.Popen([sys.executable, "-m", *command])  # noqa: S603 - our own modules
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        return process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
            status = run(command)
            if status:
                sys.exit(status)


if __name__ == "__main__":
    main()
