"""Which labels a conditional GAN can be asked for, and whether the training images allow it."""

import numpy as np

from contracts.errors import VerisynthError
from training.gans.recipes import Labels

MINIMUM_IMAGES = 2


def labels_of(dataset: str, names: list[str], labels: np.ndarray) -> Labels:
    """The labels of the training images, int64 [N], positions in `names` or -1, with each one's share.

    Raises:
        VerisynthError: for fewer than two labels, images without one, and labels with fewer than two training images.
    """
    advice = f"set datasets.{dataset}.train_gan.conditional to false in params.yaml, or"
    if len(names) < 2:
        found = f"one label ({names[0]})" if names else "no labels"
        raise VerisynthError(f"{dataset} has {found}; a conditional GAN needs two or more: {advice} give the others")
    missing = int((labels < 0).sum())
    if missing:
        raise VerisynthError(
            f"{missing} of {len(labels)} training images of {dataset} have no label: "
            f"{advice} label them or take them out"
        )
    counts = np.bincount(labels, minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if count < MINIMUM_IMAGES:
            raise VerisynthError(
                f"label {name!r} of {dataset} has {count} training images, at least {MINIMUM_IMAGES} are needed: "
                f"{advice} give more images of it"
            )
    return Labels(names, [float(count / len(labels)) for count in counts])
