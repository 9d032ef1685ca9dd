"""The MLflow model registry: both graphs of a release as versions of their models, under the alias `champion`."""

import json
from typing import Any

from contracts import manifest
from contracts.manifest import Release

ALIAS = "champion"
VERSION_TAG = "verisynth.version"


def model_name(dataset: str, graph: str) -> str:
    """The registered model's name: `verisynth-ihc-generator`."""
    return f"verisynth-{dataset}-{graph}"


def register(mlflow: Any, release: Release, run_ids: dict[str, str]) -> dict[str, str]:
    """Register a release's graphs, unless this version is there already, and point `champion` at them.

    `run_ids` are the runs that made the release, by stage. Returns the registry's version by model name.
    """
    client = mlflow.MlflowClient()
    graphs = {"generator": manifest.GENERATOR, "detector": manifest.DETECTOR}
    versions = {model_name(release.name, graph): _known_version(client, release, graph) for graph in graphs}
    if None in versions.values():
        mlflow.set_experiment(f"verisynth/{release.name}")
        with mlflow.start_run(run_name=f"register@{release.name}"):
            mlflow.set_tags({"stage": "register", "dataset": release.name, VERSION_TAG: release.version})
            mlflow.set_tags({f"verisynth.run.{stage}": run_id for stage, run_id in run_ids.items()})
            mlflow.log_artifact(str(release.folder / manifest.FILE_NAME))
            for graph, file in graphs.items():
                versions[model_name(release.name, graph)] = _log(mlflow, client, release, graph, file)
    for name, version in versions.items():
        client.set_registered_model_alias(name, ALIAS, version)
    return {name: str(version) for name, version in versions.items()}


def _known_version(client: Any, release: Release, graph: str) -> str | None:
    name = model_name(release.name, graph)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(VERSION_TAG) == release.version:
            return str(version.version)
    return None


def _log(mlflow: Any, client: Any, release: Release, graph: str, file: str) -> str:
    import onnx

    name = model_name(release.name, graph)
    logged = mlflow.onnx.log_model(
        onnx.load(release.folder / file),
        name=graph,
        signature=_signature(release.manifest[graph]),
        save_as_external_data=False,
        registered_model_name=name,
        pip_requirements=["onnxruntime", "numpy"],
        metadata={"manifest": json.dumps(release.manifest, sort_keys=True)},
    )
    version = str(logged.registered_model_version)
    client.set_model_version_tag(name, version, VERSION_TAG, release.version)
    return version


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
