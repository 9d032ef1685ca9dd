import numpy as np
import pytest

from contracts.errors import VerisynthError
from training.gans.conditioning import labels_of


def test_shares_are_those_of_the_training_images() -> None:
    found = labels_of("cells", ["a", "b"], np.array([0, 0, 1, 0, 1, 0]))
    assert found.names == ["a", "b"]
    assert found.shares == pytest.approx([4 / 6, 2 / 6])


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        ([], [-1, -1], "cells has no labels; a conditional GAN needs two or more: set datasets.cells.train_gan"),
        (["a"], [0, 0], r"cells has one label \(a\)"),
        (["a", "b"], [0, 1, -1, 0, 1], "1 of 5 training images of cells have no label"),
        (["a", "b", "c"], [0, 0, 1, 1], "label 'c' of cells has 0 training images"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused_by_name(names: list[str], labels: list[int], message: str) -> None:
    with pytest.raises(VerisynthError, match=message):
        labels_of("cells", names, np.array(labels))
