import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.training.study.results import results
from training import folders
from training.study import answer
from training.study.detectability import Real, Study, summary

GROUPS = np.arange(60)
REAL = Real(np.zeros((60, 8, 8, 3), dtype=np.uint8), True, "images", GROUPS, "images", GROUPS.astype(str))


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
    text = answer.answer(found)
    assert text == answer.answer(found[::-1])
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
    assert answer.answer([]) == "No dataset was studied.\n"
    assert "imitated well at the last epoch (the best model's F-measure may be below 0.95): none;" in answer.answer(
        [study("blood", dcgan=(1.0, 1.0))]
    )


def test_the_command_reads_what_the_stage_left_and_names_what_is_missing(tmp_path: Path) -> None:
    report = tmp_path / folders.study("blood") / "metrics.json"
    report.parent.mkdir(parents=True)
    found = study("blood", dcgan=(0.9, 1.0))
    report.write_text(json.dumps(found), encoding="utf-8")

    def asked(*datasets: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "training.study.answer", *datasets]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert asked("blood").stdout == answer.answer([found])
    refused = asked("blood", "derma")
    assert refused.returncode == 1
    assert "reports/study/derma/metrics.json does not exist" in refused.stderr
