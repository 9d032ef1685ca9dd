"""Whether generated images are copies: the distance to the nearest training image, against held-out real ones."""

from dataclasses import dataclass

import numpy as np
import torch

BATCH = 64


@dataclass(frozen=True)
class Neighbours:
    """Of each image, the nearest training image: its row, and the root mean square difference in grey levels."""

    rows: np.ndarray
    distances: np.ndarray


def nearest(images: np.ndarray, train: np.ndarray, flips: list[str]) -> Neighbours:
    """Nearest training neighbours of uint8 images [N, H, W, C], flipped copies of the training images included.

    `flips` are those that training used: a flipped patient is a copied patient.
    """
    queries = torch.from_numpy(np.array(images)).float().flatten(1)
    copies = [np.array(train)]
    for flip in flips:
        axis = 2 if flip == "horizontal" else 1
        copies += [np.flip(copy, axis) for copy in copies]
    best = torch.full((len(queries),), float("inf"))
    rows = torch.zeros(len(queries), dtype=torch.long)
    for copy in copies:
        for start in range(0, len(copy), BATCH):
            references = torch.from_numpy(copy[start : start + BATCH].copy()).float().flatten(1)
            distance, row = torch.cdist(queries, references, compute_mode="use_mm_for_euclid_dist").min(1)
            closer = distance < best
            best = torch.where(closer, distance, best)
            rows = torch.where(closer, row + start, rows)
    return Neighbours(rows.numpy(), (best / queries.shape[1] ** 0.5).numpy())


def report(fakes: Neighbours, held_out: Neighbours) -> dict[str, float]:
    """Median distances, their ratio, and the share of fakes nearer to a training image than 1 % of held-out ones are.

    That share is 0.01 for images as far from the training set as unseen real ones.
    """
    border = float(np.quantile(held_out.distances, 0.01))
    fake, real = float(np.median(fakes.distances)), float(np.median(held_out.distances))
    return {
        "fake_median_distance": fake,
        "held_out_median_distance": real,
        "ratio": fake / real,
        "nearer_than_1_percent_of_held_out": float((fakes.distances < border).mean()),
        "exact_copies": float((fakes.distances < 0.5).sum()),
    }
