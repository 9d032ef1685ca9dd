"""The MLflow model registry: both graphs of a release as versions of their models, under aliases for its roles.

The aliases `champion`, `challenger` and `previous` follow the ledger; the decision that moved them is a run.
"""

import hashlib
import json
from typing import Any

from contracts import card, manifest
from contracts.manifest import Release
from training.releases.gate import Decision
from training.releases.ledger import ROLES, Ledger

GRAPHS = {"generator": manifest.GENERATOR, "detector": manifest.DETECTOR}
VERSION_TAG = "verisynth.version"
DECISION_TAG = "verisynth.decision"
DESCRIPTION_LIMIT = 5000
"""Characters that MLflow's databases hold; the whole card is an artifact of the run."""


def model_name(dataset: str, graph: str) -> str:
    """The registered model's name: `verisynth-ihc-generator`."""
    return f"verisynth-{dataset}-{graph}"


def register(
    mlflow: Any, release: Release, decision: Decision, document: dict[str, Any], run_ids: dict[str, str]
) -> None:
    """Register a release's graphs and log the decision on it, unless both are there already.

    `document` is the decision as `reports/` holds it; `run_ids` are the runs that made the release, by stage.
    """
    client = mlflow.MlflowClient()
    content = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    missing = [graph for graph in GRAPHS if _known_version(client, release.name, graph, release.version) is None]
    experiment = mlflow.set_experiment(f"verisynth/{release.name}")
    known = f"tags.`{DECISION_TAG}` = '{content}' and attributes.status = 'FINISHED'"
    if not missing and client.search_runs([experiment.experiment_id], known, max_results=1):
        return
    text = card.card(release.manifest)
    with mlflow.start_run(run_name=f"register@{release.name}"):
        mlflow.set_tags({"stage": "register", "dataset": release.name, VERSION_TAG: release.version})
        mlflow.set_tags({f"verisynth.run.{stage}": run_id for stage, run_id in run_ids.items()})
        mlflow.set_tags({DECISION_TAG: content, "verisynth.passed": str(decision.passed).lower()})
        for rule in decision.rules:
            mlflow.set_tag(f"verisynth.rule.{rule.name}", "passed" if rule.passed else "failed")
            mlflow.log_metrics({f"{rule.name}/{name}": number for name, number in rule.numbers.items()})
        mlflow.log_artifact(str(release.folder / manifest.FILE_NAME))
        mlflow.log_dict(document, "decision.json")
        mlflow.log_text(text, "card.md")
        for graph in missing:
            _log(mlflow, client, release, graph, text)


def point(mlflow: Any, dataset: str, ledger: Ledger) -> None:
    """Make the aliases of both models follow the ledger.

    An alias is absent where nobody has the role, or where the registry lacks the release.
    """
    client = mlflow.MlflowClient()
    models = {model.name for model in client.search_registered_models()}
    for graph in GRAPHS:
        name = model_name(dataset, graph)
        if name not in models:
            continue
        for role in ROLES:
            holder = ledger.versions().get(role)
            version = _known_version(client, dataset, graph, holder) if holder else None
            if version is None:
                client.delete_registered_model_alias(name, role)
            else:
                client.set_registered_model_alias(name, role, version)


def _known_version(client: Any, dataset: str, graph: str, release_version: str) -> str | None:
    name = model_name(dataset, graph)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(VERSION_TAG) == release_version:
            return str(version.version)
    return None


def _log(mlflow: Any, client: Any, release: Release, graph: str, text: str) -> None:
    import onnx

    name = model_name(release.name, graph)
    logged = mlflow.onnx.log_model(
        onnx.load(release.folder / GRAPHS[graph]),
        name=graph,
        signature=_signature(release.manifest[graph]),
        save_as_external_data=False,
        registered_model_name=name,
        pip_requirements=["onnxruntime", "numpy"],
        metadata={"manifest": json.dumps(release.manifest, sort_keys=True)},
    )
    version = str(logged.registered_model_version)
    client.update_model_version(name, version, description=text[:DESCRIPTION_LIMIT])
    # Last: a version without this tag was not registered whole, and is registered again.
    client.set_model_version_tag(name, version, VERSION_TAG, release.version)


def _signature(tensors: dict[str, Any]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(specs: dict[str, Any]) -> Schema:
        return Schema(
            [
                TensorSpec(
                    np.dtype(spec["dtype"]),
                    tuple(side if isinstance(side, int) else -1 for side in spec["shape"]),
                    name,
                )
                for name, spec in specs.items()
            ]
        )

    return ModelSignature(inputs=schema(tensors["inputs"]), outputs=schema(tensors["outputs"]))
