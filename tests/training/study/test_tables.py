import csv
from pathlib import Path

import numpy as np

from tests.training.study.results import results
from training.study import tables
from training.study.detectability import Real, Study, summary

GROUPS = np.arange(60) // 10
REAL = Real(np.zeros((60, 8, 8, 3), dtype=np.uint8), True, "patients", GROUPS, "places", (GROUPS % 3).astype(str))
ROWS = results((0.7, 0.9), (0.95, 0.99), "dcgan")


def test_the_csv_has_a_row_per_result_with_every_interval(tmp_path: Path) -> None:
    tables.write_csv("blood", REAL, ROWS, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ROWS) == 8
    first = rows[0]
    what = ("dataset", "recipe", "epoch", "images_seen", "descriptors", "model", "images_per_class", "real_images")
    assert [first[name] for name in what] == [
        *("blood", "dcgan", "2.00", "100", "appearance", "decision_tree", "60", "held out")
    ]
    assert [first[name] for name in ("auc", "auc_low", "auc_high")] == ["0.7000", "0.6700", "0.7200"]
    assert float(rows[-1]["f_measure"]) == 0.89


def test_the_markdown_says_what_numbers_rest_on_and_marks_the_best() -> None:
    text = tables.markdown("blood", REAL, ROWS)
    assert "60 real images, held out: the GANs were trained on none of them" in text
    assert "no fold divides the 6 patients" in text
    assert "resample the 3 places" in text
    assert text.count("**decision tree**") == 4
    assert "**naive bayes**" not in text
    row = "| blood | dcgan | 4.0 | all | **decision tree** |" + 5 * " 0.990 (0.960 to 1.000) |"
    assert row in text.splitlines()


def test_the_markdown_says_so_where_training_images_are_among_the_real_ones() -> None:
    used = Real(REAL.images, False, "patients", GROUPS, "patients", GROUPS.astype(str))
    assert "of all splits, since few are held out: the GANs were trained on part of them" in tables.markdown(
        "blood", used, ROWS
    )


def study(dataset: str, **recipes: tuple[float, float]) -> dict:
    """The summary of a dataset; of every recipe the last F-measure by appearance and by all descriptors."""
    rows = [
        row
        for recipe, (appearance, everything) in recipes.items()
        for row in results((0.5, appearance), (0.5, everything), recipe)
    ]
    return summary(dataset, REAL, rows, Study(images=50, epochs=2, folds=2, bootstrap_rounds=20))


def test_the_answer_ranks_datasets_by_their_best_imitation_at_the_last_look() -> None:
    found = [
        study("blood", dcgan=(0.999, 1.0), dcgan_ada=(0.99, 0.999)),
        study("retina", dcgan=(0.99, 1.0), dcgan_ada=(0.85, 0.9)),
        study("nuclei", dcgan=(0.8, 1.0)),
    ]
    text = tables.answer(found)
    assert text == tables.answer(found[::-1])
    assert "by all descriptors, imitated well at the last epoch" in text
    by_all, by_appearance = text.split("\n\n")[:2]
    assert by_all.endswith("0.95): `retina`; not well: `nuclei`, `blood`.")
    assert by_appearance.endswith("0.95): `retina`, `nuclei`; not well: `blood`.")
    ranked = [line.split(" | ")[:4] for line in text.splitlines() if line[2:3].isdigit()]
    assert ranked == [
        ["| 1", "retina", "dcgan_ada", "4"],
        ["| 2", "nuclei", "dcgan", "4"],
        ["| 3", "blood", "dcgan_ada", "4"],
    ]
    assert "decision tree | 0.900 (0.870 to 0.920)" in text


def test_the_answer_of_nothing() -> None:
    assert tables.answer([]) == "No dataset was studied.\n"
    assert "imitated well at the last epoch (the best model's F-measure may be below 0.95): none;" in tables.answer(
        [study("blood", dcgan=(1.0, 1.0))]
    )
