from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from contracts.latents import labels
from contracts.manifest import Release
from tests.releases import real_images
from tests.training.releases.altered import write_altered_release
from training.evaluation import fidelity, spaces
from training.params import Gate
from training.releases import gate
from training.releases.gate import Decision, Evidence, Rule

LIMITS = Gate(maximum_kid_ratio=1.1, maximum_auc_drop=0.01, maximum_near_duplicates=0, maximum_membership_auc=0.6)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence(real_images(60), real_images(48, seed=1), np.arange(48).astype(str), blocks=8)


@pytest.fixture
def champion(tmp_path: Path) -> Release:
    return write_altered_release(tmp_path / "champion")


def rule(decision: Decision, name: str) -> Rule:
    (found,) = [rule for rule in decision.rules if rule.name == name]
    return found


def test_a_release_passes_against_its_own_copy_and_gives_the_same_decision_again(
    champion: Release, evidence: Evidence
) -> None:
    decision = gate.decide(champion, champion, evidence, LIMITS)
    assert decision.passed
    assert decision.reasons == []
    assert gate.decide(champion, champion, evidence, LIMITS) == decision
    assert [rule.name for rule in decision.rules] == [
        *("quality", "detectability", "exact_copies", "near_duplicates", "membership_inference"),
        *("authenticity", "not_withdrawn"),
    ]


def test_a_worse_generator_is_refused_with_its_numbers_and_a_better_one_passes(
    champion: Release, evidence: Evidence, tmp_path: Path
) -> None:
    brighter = write_altered_release(tmp_path / "brighter", generator={"middle": 150})
    refused = gate.decide(brighter, champion, evidence, LIMITS)
    assert not refused.passed
    assert [reason.split(":")[0] for reason in refused.reasons] == ["quality"]
    numbers = rule(refused, "quality").numbers
    expected = [
        fidelity.kernel_distance(
            space.coordinates(gate.samples(brighter)), space.coordinates(evidence.held_out), 8
        ).value
        for space in spaces.weight_free(evidence.train)
    ]
    assert numbers["candidate_kid"] == pytest.approx(np.mean(expected))
    assert numbers["allowed_kid"] == max(1.1 * numbers["champion_kid"], numbers["champion_kid_high"])
    assert numbers["candidate_kid_low"] < numbers["candidate_kid"] < numbers["candidate_kid_high"]
    assert rule(gate.decide(champion, brighter, evidence, LIMITS), "quality").passed
    lenient = replace(LIMITS, maximum_kid_ratio=1.001 * numbers["candidate_kid"] / numbers["champion_kid"])
    assert rule(gate.decide(brighter, champion, evidence, lenient), "quality").passed


def test_a_difference_within_the_champions_own_uncertainty_passes_any_ratio(
    champion: Release, evidence: Evidence
) -> None:
    assert rule(gate.decide(champion, champion, evidence, replace(LIMITS, maximum_kid_ratio=0)), "quality").passed


def test_a_detector_that_finds_less_is_refused_on_the_samples_of_both_generators(
    evidence: Evidence, tmp_path: Path
) -> None:
    sharp = write_altered_release(tmp_path / "sharp", generator={"middle": 113})
    blunt = write_altered_release(tmp_path / "blunt", generator={"middle": 110.5}, detector={"width": -20})
    found = rule(gate.decide(blunt, sharp, evidence, LIMITS), "detectability")
    assert not found.passed
    images = np.concatenate([evidence.held_out, gate.samples(blunt), gate.samples(sharp)])
    brightness = images.astype(np.float64).mean(axis=(1, 2, 3))
    area = roc_auc_score(np.arange(len(images)) >= len(evidence.held_out), brightness)
    assert 0.6 < area < 0.95
    assert found.numbers["champion_auc"] == pytest.approx(area, abs=1e-3)
    assert found.numbers["candidate_auc"] == pytest.approx(1 - area, abs=1e-3)
    assert found.numbers["required_auc"] == pytest.approx(area - 0.01, abs=1e-3)
    assert rule(gate.decide(sharp, blunt, evidence, LIMITS), "detectability").passed
    lenient = replace(LIMITS, maximum_auc_drop=1.0)
    assert rule(gate.decide(blunt, sharp, evidence, lenient), "detectability").passed


@pytest.mark.parametrize("check", ["near_duplicates", "exact_copies", "membership_inference"])
def test_a_failed_privacy_check_refuses_also_the_first_release(check: str, evidence: Evidence, tmp_path: Path) -> None:
    leaky = write_altered_release(tmp_path / "leaky", failed_checks=(check,))
    assert [reason.split(":")[0] for reason in gate.decide(leaky, None, evidence, LIMITS).reasons] == [check]


def test_failed_authenticity_is_told_and_refuses_nothing(evidence: Evidence, tmp_path: Path) -> None:
    decision = gate.decide(
        write_altered_release(tmp_path / "near", failed_checks=("authenticity",)), None, evidence, LIMITS
    )
    assert decision.passed
    assert not rule(decision, "authenticity").passed


def test_the_first_release_passes_by_its_own_numbers(champion: Release, evidence: Evidence) -> None:
    decision = gate.decide(champion, None, evidence, LIMITS)
    assert decision.passed
    for name in ("quality", "detectability"):
        assert rule(decision, name).detail.startswith("no champion yet")
    assert set(rule(decision, "detectability").numbers) == {"candidate_auc"}


def test_a_detector_without_numbers_never_passes(evidence: Evidence, champion: Release, tmp_path: Path) -> None:
    white = write_altered_release(tmp_path / "white", generator={"middle": 215, "scale": 1}, broken_probability=True)
    for rival in (None, champion):
        assert not rule(gate.decide(white, rival, evidence, LIMITS), "detectability").passed


@pytest.mark.parametrize(("size", "channels"), [(64, 3), (32, 1)])
def test_releases_of_different_images_are_not_compared(
    size: int, channels: int, evidence: Evidence, tmp_path: Path
) -> None:
    old = write_altered_release(tmp_path / "old", size=size, channels=channels)
    worse = write_altered_release(tmp_path / "new", generator={"middle": 150})
    decision = gate.decide(worse, old, evidence, LIMITS)
    assert decision.passed
    assert "not comparable" in rule(decision, "quality").detail
    assert "not comparable" in rule(decision, "detectability").detail


def test_a_withdrawn_release_is_refused_with_the_way_back(champion: Release, evidence: Evidence) -> None:
    decision = gate.decide(champion, None, evidence, LIMITS, withdrawn=(champion.version,))
    (reason,) = decision.reasons
    assert f"--forgive {champion.version}" in reason


def test_a_conditional_generator_draws_labels_as_training_had_them(tmp_path: Path) -> None:
    release = write_altered_release(tmp_path / "labelled", generator={"scale": 0, "step": 50}, labels=("a", "b", "c"))
    drawn = labels(gate.SAMPLE_SEED, 0, gate.SAMPLES, release.manifest["generator"]["label_shares"])
    levels = gate.samples(release)[:, 0, 0, 0].astype(int)
    assert np.array_equal((levels - 110) // 50, drawn)
    assert len(np.unique(drawn)) == 3
