import numpy as np
import pytest

from contracts.imaging import ImageSpec
from contracts.manifest import Thresholds
from tests.training.detectors.test_linear_evidence import SETTINGS
from tests.training.detectors.traces import smooth_images, upsampled
from training.detectors import linear_evidence
from training.detectors.calibration import Calibration
from training.detectors.detector import Detector
from training.detectors.examples import REAL, Examples
from training.detectors.linear_evidence import LinearEvidence
from training.detectors.typicality import Typicality
from training.evaluation import across, scope
from training.params import Evaluate

EVALUATE = Evaluate(bootstrap_rounds=50, jackknife_blocks=4, neighbours=5, encoder_images=64, privacy_samples=64)


def _examples(real: np.ndarray) -> Examples:
    half = len(real) // 2
    return Examples(
        np.concatenate([real[:half], upsampled(real[half:])]), np.array([REAL] * half + ["grid"] * (len(real) - half))
    )


def _known(images: np.ndarray) -> across.Known:
    """A dataset of real images and of a generator that enlarges; its detector is taught by the first 120."""
    spec = ImageSpec(images.shape[1], images.shape[3], tile_side=images.shape[1])
    teaching, held_out = _examples(images[:120]), _examples(images[120:])
    rows = linear_evidence.features_of(teaching.images, LinearEvidence(spec).features)
    scorer, _ = linear_evidence.fit(rows, teaching.synthetic, spec, SETTINGS)
    typicality = Typicality(spec)
    content = linear_evidence.features_of(images[:120], typicality.content)
    typicality.take(content[:80], content[80:])
    groups = np.array([str(number) for number in range(len(held_out.images))])
    released = Detector(scorer, typicality, Calibration(1, 0)).eval()
    return across.Known(spec, released, Thresholds(0.2, 0.8, 0.001), held_out, groups, "images", teaching)


@pytest.fixture(scope="module")
def known() -> dict[str, across.Known]:
    light = smooth_images(180, 32, 3, seed=0)
    return {"light": _known(light), "dark": _known(light // 3), "grey": _known(smooth_images(180, 64, 1, seed=2))}


@pytest.fixture(scope="module")
def report(known: dict[str, across.Known]) -> dict:
    return across.report(known, SETTINGS, EVALUATE)


def test_a_trace_that_all_generators_leave_is_found_on_other_sets_in_their_detectors_form(report: dict) -> None:
    assert list(report["transfer"]["light"]) == ["dark", "grey"]
    assert report["transfer"]["light"]["dark"]["value"] > 0.9
    for left_out in report["left_out"].values():
        assert left_out["low"] <= left_out["value"] <= left_out["high"]
    assert report["left_out"]["dark"]["value"] > 0.9


def test_a_model_answers_for_its_own_kind_and_nobody_for_strangers(
    known: dict[str, across.Known], report: dict
) -> None:
    for name, shares in report["answered"].items():
        assert sum(shares.values()) == pytest.approx(1)
        assert max(shares, key=lambda one: shares[one]) == name
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    typicality = {
        name: scope.typicality(one.released, scope.as_uploaded(noise, one.spec)) for name, one in known.items()
    }
    assert across.answered(known, typicality)[across.NONE] == 1


def test_a_single_dataset_has_nothing_to_reach(known: dict[str, across.Known]) -> None:
    alone = across.report({"light": known["light"]}, SETTINGS, EVALUATE)
    assert alone["transfer"] == {"light": {}}
    assert alone["left_out"] == {}
    assert alone["answered"] == {"light": {"light": pytest.approx(1, abs=0.1), "none": pytest.approx(0, abs=0.1)}}


def test_the_tables_hold_every_number(report: dict) -> None:
    text = across.document(report)
    cell = report["transfer"]["dark"]["grey"]
    assert f"{cell['value']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})" in text
    assert [line for line in text.splitlines() if line.startswith("| detector of")] == [
        "| detector of | light | dark | grey |"
    ]
    assert f"{report['typicality_auc']['light']['grey']:.3f}" in text
    assert "| images of | light | dark | grey | none |" in text
