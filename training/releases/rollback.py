"""Put a dataset's previous release back and withdraw the champion.  make rollback NAME=ihc

`python -m training.releases.rollback NAME --forgive VERSION` lets a withdrawn release be judged again.
"""

import argparse

from contracts.manifest import FILE_NAME
from training import folders, tracking
from training.border import border
from training.releases import ledger, registry
from training.releases.ledger import Ledger, LedgerError


def roll_back(dataset: str) -> Ledger:
    """Make the previous release champion, in the folders and in the MLflow registry; the champion is withdrawn.

    Where a rollback was stopped before `models/` followed, this one finishes it and withdraws nothing more.

    Raises:
        LedgerError: for a dataset without releases, or without a previous one.
    """
    before = _load(dataset)
    served = ledger.readable(folders.release(dataset))
    stopped = served is not None and served.version in before.withdrawn
    after = before if stopped else before.rolled_back()
    ledger.save(dataset, after)
    ledger.settle(dataset, after)
    mlflow = tracking.client()
    if mlflow is not None:
        registry.point(mlflow, dataset, after)
    return after


def forgive(dataset: str, version: str) -> Ledger:
    """Let a withdrawn release be judged again.

    Raises:
        LedgerError: for a dataset without releases, or a version that is not withdrawn.
    """
    after = _load(dataset).forgiven(version)
    ledger.save(dataset, after)
    return after


def _load(dataset: str) -> Ledger:
    places = folders.archive(dataset) / ledger.FILE, folders.release(dataset) / FILE_NAME
    if not any(place.is_file() for place in places):
        known = sorted(path.name for path in folders.archive(dataset).parent.glob("*") if path.is_dir())
        raise LedgerError(f"there are no releases of {dataset!r}; known: {', '.join(known) or 'none'}")
    return ledger.load(dataset)


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
                f"withdrawn: {', '.join(now.withdrawn)}. Restart the service to serve it"
            )
