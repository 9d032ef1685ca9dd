import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import mlflow
import pytest

from contracts import ledger
from contracts.ledger import Ledger, LedgerError
from contracts.manifest import Release, read_release
from tests.training.releases.altered import write_altered_release
from tests.training.releases.project import ROOT
from training import folders, tracking
from training.releases import registry
from training.releases.gate import Decision
from training.releases.rollback import forgive, roll_back


@pytest.fixture
def releases(tracked: None, tmp_path: Path) -> list[Release]:
    """Two releases, the second champion, the first previous."""
    made = [
        write_altered_release(tmp_path / "made" / str(number) / "cells", generator={"middle": 110 + number})
        for number in range(2)
    ]
    state = Ledger()
    for release in made:
        ledger.keep(folders.MODELS, release)
        state = state.judged(release.version, passed=True)
        ledger.save(folders.MODELS, "cells", state)
        ledger.settle(folders.MODELS, "cells", state)
    return made


def served() -> str:
    return read_release(folders.release("cells")).version


def test_previous_is_champion_again_in_folder_ledger_and_registry(releases: list[Release]) -> None:
    client = tracking.client()
    assert client is not None
    for release in releases:
        registry.register(client, release, Decision(()), {"candidate": release.version}, {})
    registry.point(client, "cells", ledger.load(folders.MODELS, "cells"))
    old, new = (release.version for release in releases)
    assert roll_back("cells") == ledger.load(folders.MODELS, "cells") == Ledger(champion=old, withdrawn=(new,))
    assert served() == old
    for graph in ("generator", "detector"):
        aliases = mlflow.MlflowClient().get_registered_model(f"verisynth-cells-{graph}").aliases
        assert {alias: str(version) for alias, version in aliases.items()} == {"champion": "1"}


def test_without_mlflow_the_rest_is_done(releases: list[Release], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "client", lambda: None)
    roll_back("cells")
    assert served() == releases[0].version
    with pytest.raises(LedgerError, match="no previous release"):
        roll_back("cells")
    assert served() == releases[0].version


def test_a_stopped_rollback_is_finished_and_withdraws_nothing_more(
    releases: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "client", lambda: None)
    stopped = ledger.load(folders.MODELS, "cells").rolled_back()
    ledger.save(folders.MODELS, "cells", stopped)
    assert served() == releases[1].version
    assert roll_back("cells") == stopped
    assert served() == releases[0].version


def test_a_withdrawn_release_is_forgiven_by_name(releases: list[Release], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "client", lambda: None)
    roll_back("cells")
    assert (
        forgive("cells", releases[1].version)
        == ledger.load(folders.MODELS, "cells")
        == Ledger(champion=releases[0].version)
    )
    with pytest.raises(LedgerError, match="is not withdrawn"):
        forgive("cells", releases[1].version)


def test_two_at_once_are_not(releases: list[Release]) -> None:
    with ledger.held(folders.MODELS, "cells"), pytest.raises(LedgerError, match="being changed by somebody else"):
        roll_back("cells")
    assert served() == releases[1].version


def test_an_unknown_name_is_refused_with_the_known_ones(releases: list[Release]) -> None:
    with pytest.raises(LedgerError, match="no releases of 'tissue'; known: cells"):
        roll_back("tissue")
    assert not ledger.archive(folders.MODELS, "tissue").exists()


def test_the_command_says_what_it_did_and_refuses_in_one_line(releases: list[Release], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def rollback(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "training.releases.rollback", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = rollback("cells")
    assert done.returncode == 0, done.stderr
    assert f"{releases[0].version} is champion again" in done.stdout
    assert asdict(ledger.load(folders.MODELS, "cells"))["withdrawn"] == (releases[1].version,)
    refused = rollback("cells")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines() == [
        f"rollback@cells: there is no previous release to put in the place of {releases[0].version}"
    ]
