import dataclasses
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from contracts.imaging import ImageSpec
from tests.training.detectors.traces import smooth_images, upsampled
from tests.training.gans.small import DCGAN
from tests.training.study.results import results
from training import checkpoints
from training.data.prepared import PreparedSplit, Row
from training.data.tiles import Box
from training.detectors.appearance import Descriptors
from training.gans import recipes
from training.gans.recipes import Trained
from training.reading import ParamsError
from training.study import detectability
from training.study.classifiers import classifiers
from training.study.detectability import DESCRIPTOR_SETS, METRICS, Detectability, Real, Snapshot, Study, StudyError

SETTINGS = Study(images=50, epochs=2, folds=2, bootstrap_rounds=20)
FAST = ("naive_bayes", "nearest_neighbours")


def split(count: int, patients: int, seed: int = 0) -> PreparedSplit:
    rows = [Row(f"{seed}-{index}.png", f"{seed}-{index % patients}", None, "0" * 64) for index in range(count)]
    return PreparedSplit(smooth_images(max(1, count), 32, 3, seed)[:count], None, np.full(count, -1), rows)


def splits(train: int, validation: int, test: int, patients: int = 20) -> dict[str, PreparedSplit]:
    counts = {"train": train, "validation": validation, "test": test}
    return {name: split(count, patients, seed) for seed, (name, count) in enumerate(counts.items())}


def detail(left: int, top: int = 0, source: str = "one.png", patient: str = "one") -> Row:
    return Row(source, patient, None, "0" * 64, Box(left, top, 32, 32))


def real(count: int = 60, channels: int = 3) -> Real:
    groups = np.arange(count) % 20
    return Real(smooth_images(count, 32, channels, 0), True, "patients", groups, "patients", groups.astype(str))


def write_snapshot(folder: Path, images_seen: int, size: int = 32) -> None:
    image = ImageSpec(size, 3)
    folder.mkdir(parents=True, exist_ok=True)
    generator = recipes.build("dcgan", image, DCGAN, seed=images_seen).generator.eval()
    Trained(generator, "dcgan", image, DCGAN, recipes.UNLABELLED).save(folder / f"{images_seen:08d}.pt")


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """Two snapshots, and only the quickest models to study them with."""
    monkeypatch.setattr(detectability, "classifiers", lambda seed: {name: classifiers(seed)[name] for name in FAST})
    for images_seen in (80, 160):
        write_snapshot(tmp_path / "snapshots", images_seen)
    return detectability.snapshots(tmp_path / "snapshots", "dcgan", 40, 2)


def silent(numbers: dict[str, float], images_seen: int) -> None:
    pass


def claimed(folder: Path) -> Path:
    checkpoints.claim(folder, "this study")
    return folder


def test_settings_too_small_are_refused_by_name() -> None:
    with pytest.raises(ParamsError, match="images 49 must be at least 50"):
        replace(SETTINGS, images=49)
    with pytest.raises(ParamsError, match="folds 1 must be at least 2"):
        replace(SETTINGS, folds=1)


def test_real_images_are_held_out_where_there_are_enough() -> None:
    found = detectability.real_images(splits(60, 50, 50), replace(SETTINGS, images=80))
    assert found.held_out
    assert len(found.images) == len(found.fold_groups) == len(found.interval_groups) == 80
    assert all(name.startswith(("1-", "2-")) for name in found.interval_groups)
    again = detectability.real_images(splits(60, 50, 50), replace(SETTINGS, images=80))
    assert np.array_equal(found.images, again.images)
    other = detectability.real_images(splits(60, 50, 50), replace(SETTINGS, images=80, seed=1))
    assert not np.array_equal(found.images, other.images)


def test_real_images_are_of_all_splits_where_few_are_held_out() -> None:
    found = detectability.real_images(splits(60, 20, 20), replace(SETTINGS, images=400))
    assert not found.held_out
    assert len(found.images) == 100
    assert {name[0] for name in found.interval_groups} == {"0", "1", "2"}


def test_too_few_real_images_or_groups_are_refused() -> None:
    with pytest.raises(StudyError, match="there are 30 real images; a study needs at least 50"):
        detectability.real_images(splits(10, 10, 10), SETTINGS)
    whole = splits(60, 0, 0, patients=1)
    with pytest.raises(StudyError, match=r"the 50 real images studied are all of one group \(patients\)"):
        detectability.real_images(whole, SETTINGS)
    details = dataclasses.replace(whole["train"], rows=[detail(index) for index in range(60)])
    with pytest.raises(StudyError, match=r"all of one group \(regions\)"):
        detectability.real_images(whole | {"train": details}, SETTINGS)


def test_folds_keep_patients_together_or_else_details_that_overlap() -> None:
    unit, groups = detectability.apart([detail(0, patient=name) for name in "abcba"], folds=3)
    assert (unit, groups.tolist()) == ("patients", [0, 1, 2, 1, 0])
    rows = [detail(0), detail(60), detail(31), detail(92), detail(0, 32), detail(0, source="two.png")]
    unit, groups = detectability.apart(rows, folds=2)
    assert unit == "regions"
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups[[0, 3, 4, 5]])) == 4


def test_snapshots_are_evenly_spread_from_first_to_last(tmp_path: Path) -> None:
    for images_seen in (10, 20, 30, 40, 50, 60, 100):
        (tmp_path / f"{images_seen:08d}.pt").touch()
    found = detectability.snapshots(tmp_path, "dcgan", 20, 3)
    assert [shot.images_seen for shot in found] == [10, 40, 100]
    assert [shot.epoch for shot in found] == [0.5, 2.0, 5.0]
    assert [shot.images_seen for shot in detectability.snapshots(tmp_path, "dcgan", 20, 1)] == [100]
    assert len(detectability.snapshots(tmp_path, "dcgan", 20, 50)) == 7


def test_a_recipe_without_snapshots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no snapshot of a generator; run the stage train_gan of dcgan_ada"):
        detectability.snapshots(tmp_path / "nothing", "dcgan_ada", 20, 3)


@pytest.mark.parametrize("decimals", [1, 8])
def test_metrics_equal_scikit_learns_on_each_resample(decimals: int) -> None:
    """With one decimal most scores are tied."""
    random = np.random.default_rng(0)
    synthetic = np.arange(80) >= 40
    scores = np.round(random.normal(synthetic * 1.0), decimals)
    counts = detectability.resampled(np.arange(40).astype(str), 40, rounds=5, seed=0)
    values = detectability.metrics(synthetic, scores > 0.5, scores, counts)
    for row, count in enumerate(counts):
        images = np.repeat(np.arange(80), count.astype(int))
        target, predicted = synthetic[images], (scores > 0.5)[images]
        assert values["precision"][row] == pytest.approx(precision_score(target, predicted))
        assert values["recall"][row] == pytest.approx(recall_score(target, predicted))
        assert values["f_measure"][row] == pytest.approx(f1_score(target, predicted))
        assert values["accuracy"][row] == pytest.approx(accuracy_score(target, predicted))
        assert values["auc"][row] == pytest.approx(roc_auc_score(target, scores[images]))


def test_nothing_called_synthetic_is_a_precision_of_zero() -> None:
    synthetic = np.arange(4) >= 2
    values = detectability.metrics(synthetic, np.zeros(4, dtype=bool), np.zeros(4), np.ones((1, 4)))
    assert [float(values[name][0]) for name in METRICS] == [0, 0, 0, 0.5, 0.5]


def test_resamples_draw_groups_of_real_images_whole() -> None:
    groups = np.array(["a", "a", "b", "b", "b", "c"])
    counts = detectability.resampled(groups, 5, rounds=200, seed=0)
    assert counts.shape == (201, 11)
    assert (counts[0] == 1).all()
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 4]).all()
    assert (counts[:, 0] + counts[:, 2] + counts[:, 5] == 3).all()
    assert (counts[:, 6:].sum(axis=1) == 5).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(11), abs=0.25)


def test_images_with_a_trace_are_told_and_others_are_not() -> None:
    """By all descriptors: appearance alone knows less of an enlargement."""
    descriptors, studied = Descriptors(ImageSpec(32, 3)).eval(), real(60)
    features = detectability.described(studied.images, descriptors)
    same = detectability.described(smooth_images(60, 32, 3, seed=1), descriptors)
    enlarged = detectability.described(upsampled(smooth_images(60, 32, 3, seed=1)), descriptors)
    assert features["appearance"].shape[1] < features["all"].shape[1]
    model = classifiers(0)["logistic_regression"]
    for fakes, told in ((same, False), (enlarged, True)):
        both = np.concatenate([features["all"], fakes["all"]])
        numbers = detectability.evaluated(model, both, studied, SETTINGS)
        assert set(numbers) == set(METRICS)
        for estimate in numbers.values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert (numbers["f_measure"]["value"] > 0.95) == told
        assert numbers["auc"]["value"] == pytest.approx(1.0 if told else 0.5, abs=0.15)


def test_there_are_no_more_folds_than_groups() -> None:
    studied = dataclasses.replace(real(60), fold_groups=np.arange(60) % 2)
    assert (studied.folds(5), real(60).folds(5)) == (2, 5)
    features = np.random.default_rng(0).normal(size=(120, 3))
    numbers = detectability.evaluated(classifiers(0)["naive_bayes"], features, studied, replace(SETTINGS, folds=5))
    assert 0.2 < numbers["auc"]["value"] < 0.8


def test_every_snapshot_set_of_descriptors_and_model_has_a_row(looks: list[Snapshot], tmp_path: Path) -> None:
    told: list[tuple[dict[str, float], int]] = []
    rows = detectability.measure(
        real(), looks, SETTINGS, claimed(tmp_path / "work"), lambda *said: told.append(said), "studying"
    )
    wanted = [("dcgan", seen, kind, name) for seen in (80, 160) for kind in DESCRIPTOR_SETS for name in FAST]
    assert [(row.recipe, row.images_seen, row.descriptors, row.model) for row in rows] == wanted
    assert [row.epoch for row in rows] == [2.0] * 4 + [4.0] * 4
    assert [images_seen for _, images_seen in told] == [80, 160]
    assert set(told[0][0]) == {"dcgan/appearance", "dcgan/all"}
    # A generator that learned nothing paints no such images.
    assert min(row.f_measure["value"] for row in rows if row.descriptors == "all") > 0.95


def test_a_stopped_study_goes_on_to_the_same_results(
    looks: list[Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = detectability.measure(real(), looks, SETTINGS, claimed(tmp_path / "whole"), silent, "studying")
    work, fitted = claimed(tmp_path / "work"), []
    evaluate = detectability.evaluated

    def evaluated(*arguments: Any) -> Any:
        fitted.append(arguments)
        if len(fitted) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments)

    monkeypatch.setattr(detectability, "evaluated", evaluated)
    with pytest.raises(KeyboardInterrupt, match="stopped after 3 of 8 models, all kept in"):
        detectability.measure(real(), looks, SETTINGS, work, silent, "studying")
    with (work / detectability.RESULTS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"recipe": "dcgan", "images_')
    rows = detectability.measure(real(), looks, SETTINGS, work, silent, "studying")
    assert rows == whole
    assert len(fitted) == 8
    assert detectability.measure(real(), looks, SETTINGS, work, silent, "studying") == whole
    assert len(fitted) == 8


def test_generated_images_of_another_form_are_refused(looks: list[Snapshot], tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match="dcgan after 80 images makes images of 32 x 32 x 3, and the real ones are of 32 x 32 x 1"
    ):
        detectability.measure(real(channels=1), looks, SETTINGS, claimed(tmp_path / "work"), silent, "studying")


def test_a_study_of_other_settings_or_snapshots_is_another(looks: list[Snapshot], tmp_path: Path) -> None:
    first = detectability.identity("hash", looks, SETTINGS)
    assert first == detectability.identity("hash", looks, SETTINGS)
    assert first != detectability.identity("another", looks, SETTINGS)
    assert first != detectability.identity("hash", looks[:1], SETTINGS)
    assert first != detectability.identity("hash", looks, dataclasses.replace(SETTINGS, seed=1))
    looks[0].path.write_bytes(looks[1].path.read_bytes())
    assert first != detectability.identity("hash", looks, SETTINGS)


def test_the_summary_names_the_best_model_and_the_hardest_look() -> None:
    rows = results((0.9, 0.97), (0.99, 1.0), "dcgan") + results((1.0, 0.96), (1.0, 1.0), "dcgan_ada")
    report = detectability.summary("blood", real(), rows, SETTINGS)
    assert report["real_images"] == {
        "count": 60,
        "held_out": True,
        "folds": 2,
        "folds_divide": {"unit": "patients", "count": 20},
        "intervals_resample": {"unit": "patients", "count": 20},
    }
    dcgan = report["recipes"]["dcgan"]["appearance"]
    assert list(dcgan["looks"]) == ["00000100", "00000200"]
    assert dcgan["last"] == dcgan["looks"]["00000200"]
    assert (dcgan["hardest"]["epoch"], dcgan["hardest"]["best_model"]) == (2.0, "decision_tree")
    assert dcgan["hardest"]["f_measure"]["value"] == 0.9
    found = {
        (recipe, seen): (of_set["imitated_at_last"], of_set["imitated_ever"])
        for recipe, sets in report["recipes"].items()
        for seen, of_set in sets.items()
    }
    assert found == {
        ("dcgan", "appearance"): (True, True),
        ("dcgan", "all"): (False, False),
        ("dcgan_ada", "appearance"): (True, True),
        ("dcgan_ada", "all"): (False, False),
    }


def test_of_equal_f_measures_the_higher_auc_is_best() -> None:
    low, _, high, _ = results((0.9, 0.9), (0.9, 0.9), "dcgan")[:4]
    higher: Detectability = dataclasses.replace(high, auc={"value": 0.99, "low": 0.9, "high": 1.0})
    assert detectability.best([low, higher]) is higher
    assert detectability.best([higher, low]) is higher
