"""Put the release that MLflow's registry calls champion into `models/`.  python -m training.releases.follow ihc

Where somebody moved the alias `champion`, in MLflow's own page or from another machine, the release's folder is fetched
from the run that registered it, verified, and takes the champion's place in the ledger and in `models/`. A running
service picks it up. `--every-seconds 30` goes on looking.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contracts import ledger
from contracts.errors import ReleaseError, VerisynthError
from contracts.ledger import Ledger
from contracts.manifest import Release, read_release
from training import folders, tracking
from training.border import border
from training.releases import registry


class FollowError(VerisynthError):
    """An alias that cannot be followed."""


def follow(mlflow: Any, dataset: str) -> Ledger | None:
    """Make the release under the alias `champion` the one in `models/`; None where it is that already.

    Raises:
        RegistryError: without such an alias on both graphs, or with different releases under them.
        FollowError: for a release that was withdrawn, or one whose folder is not in the registry.
        LedgerError: while the releases are changed by somebody else.
    """
    version = registry.champion(mlflow, dataset)
    with ledger.held(folders.MODELS, dataset):
        before = ledger.load(folders.MODELS, dataset)
        served = ledger.readable(folders.release(dataset))
        if version == before.champion and served is not None and served.version == version:
            return None
        if version in before.withdrawn:
            raise FollowError(
                f"{version} is champion in MLflow, and was withdrawn here; move the alias, or forgive it: "
                f"`python -m training.releases.rollback {dataset} --forgive {version}`"
            )
        with tempfile.TemporaryDirectory() as temporary:
            ledger.keep(folders.MODELS, _release(mlflow, dataset, version, Path(temporary)))
        after = before.judged(version, passed=True)
        ledger.save(folders.MODELS, dataset, after)
        ledger.settle(folders.MODELS, dataset, after)
        registry.point(mlflow, dataset, after)
    return after


def _release(mlflow: Any, dataset: str, version: str, target: Path) -> Release:
    """From the archive, or from the registry into `target`."""
    try:
        return ledger.archived(folders.MODELS, dataset, version)
    except ReleaseError:
        folder = registry.fetch(mlflow, dataset, version, target)
    if folder is None:
        raise FollowError(
            f"MLflow holds no folder of release {version} of {dataset}: it was registered before folders were kept; "
            f"copy the release into {folders.release(dataset)} where you have it"
        )
    release = read_release(folder)
    if (release.name, release.version) != (dataset, version):
        raise FollowError(f"MLflow has release {release.version} of {release.name} in the place of {version}")
    return release


def _follow_on(mlflow: Any, dataset: str, every_seconds: float) -> None:
    """Until Ctrl-C; what goes wrong is said each time, and tried again."""
    while True:
        try:
            _say(dataset, follow(mlflow, dataset))
        except (VerisynthError, mlflow.exceptions.MlflowException) as error:
            print(f"follow@{dataset}: {error}", file=sys.stderr)
        time.sleep(every_seconds)


def _say(dataset: str, now: Ledger | None) -> None:
    if now is not None:
        print(f"{dataset}: {now.champion} is champion and in {folders.release(dataset)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--every-seconds", type=float, help="look again and again; left out: once")
    arguments = parser.parse_args()
    with border("follow", arguments.dataset, go_on="the same command"):
        client = tracking.client()
        if client is None:
            raise FollowError("mlflow is not installed; `make setup` installs it")
        if arguments.every_seconds is None:
            _say(arguments.dataset, follow(client, arguments.dataset))
        else:
            _follow_on(client, arguments.dataset, arguments.every_seconds)
