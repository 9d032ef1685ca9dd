from pathlib import Path

import mlflow
import pytest

from contracts import ledger
from contracts.card import card
from contracts.ledger import Ledger
from contracts.manifest import read_release
from tests.training.releases.project import NAME, decision, make_candidate, make_project
from training import folders, tracking
from training.releases import registry
from training.stages.register import RefusedError, register

GOOD, BETTER, WORSE = 125, 110, 160


@pytest.fixture(autouse=True)
def _project(tracked: None, tmp_path: Path) -> None:
    make_project(tmp_path)


@pytest.fixture
def _without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "client", lambda: None)


def served() -> str:
    return read_release(folders.release(NAME)).version


@pytest.mark.usefixtures("_without_mlflow")
def test_the_release_folder_follows_the_champion(capsys: pytest.CaptureFixture[str]) -> None:
    good = make_candidate(GOOD)
    register(NAME)
    assert served() == good.version
    assert decision()["compared_with"] is None
    worse = make_candidate(WORSE)
    register(NAME)
    assert served() == good.version
    assert ledger.load(folders.MODELS, NAME) == Ledger(champion=good.version, challenger=worse.version)
    assert (decision()["candidate"], decision()["compared_with"]) == (worse.version, good.version)
    assert decision()["passed"] is False
    assert f"{good.version} stays champion; {worse.version} did not pass: quality" in capsys.readouterr().out
    assert folders.model_card(NAME).read_text(encoding="utf-8") == card(good.manifest)
    better = make_candidate(BETTER)
    register(NAME)
    assert served() == better.version
    assert ledger.load(folders.MODELS, NAME) == Ledger(champion=better.version, previous=good.version)
    assert folders.model_card(NAME).read_text(encoding="utf-8") == card(better.manifest)


@pytest.mark.usefixtures("_without_mlflow")
def test_the_same_candidate_gives_the_same_decision_again() -> None:
    for middle in (GOOD, BETTER):
        make_candidate(middle)
        register(NAME)
    first = folders.decision(NAME).read_bytes()
    register(NAME)
    assert folders.decision(NAME).read_bytes() == first


@pytest.mark.usefixtures("_without_mlflow")
def test_a_first_release_that_fails_says_why_and_leaves_the_decision() -> None:
    leaky = make_candidate(GOOD, failed_checks=("near_duplicates",))
    with pytest.raises(RefusedError, match=r"near_duplicates: .*params.yaml"):
        register(NAME)
    assert not folders.release(NAME).exists()
    assert decision()["passed"] is False
    assert ledger.load(folders.MODELS, NAME) == Ledger(challenger=leaky.version)
    assert folders.model_card(NAME).read_text(encoding="utf-8") == card(leaky.manifest)
    good = make_candidate(GOOD)
    register(NAME)
    assert ledger.load(folders.MODELS, NAME) == Ledger(champion=good.version)


@pytest.mark.usefixtures("_without_mlflow")
def test_after_a_rollback_the_same_candidate_does_not_come_back() -> None:
    good = make_candidate(GOOD)
    register(NAME)
    better = make_candidate(BETTER)
    register(NAME)
    back = ledger.load(folders.MODELS, NAME).rolled_back()
    ledger.save(folders.MODELS, NAME, back)
    ledger.settle(folders.MODELS, NAME, back)
    register(NAME)
    assert served() == good.version
    assert ledger.load(folders.MODELS, NAME) == Ledger(champion=good.version, withdrawn=(better.version,))
    ledger.save(folders.MODELS, NAME, back.forgiven(better.version))
    register(NAME)
    assert served() == better.version


@pytest.mark.usefixtures("_without_mlflow")
def test_a_champion_that_would_not_pass_today_stays_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for middle in (BETTER, WORSE):
        release = make_candidate(middle)
        ledger.keep(folders.MODELS, release)
        ledger.save(folders.MODELS, NAME, ledger.load(folders.MODELS, NAME).judged(release.version, passed=True))
    register(NAME)
    assert served() == release.version
    assert f"the champion {release.version} would not pass today: quality" in capsys.readouterr().out


def test_the_registry_follows_and_a_stop_before_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    good = make_candidate(GOOD)
    register(NAME)
    better = make_candidate(BETTER)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", stop)
        with pytest.raises(KeyboardInterrupt):
            register(NAME)
    register(NAME)
    client = mlflow.MlflowClient()
    for graph in ("generator", "detector"):
        name = f"verisynth-{NAME}-{graph}"
        found = {
            alias: client.get_model_version(name, number).tags["verisynth.version"]
            for alias, number in client.get_registered_model(name).aliases.items()
        }
        assert found == {"champion": better.version, "previous": good.version}
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert sorted(run.info.run_name for run in runs) == [
        *(f"evaluate@{NAME}", f"register@{NAME}", f"register@{NAME}"),
        *(f"train_detector@{NAME}", f"train_gan@{NAME}"),
    ]
