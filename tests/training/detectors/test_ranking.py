import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from training.detectors import ranking


def test_synthetic_is_positive() -> None:
    synthetic, sure = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9])
    assert ranking.area_under_curve(synthetic, sure) == 1
    assert ranking.area_under_curve(synthetic, 1 - sure) == 0


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=60))
def test_areas_and_curves_equal_scikit_learns_with_any_ties(drawn: list[tuple[bool, float]]) -> None:
    synthetic, scores = (
        np.array([True, False, *(one for one, _ in drawn)]),
        np.array([0.5, 0.5, *(x for _, x in drawn)]),
    )
    assert ranking.area_under_curve(synthetic, scores) == pytest.approx(roc_auc_score(synthetic, scores))
    theirs = roc_curve(synthetic, scores, drop_intermediate=False)
    for ours, reference in zip(ranking.roc_curve(synthetic, scores), theirs, strict=True):
        np.testing.assert_allclose(ours, reference)
