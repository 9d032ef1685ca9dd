import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts import ledger
from contracts.ledger import Ledger, LedgerError
from contracts.manifest import Release, read_release
from tests.releases import promote, write_small_release
from tests.training.releases.project import ROOT
from training import folders, tracking
from training.releases import registry
from training.releases.follow import FollowError, follow
from training.releases.gate import Decision
from training.releases.registry import RegistryError


@pytest.fixture
def client(tracked: None) -> Any:
    return tracking.client()


@pytest.fixture
def releases(client: Any, tmp_path: Path) -> list[Release]:
    """Three releases, all registered; the first is champion, here and in MLflow."""
    made = [
        write_small_release(tmp_path / "made" / str(middle) / "cells", golden=True, middle=middle)
        for middle in (110, 120, 130)
    ]
    for release in made:
        registry.register(client, release, Decision(()), {"candidate": release.version}, {})
    registry.point(client, "cells", promote(folders.MODELS, made[0]))
    return made


def move_alias(client: Any, release: Release, graphs: tuple[str, ...] = ("generator", "detector")) -> None:
    store = client.MlflowClient()
    for graph in graphs:
        name = registry.model_name("cells", graph)
        (number,) = (
            version.version
            for version in store.search_model_versions(f"name = '{name}'")
            if version.tags[registry.VERSION_TAG] == release.version
        )
        store.set_registered_model_alias(name, "champion", number)


def served() -> str:
    return read_release(folders.release("cells")).version


def test_a_moved_alias_brings_its_release_whole_into_models(client: Any, releases: list[Release]) -> None:
    one, two, _ = (release.version for release in releases)
    assert follow(client, "cells") is None
    move_alias(client, releases[1])
    assert follow(client, "cells") == ledger.load(folders.MODELS, "cells") == Ledger(champion=two, previous=one)
    assert served() == two
    assert {path.name for path in folders.release("cells").iterdir()} == {
        *releases[1].manifest["files"],
        "manifest.json",
    }
    assert follow(client, "cells") is None
    for graph in ("generator", "detector"):
        aliases = client.MlflowClient().get_registered_model(registry.model_name("cells", graph)).aliases
        assert {alias: str(number) for alias, number in aliases.items()} == {"champion": "2", "previous": "1"}
    # And back, out of the archive.
    move_alias(client, releases[0])
    assert follow(client, "cells") == Ledger(champion=one, previous=two)
    assert served() == one


def test_a_machine_without_releases_gets_the_champion(client: Any, releases: list[Release]) -> None:
    (Path("models")).rename("other_machine")
    assert follow(client, "cells") == Ledger(champion=releases[0].version)
    assert served() == releases[0].version


def test_what_cannot_be_followed_is_told_and_changes_nothing(client: Any, releases: list[Release]) -> None:
    with pytest.raises(RegistryError, match="no release has the alias champion"):
        follow(client, "tissue")
    move_alias(client, releases[1], graphs=("detector",))
    with pytest.raises(RegistryError, match="names different releases"):
        follow(client, "cells")
    move_alias(client, releases[1])
    with ledger.held(folders.MODELS, "cells"), pytest.raises(LedgerError, match="somebody else"):
        follow(client, "cells")
    number = registry._known_version(client.MlflowClient(), "cells", "generator", releases[1].version)
    client.MlflowClient().delete_model_version_tag("verisynth-cells-generator", number, registry.RUN_TAG)
    with pytest.raises(FollowError, match="MLflow holds no folder of release"):
        follow(client, "cells")
    assert served() == releases[0].version
    ledger.save(folders.MODELS, "cells", Ledger(champion=releases[0].version, withdrawn=(releases[2].version,)))
    move_alias(client, releases[2])
    with pytest.raises(FollowError, match="was withdrawn here"):
        follow(client, "cells")
    assert served() == releases[0].version


def test_the_command_says_what_it_did(client: Any, releases: list[Release], tmp_path: Path) -> None:
    move_alias(client, releases[1])
    command = [sys.executable, "-m", "training.releases.follow"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "cells"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"cells: {releases[1].version} is champion and in models/cells\n", done.stderr
