import json
from pathlib import Path

import mlflow
import numpy as np
import pytest

from contracts.manifest import Release
from tests.releases import write_small_release
from training import registry


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return write_small_release(tmp_path / "models" / "cells")


def test_both_graphs_are_registered_as_champion_and_load_again(release: Release) -> None:
    versions = registry.register(mlflow, release, {"evaluate": "a-run"})
    assert versions == {"verisynth-cells-generator": "1", "verisynth-cells-detector": "1"}
    client = mlflow.MlflowClient()
    for graph in ("generator", "detector"):
        version = client.get_model_version_by_alias(f"verisynth-cells-{graph}", "champion")
        assert version.tags["verisynth.version"] == release.version
        uri = f"models:/verisynth-cells-{graph}@champion"
        info = mlflow.models.get_model_info(uri)
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


def test_the_same_release_is_not_registered_twice_and_a_new_one_becomes_champion(
    release: Release, tmp_path: Path
) -> None:
    first = registry.register(mlflow, release, {})
    assert registry.register(mlflow, release, {}) == first
    changed = write_small_release(tmp_path / "models" / "cells", size=64)
    assert changed.version != release.version
    second = registry.register(mlflow, changed, {})
    assert set(second.values()) == {"2"}
    champion = mlflow.MlflowClient().get_model_version_by_alias("verisynth-cells-generator", "champion")
    assert str(champion.version) == "2"
