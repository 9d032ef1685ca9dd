import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import torch

from training import tracking


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks this small are slower on several threads, and far slower beside another busy process."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store without runs, as a first run finds it: its tables take MLflow seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = tracking.client()
        assert client is not None
        client.search_experiments()
        client.set_tracking_uri(None)
    return folder / tracking.DEFAULT_STORE


@pytest.fixture
def tracked(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory is `tmp_path`, with a tracking store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path)
    yield
    mlflow.set_tracking_uri(None)
