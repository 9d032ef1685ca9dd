from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.errors import VerisynthError
from training.data.params import Split
from training.data.prepared import SPLITS, Row
from training.data.split import by_patient, by_region, check_overlap
from training.data.tiles import Box, boxes


def row(patient: str, number: int = 0, label: str | None = None, box: Box | None = None, source: str = "") -> Row:
    return Row(source or f"{patient}/{number}", patient, label, f"hash of {patient} {number} {box}", box)


PATIENTS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["a", "b", "c"])), min_size=3, max_size=60)


@given(patients=PATIENTS, seed=st.integers(0, 100))
def test_patients_stay_whole_and_every_split_has_some(patients: list[tuple[int, str]], seed: int) -> None:
    rows = [row(f"p{p}", n, label) for p, (count, label) in enumerate(patients) for n in range(count)]
    splits = by_patient(rows, Split(seed=seed))
    assert splits == by_patient(rows, Split(seed=seed))
    assert set(splits) == set(SPLITS)
    check_overlap(rows, splits)


def test_shares_hold_for_every_label() -> None:
    rows = [row(f"{label}{n}", 0, label) for label, count in (("rare", 10), ("often", 90)) for n in range(count)]
    splits = by_patient(rows, Split(validation=0.2, test=0.1, seed=3))
    found = Counter((row.label, split) for row, split in zip(rows, splits, strict=True))
    assert found == {
        ("rare", "train"): 7,
        ("rare", "validation"): 2,
        ("rare", "test"): 1,
        ("often", "train"): 63,
        ("often", "validation"): 18,
        ("often", "test"): 9,
    }


def test_seed_changes_the_split() -> None:
    rows = [row(f"p{n}") for n in range(40)]
    assert by_patient(rows, Split(seed=0)) != by_patient(rows, Split(seed=1))


def test_order_of_the_rows_does_not_change_who_is_held_out() -> None:
    rows = [row(f"p{n}") for n in range(40)]
    forward = dict(zip([row.patient for row in rows], by_patient(rows, Split()), strict=True))
    backward = dict(zip([row.patient for row in rows[::-1]], by_patient(rows[::-1], Split()), strict=True))
    assert forward == backward


def test_two_patients_cannot_be_split() -> None:
    with pytest.raises(VerisynthError, match="2 patients cannot be split"):
        by_patient([row("a", 1), row("a", 2), row("b")], Split())


@given(
    width=st.integers(64, 900),
    height=st.integers(64, 900),
    side=st.integers(16, 64),
    validation=st.floats(0.1, 0.4),
    test=st.floats(0.1, 0.4),
)
def test_regions_cover_the_image_once(width: int, height: int, side: int, validation: float, test: float) -> None:
    try:
        regions = by_region(width, height, side, Split(validation, test))
    except VerisynthError:
        assume(False)
    area: Counter[str] = Counter()
    covered = np.zeros((height, width), dtype=np.uint8)
    for split, region in regions:
        assert min(region.width, region.height) >= side
        area[split] += region.width * region.height
        region.cut(covered)[:] += 1
    assert (covered == 1).all()
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    for split, share in shares.items():
        assert area[split] / area.total() == pytest.approx(share, abs=0.1)
    placed = [(box, split) for split, region in regions for box in boxes(region, side, side // 2)]
    check_overlap([row("p", n, box=box, source="one") for n, (box, _) in enumerate(placed)], [s for _, s in placed])


def test_every_split_sees_several_places() -> None:
    places = Counter(split for split, _ in by_region(1411, 1411, 128, Split()))
    assert places == {"train": 3, "validation": 4, "test": 4}
    places = Counter(split for split, _ in by_region(512, 512, 64, Split()))
    assert places == {"train": 2, "validation": 2, "test": 2}


def test_an_image_too_small_for_regions_is_refused() -> None:
    with pytest.raises(VerisynthError, match=r"100x100 cannot be split by region.*less than tiles\.side 64"):
        by_region(100, 100, 64, Split())


def test_a_patient_in_two_splits_is_named() -> None:
    with pytest.raises(VerisynthError, match="patient 'Doe' stands in two splits: Doe/1 in train, Doe/2 in test"):
        check_overlap([row("Doe", 1), row("Roe", 1), row("Doe", 2)], ["train", "train", "test"])


def test_details_of_two_images_of_a_patient_in_two_splits_are_named() -> None:
    box = Box(0, 0, 8, 8)
    with pytest.raises(VerisynthError, match="patient 'Doe'"):
        check_overlap([row("Doe", 1, box=box), row("Doe", 2, box=box)], ["train", "test"])


def test_the_same_pixels_in_two_splits_are_named() -> None:
    rows = [Row("a.png", "a", None, "same"), Row("b.png", "b", None, "same")]
    with pytest.raises(VerisynthError, match=r"same pixels.*a\.png in train, b\.png in validation"):
        check_overlap(rows, ["train", "validation"])


@given(left=st.integers(0, 30), top=st.integers(0, 30))
def test_details_that_share_a_pixel_across_splits_are_named(left: int, top: int) -> None:
    rows = [row("p", 1, box=Box(10, 10, 8, 8), source="one"), row("p", 2, box=Box(left, top, 8, 8), source="one")]
    if abs(left - 10) < 8 and abs(top - 10) < 8:
        with pytest.raises(VerisynthError, match="details of one overlap across splits"):
            check_overlap(rows, ["train", "test"])
    else:
        check_overlap(rows, ["train", "test"])
