import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score

from training.study.classifiers import classifiers, out_of_fold

RANDOM = np.random.default_rng(0)
SYNTHETIC = np.arange(120) >= 60
GROUPS = np.concatenate([np.arange(60) // 6, 10 + np.arange(60)])
APART = RANDOM.normal(np.where(SYNTHETIC, 2.0, -2.0)[:, None], 1.0, (120, 6)) * [1, 10, 100, 1, 1, 1]
MODELS = tuple(classifiers(0))


def test_there_are_eight_models() -> None:
    assert len(MODELS) == 8


@pytest.mark.parametrize("name", MODELS)
def test_a_model_tells_two_clouds_apart_and_says_the_same_each_time(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        scores, predicted = out_of_fold(classifiers(0)[name], APART, SYNTHETIC, GROUPS, 2, seed=0)
    assert roc_auc_score(SYNTHETIC, scores) > 0.9
    assert (predicted == SYNTHETIC).mean() > 0.9
    again, _ = out_of_fold(classifiers(0)[name], APART, SYNTHETIC, GROUPS, 2, seed=0)
    assert np.array_equal(scores, again)


def test_noise_cannot_be_told_apart() -> None:
    """Every prediction is on images that the model was not fitted to: a tree would know those by heart."""
    noise = np.random.default_rng(1).normal(size=(120, 4))
    scores, predicted = out_of_fold(classifiers(0)["decision_tree"], noise, SYNTHETIC, np.arange(120), 3, seed=0)
    assert 0.3 < roc_auc_score(SYNTHETIC, scores) < 0.7
    assert 0.3 < (predicted == SYNTHETIC).mean() < 0.7


def test_a_group_is_on_one_side_of_a_fold() -> None:
    """Every image has a twin of the same class, and the classes are drawn: only who saw the twin can know."""
    content = np.random.default_rng(2).normal(size=(60, 3))
    features, pair = np.concatenate([content, content]), np.tile(np.arange(60), 2)
    synthetic = np.random.default_rng(3).random(60)[pair] < 0.5
    neighbours = classifiers(0)["nearest_neighbours"].set_params(kneighborsclassifier__n_neighbors=1)
    leaking, _ = out_of_fold(neighbours, features, synthetic, np.arange(120), 5, seed=0)
    honest, _ = out_of_fold(neighbours, features, synthetic, pair, 5, seed=0)
    assert roc_auc_score(synthetic, leaking) > 0.75
    assert roc_auc_score(synthetic, honest) < 0.65
