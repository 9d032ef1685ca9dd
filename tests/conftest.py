"""Fixtures that several parts share: the running service on small releases."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from serving.provenance.claims import make_signing_key
from tests.releases import write_small_release
from tests.services import Service, serve

# A busy machine is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LONGEST = ("test_pipeline.py", "test_soak.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: files are dealt to the cores in order, and the last one must not be long."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


SETTINGS = {
    "VERISYNTH_WORKERS": "2",
    "VERISYNTH_THREADS": "1",
    "VERISYNTH_MAXIMUM_UPLOAD_BYTES": str(1024**2),
    "VERISYNTH_MAXIMUM_PIXELS": "4000000",
    "VERISYNTH_DRIFT_WINDOW": "10",
}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Models `waves`, `labelled` (masks, grey, tiles), `erratic` (NaN for bright images); `altered` is refused.

    What it makes is signed.
    """
    models = tmp_path_factory.mktemp("models")
    write_small_release(models / "waves")
    write_small_release(models / "labelled", channels=1, labels=("benign", "malignant"), masks=True, tile_side=32)
    write_small_release(models / "erratic", broken_probability=True)
    write_small_release(models / "altered")
    with (models / "altered" / "generator.onnx").open("ab") as file:
        file.write(b"\0")
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    make_signing_key(key)
    settings = SETTINGS | {"VERISYNTH_SIGNING_KEY_FILE": str(key)}
    with serve(tmp_path_factory.mktemp("home"), models, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def empty_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without any model."""
    models = tmp_path_factory.mktemp("no-models")
    with serve(tmp_path_factory.mktemp("empty-home"), models, VERISYNTH_WORKERS="1") as running:
        yield running


@pytest.fixture(scope="session")
def collection_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`collections/labelled/VERSION` with masks and labels; its release lies in `models` beside `collections`."""
    # It needs training, which not every test does.
    from tests.collections import write_small_collection

    root = tmp_path_factory.mktemp("project")
    release = write_small_release(root / "models" / "labelled", labels=("benign", "malignant"), masks=True)
    return write_small_collection(root / "collections", release)


@pytest.fixture(scope="session")
def library(collection_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with that one model and that one collection."""
    root = collection_folder.parents[2]
    settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_COLLECTIONS_FOLDER": str(root / "collections")}
    with serve(tmp_path_factory.mktemp("library-home"), root / "models", **settings) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as connected:
        yield connected
