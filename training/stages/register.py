"""Stage register@D: the gate between a new release and `models/D/`.  python -m training.stages.register D

Compares the candidate with the champion, moves champion, challenger and previous accordingly, lets `models/D/` and the
MLflow registry follow, and leaves the decision and the champion's model card in `reports/registry/`.
Makes the runs of cached stages again where the tracking store lacks them: a cached stage is not a missing run.
"""

import argparse
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from contracts import card, ledger
from contracts.errors import VerisynthError
from contracts.ledger import Ledger
from contracts.manifest import Release, read_release
from training import folders, params, tracking
from training.border import border
from training.data import prepared
from training.evaluation import detection
from training.releases import gate, registry
from training.releases.gate import Decision, Evidence


class RefusedError(VerisynthError):
    """A first release that did not pass the gate: there is nothing to serve."""


def register(dataset: str) -> None:
    """Judge the candidate of a dataset and let everything follow the decision.

    Raises:
        RefusedError: when the candidate does not pass and there is no champion that could stay; its card is then left.
        LedgerError: while a rollback, or another `register`, changes the releases.
    """
    with ledger.held(folders.MODELS, dataset):
        _judge(dataset)


def _judge(dataset: str) -> None:
    settings = params.load()
    candidate = read_release(folders.candidate(dataset))
    before = ledger.load(folders.MODELS, dataset)
    rival = before.rival(candidate.version)
    decision = gate.decide(
        candidate,
        ledger.archived(folders.MODELS, dataset, rival) if rival else None,
        _evidence(dataset, settings.evaluate.jackknife_blocks),
        settings.gate,
        before.withdrawn,
    )
    after = before.judged(candidate.version, decision.passed)
    document = _document(candidate, rival, decision, after)
    path = folders.decision(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    ledger.keep(folders.MODELS, candidate)
    ledger.save(folders.MODELS, dataset, after)
    ledger.settle(folders.MODELS, dataset, after)
    _track(candidate, decision, document, after, settings.recipes_of(dataset))
    shown = candidate if after.champion is None else ledger.archived(folders.MODELS, dataset, after.champion)
    folders.model_card(dataset).write_text(card.card(shown.manifest), encoding="utf-8")
    if after.champion is None:
        raise RefusedError(
            f"version {candidate.version} did not pass, and there is no champion to keep serving: "
            f"{'; '.join(decision.reasons)}; improve it, or change `gate` in params.yaml; "
            f"decision and card are in {path.parent}"
        )
    print(_told(candidate, before, decision, after))


def _evidence(dataset: str, blocks: int) -> Evidence:
    folder = folders.prepared(dataset)
    test = prepared.load(folder, "test")
    _, groups = detection.independent_groups(test.rows)
    return Evidence(np.asarray(prepared.load(folder, "train").images), np.asarray(test.images), groups, blocks)


def _document(candidate: Release, rival: str | None, decision: Decision, after: Ledger) -> dict[str, Any]:
    return {
        "candidate": candidate.version,
        "compared_with": rival,
        "passed": decision.passed,
        "rules": [asdict(rule) for rule in decision.rules],
        "ledger": asdict(after),
    }


def _track(candidate: Release, decision: Decision, document: dict[str, Any], after: Ledger, recipes: list[str]) -> None:
    mlflow = tracking.client()
    if mlflow is None:
        print("mlflow is not installed: nothing is registered, the release itself is complete")
        return
    dataset = candidate.name
    stages = {f"train_gan.{recipe}": folders.gan(dataset, recipe) for recipe in recipes}
    stages |= {"train_detector": folders.detectors(dataset), "evaluate": folders.evaluation(dataset)}
    run_ids = {stage: str(tracking.ensure_run(folder)) for stage, folder in stages.items()}
    registry.register(mlflow, candidate, decision, document, run_ids)
    registry.point(mlflow, dataset, after)


def _told(candidate: Release, before: Ledger, decision: Decision, after: Ledger) -> str:
    version, dataset = candidate.version, candidate.name
    if decision.passed:
        replaces = f", {after.previous} is previous" if after.previous else ""
        return f"{dataset}: version {version} is champion{replaces}"
    if after.champion == version:
        return (
            f"{dataset}: the champion {version} would not pass today: {'; '.join(decision.reasons)}; "
            f"it stays until a better one comes, or `make rollback NAME={dataset}`"
        )
    return f"{dataset}: {before.champion} stays champion; {version} did not pass: {'; '.join(decision.reasons)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("register", arguments.dataset):
        register(arguments.dataset)
