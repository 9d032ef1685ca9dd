import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, recall_score, roc_auc_score

from training.pairs import segmentation
from training.pairs.segmentation import Pairs, SegmentationError
from training.params import Segmentation

SETTINGS = Segmentation(seeds=2, images=1600, pairs=40, few_patients=[1, 50], width=4, batch_size=8, learning_rate=0.01)


def discs(count: int, seed: int, contrast: int = 90) -> Pairs:
    """Bright discs on noise, and where they are; with no contrast nothing can be learned."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    masks = np.zeros((count, 32, 32), dtype=np.uint8)
    for mask in masks:
        top, left, radius = random.integers(8, 24), random.integers(8, 24), random.integers(4, 9)
        mask[(rows - top) ** 2 + (columns - left) ** 2 <= radius**2] = 255
    images = random.normal(80, 15, masks.shape) + contrast * (masks > 0)
    return Pairs(np.clip(images, 0, 255).astype(np.uint8)[..., None], masks)


def patients(pairs: Pairs, of_each: int) -> np.ndarray:
    return np.array([f"patient {row // of_each}" for row in range(len(pairs.images))])


def test_scores_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    probabilities, masks = random.random((4, 16, 16)), (random.random((4, 16, 16)) < 0.3).astype(np.uint8) * 255
    found, wanted, given = segmentation.scores(probabilities, masks), masks.ravel() > 0, probabilities.ravel() >= 0.5
    assert found["f1"] == pytest.approx(f1_score(wanted, given))
    assert found["iou"] == pytest.approx(jaccard_score(wanted, given))
    assert found["sensitivity"] == pytest.approx(recall_score(wanted, given))
    assert found["specificity"] == pytest.approx(recall_score(~wanted, ~given))
    assert found["auc"] == pytest.approx(roc_auc_score(wanted, probabilities.ravel()), abs=1e-4)


def test_the_area_is_of_all_pixels_and_not_of_some_columns() -> None:
    """Large images whose right half alone is judged wrongly, and one column of whose masks is inside."""
    masks, probabilities = np.zeros((60, 64, 64), np.uint8), np.zeros((60, 64, 64), np.float32)
    masks[:, :, 1::2] = 255
    probabilities[:, :, 1:32:2] = 1
    found = segmentation.scores(probabilities, masks)["auc"]
    assert found == pytest.approx(roc_auc_score(masks.ravel() > 0, probabilities.ravel()))
    column = np.zeros((60, 256, 256), np.uint8)
    column[:, :, 100] = 255
    assert segmentation.scores((column > 0).astype(np.float32), column)["auc"] == 1


def test_a_network_learns_where_the_discs_are_and_the_seed_is_all_its_chance() -> None:
    model = segmentation.fit([discs(40, seed=0)], ["horizontal"], SETTINGS, seed=1)
    test = discs(20, seed=9)
    assert segmentation.scores(segmentation.predict(model, test.images), test.masks)["f1"] > 0.9
    again = segmentation.fit([discs(40, seed=0)], ["horizontal"], SETTINGS, seed=1)
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name


def test_pairs_that_lie_teach_nothing_and_the_report_says_so() -> None:
    real, test = discs(40, seed=0), discs(24, seed=9)
    lying = discs(40, seed=5, contrast=0)
    report = segmentation.measure(
        real, patients(real, 4), lying, test, patients(test, 3), [], SETTINGS, rounds=50, seed=0
    )
    assert set(report["mixtures"]) == {
        "real",
        "synthetic",
        "real_and_synthetic",
        "1_patients",
        "1_patients_and_synthetic",
    }
    assert report["mixtures"]["1_patients"]["images"] == 4
    assert report["test_groups"] == 8
    assert report["mixtures"]["real"]["f1"]["low"] > 0.8
    assert report["ratio"]["high"] < 0.9
    f1 = report["mixtures"]["real"]["f1"]
    assert f1["value"] == pytest.approx(np.mean(f1["seeds"]))


def test_honest_pairs_are_worth_as_much_as_real_ones() -> None:
    real, test = discs(40, seed=0), discs(24, seed=9)
    settings = dataclasses.replace(SETTINGS, few_patients=[])
    report = segmentation.measure(
        real, patients(real, 4), discs(40, seed=5), test, patients(test, 3), [], settings, rounds=50, seed=0
    )
    assert report["ratio"]["value"] == pytest.approx(1, abs=0.05)


def test_every_seed_draws_its_own_few_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = discs(40, seed=0), {}
    fit = segmentation.fit

    def watched(sources: list[Pairs], flips: list[str], settings: Segmentation, seed: int) -> segmentation.UNet:
        if len(sources[0].images) == 4:
            seen.setdefault(seed, []).append(sources[0].images)
        return fit(sources, flips, dataclasses.replace(settings, images=8), seed)

    monkeypatch.setattr(segmentation, "fit", watched)
    report = segmentation.measure(
        real, patients(real, 4), discs(8, seed=5), real, patients(real, 4), [], SETTINGS, rounds=5, seed=0
    )
    assert report["mixtures"]["1_patients_and_synthetic"]["images"] == 12
    alone, beside_synthetic = seen[0]
    np.testing.assert_array_equal(alone, beside_synthetic)
    assert not np.array_equal(alone, seen[1][0])


def test_networks_that_find_nothing_have_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    real = discs(16, seed=0)
    monkeypatch.setattr(segmentation, "predict", lambda model, images: np.zeros(images.shape[:3], np.float32))
    settings = dataclasses.replace(SETTINGS, images=8)
    report = segmentation.measure(real, patients(real, 4), real, real, patients(real, 4), [], settings, 5, seed=0)
    assert report["ratio"] is None
    assert report["mixtures"]["real"]["f1"]["value"] == 0
    json.dumps(report, allow_nan=False)


def test_masks_without_a_border_are_refused() -> None:
    real = discs(8, seed=0)
    empty = Pairs(real.images, np.zeros_like(real.masks))
    with pytest.raises(SegmentationError, match="8 synthetic masks are all empty"):
        segmentation.measure(real, patients(real, 1), empty, real, patients(real, 1), [], SETTINGS, rounds=5, seed=0)
