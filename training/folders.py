"""Where each stage leaves its work, relative to the repository: stage, section of params.yaml and folder agree."""

from pathlib import Path

MODELS = Path("models")
"""One folder per champion, as the service reads it, and the archive of `contracts.ledger`."""
ACROSS = Path("reports/across")
"""What detectors are worth on the other datasets."""


def raw(dataset: str) -> Path:
    return Path("data/raw") / dataset


def prepared(dataset: str) -> Path:
    return Path("data/prepared") / dataset


def gan(dataset: str, recipe: str) -> Path:
    return Path("data/gans") / dataset / recipe


def checkpoints(dataset: str, recipe: str) -> Path:
    """Of a training in progress; no stage's output, so that a stopped run keeps it."""
    return Path("checkpoints") / f"{dataset}-{recipe}"


def samples(dataset: str, recipe: str) -> Path:
    return Path("data/samples") / dataset / recipe


def variants(dataset: str, recipe: str) -> Path:
    """Among a recipe's samples for training detectors: those of earlier snapshots and of truncated latents."""
    return samples(dataset, recipe) / "train_variants.npy"


def detectors(dataset: str) -> Path:
    return Path("data/detectors") / dataset


def evaluation(dataset: str) -> Path:
    return Path("reports/evaluation") / dataset


def study(dataset: str) -> Path:
    return Path("reports/study") / dataset


def pairs(dataset: str) -> Path:
    return Path("reports/pairs") / dataset


def collection(dataset: str, version: str) -> Path:
    return Path("collections") / dataset / version


def candidate(dataset: str) -> Path:
    """The newest release, before the gate."""
    return Path("data/candidates") / dataset


def release(dataset: str) -> Path:
    """The champion, as it is served."""
    return MODELS / dataset


def decision(dataset: str) -> Path:
    return Path("reports/registry") / f"{dataset}.json"


def model_card(dataset: str) -> Path:
    return Path("reports/registry") / f"{dataset}.md"
