"""The MLflow model registry: both graphs of a release as versions of their models, under aliases for its roles.

The aliases `champion`, `challenger` and `previous` follow the ledger; the decision that moved them is a run.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from contracts import card, manifest
from contracts.errors import VerisynthError
from contracts.ledger import ROLES, Ledger
from contracts.manifest import Release
from training.releases.gate import Decision

GRAPHS = {"generator": manifest.GENERATOR, "detector": manifest.DETECTOR}
VERSION_TAG = "verisynth.version"
DECISION_TAG = "verisynth.decision"
RUN_TAG = "verisynth.run"
"""Of a registered version: the run that holds the release's folder."""
FOLDER = "release"
CHAMPION = "champion"
DESCRIPTION_LIMIT = 5000
"""Characters that MLflow's databases hold; the whole card is an artifact of the run."""


class RegistryError(VerisynthError):
    """An alias that names no release."""


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
    with mlflow.start_run(run_name=f"register@{release.name}") as run:
        mlflow.set_tags({"stage": "register", "dataset": release.name, VERSION_TAG: release.version})
        mlflow.set_tags({f"verisynth.run.{stage}": run_id for stage, run_id in run_ids.items()})
        mlflow.set_tags({DECISION_TAG: content, "verisynth.passed": str(decision.passed).lower()})
        for rule in decision.rules:
            mlflow.set_tag(f"verisynth.rule.{rule.name}", "passed" if rule.passed else "failed")
            mlflow.log_metrics({f"{rule.name}/{name}": number for name, number in rule.numbers.items()})
        mlflow.log_artifact(str(release.folder / manifest.FILE_NAME))
        mlflow.log_dict(document, "decision.json")
        mlflow.log_text(text, "card.md")
        if missing:
            # The graphs that MLflow keeps are written anew by its own code: not the bytes of the manifest's checksums.
            mlflow.log_artifacts(str(release.folder), FOLDER)
        for graph in missing:
            _log(mlflow, client, release, graph, text, run.info.run_id)


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


def champion(mlflow: Any, dataset: str) -> str:
    """The version of the release that the alias `champion` names.

    Raises:
        RegistryError: where either graph has no such alias, or both name different releases.
    """
    client = mlflow.MlflowClient()
    registered = {model.name for model in client.search_registered_models()}
    found: dict[str, str | None] = {}
    for graph in GRAPHS:
        name = model_name(dataset, graph)
        aliases = client.get_registered_model(name).aliases if name in registered else {}
        version = client.get_model_version(name, aliases[CHAMPION]) if CHAMPION in aliases else None
        found[name] = None if version is None else version.tags.get(VERSION_TAG)
    versions = set(found.values())
    told = ", ".join(f"{name}: {version or 'none'}" for name, version in found.items())
    if len(versions) != 1:
        raise RegistryError(f"the alias {CHAMPION} names different releases ({told}); move it on both models")
    (version,) = versions
    if version is None:
        raise RegistryError(f"no release has the alias {CHAMPION} in MLflow ({told})")
    return version


def fetch(mlflow: Any, dataset: str, release_version: str, target: Path) -> Path | None:
    """The folder of a registered release, copied below `target`; None where the registry holds none."""
    client = mlflow.MlflowClient()
    name = model_name(dataset, "generator")
    number = _known_version(client, dataset, "generator", release_version)
    run_id = None if number is None else client.get_model_version(name, number).tags.get(RUN_TAG)
    if run_id is None or not client.list_artifacts(run_id, FOLDER):
        return None
    return Path(client.download_artifacts(run_id, FOLDER, str(target)))


def _known_version(client: Any, dataset: str, graph: str, release_version: str) -> str | None:
    name = model_name(dataset, graph)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(VERSION_TAG) == release_version:
            return str(version.version)
    return None


def _log(mlflow: Any, client: Any, release: Release, graph: str, text: str, run_id: str) -> None:
    import onnx

    name = model_name(release.name, graph)
    logged = mlflow.onnx.log_model(
        onnx.load(release.folder / GRAPHS[graph]),
        name=graph,
        signature=signature(release.manifest[graph]),
        save_as_external_data=False,
        registered_model_name=name,
        pip_requirements=["onnxruntime", "numpy"],
        metadata={"manifest": json.dumps(release.manifest, sort_keys=True)},
    )
    version = str(logged.registered_model_version)
    client.update_model_version(name, version, description=text[:DESCRIPTION_LIMIT])
    client.set_model_version_tag(name, version, RUN_TAG, run_id)
    # Last: a version without this tag was not registered whole, and is registered again.
    client.set_model_version_tag(name, version, VERSION_TAG, release.version)


def signature(tensors: dict[str, Any]) -> Any:
    """MLflow's signature of a graph whose inputs and outputs a manifest describes."""
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
