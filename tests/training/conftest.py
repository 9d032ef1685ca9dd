import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    with _tracking_in(tmp_path_factory.mktemp("store")) as client:
        client.search_experiments()
        return Path(tracking.DEFAULT_STORE).resolve()


@pytest.fixture
def tracked(empty_store: Path, tmp_path: Path) -> Iterator[None]:
    """The working directory is `tmp_path`; MLflow has a store of its own there."""
    shutil.copy(empty_store, tmp_path)
    with _tracking_in(tmp_path):
        yield


@contextmanager
def _tracking_in(folder: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = tracking.client()
        assert client is not None
        yield client
        client.set_tracking_uri(None)
