import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.card import card
from tests.releases import manifest as small_manifest

markdown_it = pytest.importorskip("markdown_it", reason="an independent reader of Markdown")


def estimate(value: float, spread: float = 0.02) -> dict[str, Any]:
    return {"value": value, "low": value - spread, "high": value + spread}


def space(kid: float) -> dict[str, Any]:
    shares = {"precision": 0.8, "recall": 0.4, "density": 0.9, "coverage": 0.7}
    return {"kid": estimate(kid), "kid_against_train": estimate(kid / 2), "frechet_distance": 12.5, **shares}


METRICS: dict[str, Any] = {
    "generator": {
        "spaces": {"radiomics": space(0.5), "random_network": space(0.11), "encoder": space(0.3)},
        "floor": {"radiomics": space(0.1), "random_network": space(0.1), "encoder": space(0.1)},
        "privacy": {
            "samples": 10000,
            "exact_copies": 0,
            "near_duplicates": 3,
            "authenticity": {"fake": 0.625, "held_out": 0.7},
            "membership_inference": {"auc": estimate(0.51), "control_auc": estimate(0.5)},
            "nearest_training_neighbour": {"fake_median_distance": 31.17, "held_out_median_distance": 29.91},
        },
        "utility": {
            "test_images": 324,
            "mixtures": {
                mixture: {"balanced_accuracy": estimate(0.8), "auc": estimate(0.9)}
                for mixture in ("real", "real_and_synthetic", "synthetic")
            },
            "gain_of_synthetic": {
                "balanced_accuracy": estimate(0.031) | {"verdict": "helps"},
                "auc": estimate(-0.001) | {"verdict": "no difference shown"},
            },
        },
        "training": {
            "recipe_settings": {"width": 24, "batch_size": 32},
            "images_seen": 70000,
            "kept_at_images": 48000,
            "ended": "as planned",
        },
    },
    "detector": {
        "auc": estimate(0.95),
        "equal_error_rate": estimate(0.1),
        "tpr_at_1_percent_fpr": estimate(0.6),
        "calibration_error": estimate(0.03),
        "brier_score": estimate(0.05),
        "auc_after": {"jpeg_75": 0.875, "blur_1.2": 0.9},
    },
    "intervals_resample": {"unit": "places", "count": 36},
    "control": {"changed_pixels": 0, "largest_score_difference": 0.0},
    "export_difference": {"detector": 2.2e-06, "generator_grey_levels": 1.0},
}


@pytest.fixture
def manifest() -> dict[str, Any]:
    """A whole manifest, as `write_release` leaves it."""
    document = small_manifest("cells", 64, 3, labels=("benign", "malignant")) | {"version": "0123456789ab"}
    document["data"] |= {
        "title": "Cells of blood",
        "origin": "a slide",
        "counts": {"test": 324, "train": 1368, "validation": 320},
        "patients": {"test": 3, "train": 12, "validation": 2},
        "labels": ["benign", "malignant"],
    }
    return document | {"metrics": copy.deepcopy(METRICS)}


def read(text: str) -> list[Any]:
    """The tokens that CommonMark with tables makes of a text."""
    return list(markdown_it.MarkdownIt("commonmark").enable("table").parse(text))


def headings(text: str) -> list[str]:
    tokens = read(text)
    return [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, row by row."""
    found: list[list[str]] = []
    tokens = read(text)
    for index, token in enumerate(tokens):
        if token.type == "tr_open":
            found.append([])
        elif token.type in ("td_open", "th_open"):
            found[-1].append(shown(tokens[index + 1]))
    return found


def shown(inline: Any) -> str:
    """What a reader sees of an inline token."""
    return "".join(token.content for token in inline.children)


def test_the_whole_card_has_every_section(manifest: dict[str, Any]) -> None:
    assert headings(card(manifest)) == [
        "Model card: Cells of blood",
        "Intended use",
        "Limitations",
        "Data",
        "Generator",
        "How near its images come to real ones",
        "Privacy",
        "Worth of its images as training data",
        "Detector",
        "How the numbers were made",
    ]


def test_tables_hold_the_numbers_with_their_intervals_beside_the_floor(manifest: dict[str, Any]) -> None:
    found = rows(card(manifest))
    assert ["train", "1,368", "12"] in found
    assert [
        "radiomics",
        "KID against held-out real images",
        "0.500 (0.480 to 0.520)",
        "0.100 (0.080 to 0.120)",
    ] in found
    assert ["encoder", "Fréchet distance", "12.500", "12.500"] in found
    assert ["random_network", "Coverage", "0.700", "0.700"] in found
    assert ["Real and generated images", "0.800 (0.780 to 0.820)", "0.900 (0.880 to 0.920)"] in found
    assert ["AUC (area under the ROC curve)", "0.950 (0.930 to 0.970)"] in found


def test_the_same_manifest_gives_the_same_card_whatever_the_order_of_its_keys(manifest: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(manifest, sort_keys=True))
    assert card(stored) == card(manifest) == card(manifest)


def test_what_was_not_measured_is_left_out() -> None:
    small = small_manifest("waves", 32, 1) | {"version": "0123456789ab"}
    text = card(small)
    assert headings(text) == [
        "Model card: waves",
        "Intended use",
        "Limitations",
        "Data",
        "Generator",
        "Privacy",
        "Detector",
    ]
    assert "it is not conditional" in text
    assert rows(text) == [["Part", "Images"], ["train", "40"]]


@pytest.mark.parametrize("path", ["floor", "privacy", "utility", "training", "spaces"])
def test_any_part_of_the_generators_numbers_may_be_missing(manifest: dict[str, Any], path: str) -> None:
    whole = card(manifest)
    del manifest["metrics"]["generator"][path]
    assert len(card(manifest)) < len(whole)
    manifest["metrics"]["generator"][path] = {}
    assert card(manifest)
    manifest["metrics"]["generator"]["utility"] = None
    assert "Worth of its images" not in card(manifest)


def test_quality_is_put_in_words(manifest: dict[str, Any]) -> None:
    text = card(manifest)
    assert "In radiomics the KID is above the floor" in text
    assert r"In random\_network the KID cannot be told from the floor" in text
    assert "KID is read beside it" in text
    assert "Fréchet distances are biased upwards on few images" in text


def test_a_passed_privacy_is_told_without_a_warning(manifest: dict[str, Any]) -> None:
    text = card(manifest)
    assert "failed" not in text
    assert "The model passed. That is no proof of anonymity" in text
    assert "Among 10,000 generated images, 0 are exact copies of training images and 3 are near-duplicates." in text
    assert "62.5 % of generated images, 70.0 % of held-out real ones" in text
    assert "The interval contains guessing: no leak is shown." in text


def test_a_failed_privacy_is_said_first_and_by_check(manifest: dict[str, Any]) -> None:
    check = {"name": "near_duplicates", "passed": False, "detail": "3 were found; 0 are allowed."}
    manifest["privacy"] = {"passed": False, "checks": [check]}
    text = card(manifest)
    assert text.index("This model failed its privacy checks") < text.index("## ")
    assert r"near\_duplicates: **failed**. 3 were found; 0 are allowed." in text
    assert "The model passed" not in text


def test_without_a_check_nothing_is_called_private(manifest: dict[str, Any]) -> None:
    manifest["privacy"] = {"passed": True, "checks": []}
    assert "No check was made" in card(manifest)


@pytest.mark.parametrize(
    ("auc", "words"),
    [(0.56, "excludes guessing"), (0.51, "contains guessing"), (0.44, "lies below guessing")],
)
def test_membership_inference_is_put_in_words(manifest: dict[str, Any], auc: float, words: str) -> None:
    found = manifest["metrics"]["generator"]["privacy"]["membership_inference"]
    found["auc"] = estimate(auc)
    assert words in card(manifest)
    assert "It finds nothing, as it should" in card(manifest)
    found["control_auc"] = estimate(0.6)
    assert "images differ by more than membership" in card(manifest)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("helps", "they helped."),
        ("hurts", "**they did harm**."),
        ("no difference shown", "they did not help, as the interval contains 0."),
    ],
)
def test_the_gain_of_generated_images_is_put_in_words(manifest: dict[str, Any], verdict: str, words: str) -> None:
    manifest["metrics"]["generator"]["utility"]["gain_of_synthetic"]["balanced_accuracy"]["verdict"] = verdict
    change = "- Balanced accuracy changed by 0.031 (0.011 to 0.051) where generated images stood beside the real ones"
    assert f"{change}: {words}" in card(manifest)


def test_a_training_that_ended_early_is_told_with_its_reason(manifest: dict[str, Any]) -> None:
    assert "before its time" not in card(manifest)
    manifest["metrics"]["generator"]["training"]["ended"] = "collapsed: 0.12 of the real images' diversity"
    assert "**Training ended before its time**: collapsed: 0.12 of the real images' diversity" in card(manifest)


NASTY = st.text(st.sampled_from("ab12 \n\t|\\`*_[]()<>#+-=.!&~{}:"), min_size=1, max_size=24) | st.sampled_from(
    ["---", "1. one", "# a", "<b>x</b>", "&amp;", "![x](http://a)", "a\n\n# b", "a | b", "===", "- - x", "    code"]
)


@given(text=NASTY.filter(str.strip))
def test_texts_of_people_stay_text(text: str) -> None:
    """An independent reader of Markdown sees each text as it was written, and no structure of its making."""
    document = small_manifest("waves", 32, 1) | {"version": "0123456789ab", "intended_use": text, "limitations": [text]}
    document["data"] |= {"title": text, "origin": text, "licence": text, "split": text}
    document["detector"]["kind"] = document["generator"]["recipe"] = text
    document["metrics"] = {"generator": {"spaces": {text: {"precision": 0.5}}}}
    one_line = " ".join(text.split())
    tokens = read(card(document))
    assert not [token for token in tokens if token.type in ("html_block", "hr", "code_block", "fence")]
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", *["h2"] * 8]
    seen = [shown(token) for token in tokens if token.type == "inline"]
    assert seen[0] == f"Model card: {one_line}"
    assert seen[3] == one_line  # after the introduction and the heading
    assert seen[5] == one_line
    assert {f"Origin: {one_line}", f"Licence: {one_line}", f"Split: {one_line}", f"Kind: {one_line}."} <= set(seen)
    assert [one_line, "Precision", "0.500", ""] in rows(card(document))
