"""Put a dataset's previous release back and withdraw the champion.  make rollback NAME=ihc

`python -m training.releases.rollback NAME --forgive VERSION` lets a withdrawn release be judged again.
"""

import argparse

from contracts import ledger
from contracts.ledger import Ledger, LedgerError
from training import folders, tracking
from training.border import border
from training.releases import registry


def roll_back(dataset: str) -> Ledger:
    """Make the previous release champion, in the folders and in the MLflow registry; the champion is withdrawn.

    Raises:
        LedgerError: for a dataset without releases, or without a previous one.
    """
    _check_known(dataset)
    with ledger.held(folders.MODELS, dataset):
        after = ledger.roll_back(folders.MODELS, dataset)
        mlflow = tracking.client()
        if mlflow is not None:
            registry.point(mlflow, dataset, after)
    return after


def forgive(dataset: str, version: str) -> Ledger:
    """Let a withdrawn release be judged again.

    Raises:
        LedgerError: for a dataset without releases, or a version that is not withdrawn.
    """
    _check_known(dataset)
    with ledger.held(folders.MODELS, dataset):
        after = ledger.load(folders.MODELS, dataset).forgiven(version)
        ledger.save(folders.MODELS, dataset, after)
    return after


def _check_known(dataset: str) -> None:
    if not ledger.known(folders.MODELS, dataset):
        archives = ledger.archive(folders.MODELS, dataset).parent
        known = sorted(path.name for path in archives.glob("*") if path.is_dir())
        raise LedgerError(f"there are no releases of {dataset!r}; known: {', '.join(known) or 'none'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--forgive", metavar="VERSION", help="a withdrawn version that may be judged again")
    arguments = parser.parse_args()
    with border("rollback", arguments.dataset, go_on="`make repro`"):
        if arguments.forgive:
            forgive(arguments.dataset, arguments.forgive)
            print(
                f"{arguments.forgive} is no longer withdrawn; "
                f"`dvc repro --force --single-item register@{arguments.dataset}` judges the candidate again"
            )
        else:
            now = roll_back(arguments.dataset)
            print(
                f"{arguments.dataset}: {now.champion} is champion again and in {folders.release(arguments.dataset)}; "
                f"withdrawn: {', '.join(now.withdrawn)}. A running service follows by itself"
            )
