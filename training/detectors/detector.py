"""A whole detector: image in, calibrated probability, typicality and heatmap out. What is exported."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from contracts.imaging import ImageSpec
from contracts.manifest import Thresholds
from training.detectors import linear_evidence
from training.detectors.calibration import Calibration, Decision
from training.detectors.ensemble import Ensemble
from training.detectors.linear_evidence import LinearEvidence
from training.detectors.residual_network import ResidualNetwork
from training.detectors.typicality import Typicality
from training.pixels import tensor, to_unit
from training.reading import ParamsError

MEMBERS = ("linear_evidence", "residual_network")
KINDS = (*MEMBERS, "ensemble")
ORIGINAL = "linear_evidence.joblib"
"""The fitted scikit-learn pipeline behind the linear evidence model."""
DECISION = ".decision.json"
SELECTION = "selection.json"
"""Which kind is exported."""
UNSEEN = "unseen"
"""Folder of the detectors that never saw a recipe's images, by the name of the recipe."""
TIE = 0.02
"""Of AUC. Images of a few patients do not resolve less, and an ensemble errs less on what they do not show."""


class Detector(nn.Module):
    """uint8 [N, H, W, C] to synthetic_probability [N], typicality [N], heatmap [N, h, w], all float32."""

    slope: Tensor
    offset: Tensor

    def __init__(self, scorer: nn.Module, typicality: Typicality, calibration: Calibration) -> None:
        super().__init__()
        self.scorer = scorer
        self.typicality = typicality
        self.register_buffer("slope", torch.tensor(calibration.slope, dtype=torch.float32))
        self.register_buffer("offset", torch.tensor(calibration.offset, dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = to_unit(image.permute(0, 3, 1, 2))
        logits, heatmap = self.scorer(images)
        return torch.sigmoid(self.slope * logits + self.offset), self.typicality(images), self.slope * heatmap


def scorer(kind: str, image: ImageSpec, width: int) -> nn.Module:
    """An untrained scorer of a kind: images float [N, C, H, W] in [0, 1] to log-odds [N] and heatmap.

    Raises:
        ParamsError: for a kind that does not exist.
    """
    if kind == "linear_evidence":
        return LinearEvidence(image)
    if kind == "residual_network":
        return ResidualNetwork(image, width)
    if kind == "ensemble":
        return Ensemble({member: scorer(member, image, width) for member in MEMBERS})
    raise ParamsError(f"detector {kind!r} is unknown; valid: {', '.join(KINDS)}")


def choose(aucs: dict[str, float]) -> str:
    """The kind with the highest AUC on unseen generators; the ensemble where it is within `TIE` of the highest."""
    best = max(aucs, key=lambda kind: aucs[kind])
    return "ensemble" if aucs[best] - aucs["ensemble"] <= TIE else best


def save(path: Path, detector: Detector, kind: str, image: ImageSpec, width: int) -> None:
    """Write a detector with all that is needed to build it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"kind": kind, "image": asdict(image), "width": width, "weights": detector.state_dict()}, path)


def load(path: Path) -> Detector:
    """A detector in evaluation mode."""
    stored = torch.load(path, weights_only=True)
    image = ImageSpec(**stored["image"])
    detector = Detector(scorer(stored["kind"], image, stored["width"]), Typicality(image), Calibration(1, 0))
    detector.load_state_dict(stored["weights"])
    return detector.eval()


def save_decision(path: Path, decision: Decision) -> None:
    """Write the thresholds of the detector at `path`, and their promise, beside it."""
    text = json.dumps(asdict(decision), indent=2)
    path.with_suffix(DECISION).write_text(text + "\n", encoding="utf-8")


def load_decision(path: Path) -> Decision:
    """The thresholds of the detector at `path`, and their promise."""
    stored = json.loads(path.with_suffix(DECISION).read_text(encoding="utf-8"))
    return Decision(**stored | {"thresholds": Thresholds(**stored["thresholds"])})


def save_champion(folder: Path, kind: str) -> None:
    """Say which kind is exported."""
    (folder / SELECTION).write_text(json.dumps({"champion": kind}) + "\n", encoding="utf-8")


def champion(folder: Path) -> str:
    """The kind that is exported, of the folder of a dataset's detectors."""
    return str(json.loads((folder / SELECTION).read_text(encoding="utf-8"))["champion"])


def path(folder: Path, kind: str, unseen: str | None = None) -> Path:
    """Where a detector lies in the folder of a dataset's detectors; `unseen`: the recipe that it never saw."""
    return folder / f"{kind}.pt" if unseen is None else folder / UNSEEN / unseen / f"{kind}.pt"


@torch.inference_mode()
def log_odds(scorer: nn.Module, images: np.ndarray) -> np.ndarray:
    """A scorer's log-odds float [N], not calibrated, of uint8 images [N, H, W, C]."""
    return torch.cat([scorer(to_unit(tensor(batch)))[0] for batch in linear_evidence.in_batches(images)]).numpy()


@torch.inference_mode()
def judge(detector: nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and typicalities, each float [N], of uint8 images [N, H, W, C]."""
    parts = [detector(torch.from_numpy(np.array(batch)))[:2] for batch in linear_evidence.in_batches(images)]
    return torch.cat([part[0] for part in parts]).numpy(), torch.cat([part[1] for part in parts]).numpy()
