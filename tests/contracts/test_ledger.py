import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import ledger
from contracts.ledger import Ledger, LedgerError
from contracts.manifest import Release, read_release
from tests.training.releases.altered import write_altered_release
from training import folders

VERSIONS = st.sampled_from("abcd")


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Release]:
    """Three versions of one dataset's release, none of them in the archive."""
    monkeypatch.chdir(tmp_path)
    return [
        write_altered_release(tmp_path / "made" / str(number) / "cells", generator={"middle": 110 + number})
        for number in range(3)
    ]


def promote(state: Ledger, release: Release) -> Ledger:
    ledger.keep(folders.MODELS, release)
    after = state.judged(release.version, passed=True)
    ledger.save(folders.MODELS, "cells", after)
    ledger.settle(folders.MODELS, "cells", after)
    return after


def kept() -> set[str]:
    return {path.name for path in ledger.archive(folders.MODELS, "cells").iterdir() if path.is_dir()}


def test_a_promotion_moves_the_roles_and_a_refusal_names_the_challenger() -> None:
    first = Ledger().judged("a", passed=True)
    assert first == Ledger(champion="a")
    refused = first.judged("b", passed=False)
    assert refused == Ledger(champion="a", challenger="b")
    assert refused.judged("b", passed=True) == Ledger(champion="b", previous="a")
    assert refused.judged("c", passed=True) == Ledger(champion="c", previous="a")


def test_a_champion_judged_again_is_compared_with_the_one_it_replaced_and_keeps_its_place() -> None:
    state = Ledger(champion="b", previous="a")
    assert (state.rival("b"), state.rival("c")) == ("a", "b")
    assert state.judged("b", passed=False) == state.judged("b", passed=True) == state


def test_a_rollback_withdraws_for_good_until_forgiven() -> None:
    back = Ledger(champion="b", previous="a").rolled_back()
    assert back == Ledger(champion="a", withdrawn=("b",))
    assert back.judged("b", passed=False) == back
    assert back.forgiven("b") == Ledger(champion="a")
    with pytest.raises(LedgerError, match="no previous release"):
        back.rolled_back()
    with pytest.raises(LedgerError, match="c is not withdrawn; withdrawn: b"):
        back.forgiven("c")


@given(st.lists(st.tuples(VERSIONS, st.sampled_from(["pass", "refuse", "roll back"]))))
def test_no_history_gives_a_version_two_roles_or_a_withdrawn_one_any(steps: list[tuple[str, str]]) -> None:
    state = Ledger()
    for version, step in steps:
        if step != "roll back":
            state = state.judged(version, passed=step == "pass" and version not in state.withdrawn)
        elif state.previous is not None:
            state = state.rolled_back()
        roles = list(state.versions().values())
        assert len(set(roles)) == len(roles)
        assert not set(roles) & set(state.withdrawn)


def test_the_folder_follows_and_the_archive_holds_what_has_a_role(releases: list[Release]) -> None:
    state = Ledger()
    for release in releases:
        state = promote(state, release)
        assert read_release(folders.release("cells")).version == release.version
    assert kept() == {releases[1].version, releases[2].version}
    assert ledger.load(folders.MODELS, "cells") == state
    back = state.rolled_back()
    ledger.save(folders.MODELS, "cells", back)
    ledger.settle(folders.MODELS, "cells", back)
    assert read_release(folders.release("cells")).version == releases[1].version
    assert kept() == {releases[1].version}
    assert ledger.load(folders.MODELS, "cells") == back


def test_what_is_right_already_is_not_written_again(releases: list[Release]) -> None:
    state = promote(Ledger(), releases[0])
    before = folders.release("cells").stat().st_ino
    ledger.settle(folders.MODELS, "cells", state)
    assert folders.release("cells").stat().st_ino == before


def test_read_only_files_of_a_cache_are_copied_writable(releases: list[Release]) -> None:
    for path in releases[0].folder.iterdir():
        path.chmod(0o444)
    promote(Ledger(), releases[0])
    assert all(path.stat().st_mode & 0o200 for path in folders.release("cells").iterdir())


@pytest.mark.parametrize("stopped_after", ["half a copy", "the copy", "the ledger", "half of models"])
def test_a_stop_at_any_moment_loses_nothing_and_the_next_run_mends_it(
    stopped_after: str, releases: list[Release]
) -> None:
    old, new = releases[:2]
    state = promote(Ledger(), old)
    if stopped_after == "half a copy":
        half = ledger.archive(folders.MODELS, "cells") / f".{new.version}.incomplete"
        half.mkdir()
        shutil.copy(new.folder / "generator.onnx", half)
    else:
        ledger.keep(folders.MODELS, new)
    if stopped_after in ("the ledger", "half of models"):
        ledger.save(folders.MODELS, "cells", state.judged(new.version, passed=True))
    if stopped_after == "half of models":
        folders.release("cells").rename(folders.release("cells").with_name(".cells.replaced"))
    found = ledger.load(folders.MODELS, "cells")
    assert found.champion == (old.version if "copy" in stopped_after else new.version)
    promote(found, new)
    assert ledger.load(folders.MODELS, "cells") == Ledger(champion=new.version, previous=old.version)
    assert read_release(folders.release("cells")).version == new.version
    assert kept() == {old.version, new.version}
    assert [path.name for path in folders.release("cells").parent.iterdir() if "cells" in path.name] == ["cells"]


def test_a_release_that_is_served_without_a_ledger_is_champion(releases: list[Release]) -> None:
    shutil.copytree(releases[0].folder, folders.release("cells"))
    assert ledger.load(folders.MODELS, "cells") == Ledger(champion=releases[0].version)
    assert kept() == {releases[0].version}


def test_a_damaged_copy_is_mended_from_the_one_that_is_served(releases: list[Release]) -> None:
    state = promote(Ledger(), releases[0])
    (ledger.archive(folders.MODELS, "cells") / releases[0].version / "detector.onnx").write_bytes(b"damaged")
    assert ledger.load(folders.MODELS, "cells") == state
    assert ledger.archived(folders.MODELS, "cells", releases[0].version).version == releases[0].version


def test_a_release_that_is_lost_leaves_its_role_and_that_is_said(
    releases: list[Release], caplog: pytest.LogCaptureFixture
) -> None:
    promote(promote(Ledger(), releases[0]), releases[1])
    shutil.rmtree(ledger.archive(folders.MODELS, "cells") / releases[0].version)
    assert ledger.load(folders.MODELS, "cells") == Ledger(champion=releases[1].version)
    assert "the previous is forgotten" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"champion": "a"}), json.dumps({"withdrawn": [], "king": "a"})])
def test_a_file_that_is_no_ledger_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger.archive(folders.MODELS, "cells").mkdir(parents=True)
    (ledger.archive(folders.MODELS, "cells") / ledger.FILE).write_text(text, encoding="utf-8")
    with pytest.raises(LedgerError, match="is no ledger"):
        ledger.load(folders.MODELS, "cells")
