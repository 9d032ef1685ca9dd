import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from contracts.card import card
from contracts.ledger import Ledger
from contracts.manifest import Release
from tests.training.releases.altered import write_altered_release
from training.releases import registry
from training.releases.gate import Decision, Rule

PASSED = Decision(
    (Rule("quality", True, "no champion yet", numbers={"candidate_kid": 0.25}), Rule("authenticity", False, "x", False))
)
REFUSED = Decision((Rule("quality", False, "worse", numbers={"candidate_kid": 0.5}),))


@pytest.fixture
def release(tracked: None, tmp_path: Path) -> Release:
    return write_altered_release(tmp_path / "first" / "cells")


@pytest.fixture
def other(release: Release, tmp_path: Path) -> Release:
    return write_altered_release(tmp_path / "second" / "cells", generator={"middle": 120})


def register(release: Release, decision: Decision) -> None:
    document = {"candidate": release.version, "rules": [asdict(rule) for rule in decision.rules]}
    registry.register(mlflow, release, decision, document, {"evaluate": "a-run"})


def runs() -> list[Any]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("verisynth/cells")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


def aliases(graph: str) -> dict[str, str]:
    """The release's version by alias."""
    client = mlflow.MlflowClient()
    name = f"verisynth-cells-{graph}"
    found = client.get_registered_model(name).aliases
    return {alias: client.get_model_version(name, number).tags["verisynth.version"] for alias, number in found.items()}


def test_both_graphs_are_registered_with_their_card_and_load_again(release: Release) -> None:
    register(release, PASSED)
    registry.point(mlflow, "cells", Ledger(champion=release.version))
    client = mlflow.MlflowClient()
    for graph in ("generator", "detector"):
        version = client.get_model_version_by_alias(f"verisynth-cells-{graph}", "champion")
        assert version.tags["verisynth.version"] == release.version
        assert version.description == card(release.manifest)[:5000]
        info = mlflow.models.get_model_info(f"models:/verisynth-cells-{graph}@champion")
        assert info.signature is not None
        assert info.signature.outputs.input_names() == list(release.manifest[graph]["outputs"])
        assert json.loads(info.metadata["manifest"])["version"] == release.version
    loaded = mlflow.onnx.load_model("models:/verisynth-cells-detector@champion")
    assert [node.name for node in loaded.graph.input] == ["image"]
    size, channels = release.image.size, release.image.channels
    scores = mlflow.pyfunc.load_model("models:/verisynth-cells-detector@champion").predict(
        {"image": np.zeros((2, size, size, channels), dtype=np.uint8)}
    )
    assert scores["synthetic_probability"].shape == (2,)


def test_the_decision_is_a_run_with_every_rule_and_its_numbers(release: Release) -> None:
    register(release, PASSED)
    (run,) = runs()
    assert run.info.run_name == "register@cells"
    assert run.data.tags["verisynth.passed"] == "true"
    assert run.data.tags["verisynth.version"] == release.version
    assert run.data.tags["verisynth.run.evaluate"] == "a-run"
    rules = {name: value for name, value in run.data.tags.items() if name.startswith("verisynth.rule.")}
    assert rules == {"verisynth.rule.quality": "passed", "verisynth.rule.authenticity": "failed"}
    assert run.data.metrics == {"quality/candidate_kid": 0.25}
    document = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/decision.json")
    assert document["rules"][0]["detail"] == "no champion yet"
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/card.md") == card(release.manifest)
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/manifest.json") == release.manifest


def test_neither_a_release_nor_a_decision_is_logged_twice(release: Release) -> None:
    register(release, PASSED)
    register(release, PASSED)
    assert len(runs()) == 1
    register(release, REFUSED)
    assert [run.data.tags["verisynth.passed"] for run in runs()] == ["true", "false"]
    assert len(mlflow.MlflowClient().search_model_versions("name = 'verisynth-cells-generator'")) == 1


def test_the_aliases_follow_the_ledger(release: Release, other: Release) -> None:
    register(release, PASSED)
    register(other, REFUSED)
    one, two = release.version, other.version
    for ledger in (
        Ledger(champion=one, challenger=two),
        Ledger(champion=two, previous=one),
        Ledger(champion=one, withdrawn=(two,)),
    ):
        registry.point(mlflow, "cells", ledger)
        assert aliases("generator") == aliases("detector") == ledger.versions()


def test_a_role_whose_release_the_registry_lacks_has_no_alias(release: Release) -> None:
    registry.point(mlflow, "cells", Ledger(champion="unknown"))
    register(release, PASSED)
    registry.point(mlflow, "cells", Ledger(champion=release.version))
    registry.point(mlflow, "cells", Ledger(champion="unknown", previous=release.version))
    assert aliases("detector") == {"previous": release.version}
