import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from training.evaluation import utility
from training.evaluation.utility import Labelled, UtilityError
from training.params import Utility

SETTINGS = Utility(seeds=3, images=1600, width=4, batch_size=32, learning_rate=0.01)
SHORT = dataclasses.replace(SETTINGS, seeds=2, images=400)
CLASSES = 3


def patterns(per_class: int, seed: int) -> Labelled:
    """Noisy stripes across, stripes down and blobs, of random period and phase; uint8 [N, 24, 24, 1]."""
    random = np.random.default_rng(seed)
    labels = np.arange(CLASSES).repeat(per_class)
    column, row = np.meshgrid(np.arange(24), np.arange(24))
    period, first, second = random.uniform((5, 0, 0), (8, 7, 7), (len(labels), 3)).T[:, :, None, None]
    across, down = np.sin(2 * np.pi * row / period + first), np.sin(2 * np.pi * column / period + second)
    content = np.stack([across, down, across * down * 1.4])[labels, np.arange(len(labels))]
    noisy = 128 + 30 * content + random.normal(0, 20, content.shape)
    return Labelled(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)[..., None], labels)


def shuffled(images: Labelled, share: float) -> Labelled:
    """The same images, a share of them under one another's labels."""
    random = np.random.default_rng(0)
    rows = np.flatnonzero(random.random(len(images.labels)) < share)
    labels = images.labels.copy()
    labels[rows] = labels[random.permutation(rows)]
    return Labelled(images.images, labels)


FEW, MANY, MORE, TEST = patterns(4, 0), patterns(60, 1), patterns(60, 2), patterns(40, 3)


def measured(
    train: Labelled,
    synthetic: Labelled,
    test: Labelled = TEST,
    settings: Utility = SETTINGS,
    images_per_patient: int = 2,
) -> Any:
    patients = (np.arange(len(test.labels)) // images_per_patient).astype(str)
    return utility.measure(train, synthetic, test, patients, CLASSES, ["horizontal"], settings, rounds=200, seed=7)


@pytest.fixture(scope="module")
def helped() -> Any:
    """Twelve real images, and synthetic ones as good as real."""
    return measured(FEW, MANY)


def test_good_images_help_where_real_ones_are_few(helped: Any) -> None:
    real, both, alone = (
        helped["mixtures"][name]["balanced_accuracy"] for name in ("real", "real_and_synthetic", "synthetic")
    )
    assert real["high"] < both["low"]
    assert min(both["value"], alone["value"]) > 0.9
    for name in utility.METRICS:
        gain = helped["gain_of_synthetic"][name]
        assert gain["verdict"] == "helps"
        mixtures = helped["mixtures"]
        difference = mixtures["real_and_synthetic"][name]["value"] - mixtures["real"][name]["value"]
        assert gain["value"] == pytest.approx(difference)
        assert 0 < gain["low"] < gain["value"] < gain["high"]


def test_images_with_wrong_labels_hurt() -> None:
    report = measured(MANY, shuffled(MORE, 1.0))
    assert report["mixtures"]["real"]["balanced_accuracy"]["value"] > 0.9
    assert report["gain_of_synthetic"]["balanced_accuracy"]["verdict"] == "hurts"
    assert report["gain_of_synthetic"]["balanced_accuracy"]["high"] < 0
    assert report["mixtures"]["synthetic"]["auc"]["value"] < 0.7


def test_more_of_the_same_shows_no_difference_and_patients_hard_for_all_do_not_blur_it() -> None:
    report = measured(MANY, MORE, shuffled(TEST, 0.5))
    real, gain = report["mixtures"]["real"]["balanced_accuracy"], report["gain_of_synthetic"]["balanced_accuracy"]
    assert gain["verdict"] == "no difference shown"
    assert gain["low"] <= utility.ROUNDING
    assert gain["high"] >= -utility.ROUNDING
    assert gain["high"] - gain["low"] < (real["high"] - real["low"]) / 2


def test_images_of_one_patient_count_together() -> None:
    """Of twelve patients every other one is hard: that is twelve observations, not a hundred and twenty."""
    hard = np.arange(len(TEST.labels)) // 10 % 2 == 1
    test = Labelled(TEST.images, np.where(hard, (TEST.labels + 1) % CLASSES, TEST.labels))
    naive, honest = (
        measured(MANY, MORE, test, dataclasses.replace(SETTINGS, seeds=2), images_per_patient)["mixtures"]["real"][
            "balanced_accuracy"
        ]
        for images_per_patient in (1, 10)
    )
    assert naive["value"] == honest["value"]
    assert honest["high"] - honest["low"] > 1.5 * (naive["high"] - naive["low"])


def test_the_report_equals_scikit_learns_numbers_seed_by_seed(helped: Any) -> None:
    found = [
        utility.predict(utility.fit([FEW], CLASSES, ["horizontal"], SETTINGS, seed), TEST.images) for seed in (7, 8, 9)
    ]
    references = {
        "balanced_accuracy": [balanced_accuracy_score(TEST.labels, one.argmax(1)) for one in found],
        "auc": [roc_auc_score(TEST.labels, one, multi_class="ovr", average="macro") for one in found],
    }
    for name, reference in references.items():
        numbers = helped["mixtures"]["real"][name]
        assert numbers["value"] == pytest.approx(np.mean(reference))
        assert (numbers["worst_seed"], numbers["best_seed"]) == pytest.approx((min(reference), max(reference)))
        assert numbers["low"] < numbers["value"] < numbers["high"]


def test_the_report_is_json_and_says_what_was_measured(helped: Any) -> None:
    assert json.loads(json.dumps(helped, allow_nan=False)) == helped
    assert helped["classifier"] == dataclasses.asdict(SETTINGS) | {"flips": ["horizontal"]}
    assert (helped["test_images"], helped["test_groups"]) == (120, 60)


def test_the_same_seed_gives_the_same_bytes_and_leaves_other_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    one, again = (json.dumps(measured(FEW, MANY, settings=SHORT)) for _ in range(2))
    assert one == again
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_metrics_equal_scikit_learns_in_every_resample(seed: int, digits: int) -> None:
    """Few digits make ties; few images make resamples without some class."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), random.integers(4, size=8)])
    probabilities = random.dirichlet(np.ones(4), len(labels)).round(digits)
    counts = utility.resampled_groups(np.arange(12).astype(str), labels, 3, random)
    accuracies = utility.balanced_accuracy(labels, probabilities, counts)
    areas = utility.area_under_curve(labels, probabilities, counts)
    for row, accuracy, area in zip(counts.astype(int), accuracies, areas, strict=True):
        chosen, scores = labels.repeat(row), probabilities.repeat(row, axis=0)
        present = np.unique(chosen)
        recalls = [(scores[chosen == label].argmax(1) == label).mean() for label in present]
        assert accuracy == pytest.approx(np.mean(recalls))
        assert area == pytest.approx(np.mean([roc_auc_score(chosen == label, scores[:, label]) for label in present]))


def test_a_class_without_test_images_is_left_out_of_the_means() -> None:
    rows = TEST.labels != 1
    test = Labelled(TEST.images[rows], TEST.labels[rows])
    report = measured(FEW, MANY, test, SHORT)
    found = [utility.predict(utility.fit([FEW], CLASSES, ["horizontal"], SHORT, seed), test.images) for seed in (7, 8)]
    areas = [roc_auc_score(test.labels == label, one[:, label]) for one in found for label in (0, 2)]
    assert report["mixtures"]["real"]["auc"]["value"] == pytest.approx(np.mean(areas))
    recalls = [(one[test.labels == label].argmax(1) == label).mean() for one in found for label in (0, 2)]
    assert report["mixtures"]["real"]["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(("position", "name"), [(0, "real training"), (1, "synthetic"), (2, "real test")])
def test_a_single_class_is_refused_by_name(position: int, name: str) -> None:
    sources = [MANY, MANY, TEST]
    sources[position] = Labelled(MANY.images[:60], MANY.labels[:60])
    with pytest.raises(UtilityError, match=f"60 labelled {name} images are of 1 class"):
        measured(*sources)


def test_groups_are_drawn_whole_and_never_of_a_single_class() -> None:
    groups, labels = np.array(["a", "a", "a", "b", "c"]), np.array([0, 0, 0, 0, 1])
    counts = utility.resampled_groups(groups, labels, 400, np.random.default_rng(0))
    assert counts.shape == (400, 5)
    assert np.array_equal(counts[:, 0], counts[:, 1])
    assert np.array_equal(counts[:, 0], counts[:, 2])
    assert not np.array_equal(counts[:, 0], counts[:, 3])
    assert set(counts[:, [0, 3, 4]].sum(axis=1)) == {3}
    assert counts[:, 4].min() == 1


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_resampled_seeds_spread_as_the_mean_of_so_many_does(seeds: int) -> None:
    numbers = np.random.default_rng(1).normal(size=seeds)
    means = utility.resampled_seeds(seeds, 40_000, np.random.default_rng(0)) @ numbers
    assert means.mean() == pytest.approx(numbers.mean(), abs=0.02)
    assert means.var() == pytest.approx(numbers.var(ddof=1) / seeds, rel=0.05)


def noise(count: int, level: float | np.ndarray, seed: int) -> np.ndarray:
    """Noise around a grey level, or around one per image; uint8 [N, 16, 16, 1]."""
    levels = np.broadcast_to(level, count)[:, None, None, None]
    pixels = np.random.default_rng(seed).normal(levels, 20, (count, 16, 16, 1))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def test_both_sources_fill_half_a_batch_whatever_their_sizes() -> None:
    """The same images under labels that contradict each other: the probability is each source's share."""
    images = noise(400, 128, seed=0)
    few = Labelled(images[:100], np.zeros(100, dtype=np.int64))
    many = Labelled(images, np.ones(400, dtype=np.int64))
    model = utility.fit([few, many], 2, [], SETTINGS, seed=0)
    assert utility.predict(model, noise(200, 128, seed=1)).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.1)


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    """Levels that overlap: a classifier that went by frequency would hardly ever call the rare class."""
    labels = (np.arange(1050) >= 1000).astype(np.int64)
    levels = np.random.default_rng(0).normal(110 + 30 * labels, 20)
    images = Labelled(noise(len(labels), levels, seed=1), labels)
    model = utility.fit([images], 2, [], SETTINGS, seed=0)
    rare = utility.predict(model, images.images).argmax(axis=1) == 1
    assert rare[labels == 1].mean() > 0.6
    assert rare[labels == 0].mean() < 0.4


@pytest.mark.parametrize("flips", [[], ["horizontal"], ["vertical"], ["horizontal", "vertical"]])
def test_what_a_flip_turns_into_one_another_is_alike_to_the_classifier(flips: list[str]) -> None:
    """Brighter to the right, to the left, downwards, upwards."""
    right = np.broadcast_to(np.linspace(-60, 60, 16)[None, :, None], (16, 16, 1))
    ramps = np.stack([right, np.flip(right, 1), right.transpose(1, 0, 2), np.flip(right, 1).transpose(1, 0, 2)])
    labels = np.tile(np.arange(4), 30)
    images = (noise(120, 128, seed=0).clip(60, 195) + ramps[labels]).astype(np.uint8)
    found = utility.predict(utility.fit([Labelled(images, labels)], 4, flips, SETTINGS, seed=0), images)
    own = [found[labels == label, label].mean() for label in range(4)]
    across, down = (0.5 if flip in flips else 1.0 for flip in ("horizontal", "vertical"))
    assert own == pytest.approx([across, across, down, down], abs=0.1)
