import csv
from pathlib import Path

import numpy as np

from tests.training.study.results import results
from training.study import tables
from training.study.detectability import Real

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
    text = tables.document("blood", REAL, ROWS)
    assert "60 real images, held out: the GANs were trained on none of them" in text
    assert "no fold divides the 6 patients" in text
    assert "resample the 3 places" in text
    assert text.count("**decision tree**") == 4
    assert "**naive bayes**" not in text
    row = "| blood | dcgan | 4.0 | all | **decision tree** |" + 5 * " 0.990 (0.960 to 1.000) |"
    assert row in text.splitlines()


def test_the_markdown_says_so_where_training_images_are_among_the_real_ones() -> None:
    used = Real(REAL.images, False, "patients", GROUPS, "patients", GROUPS.astype(str))
    assert "of all splits, since few are held out: the GANs were trained on part of them" in tables.document(
        "blood", used, ROWS
    )
