"""How well classical models tell a generator's images from real ones, look after look of its training.

After Sorgente et al., Exploring Bioimage Synthesis and Detection via Generative Adversarial Networks, J. Imaging
11(7), 214, 2025: which kinds of bioimage does a DCGAN imitate well? Here real images are ones that the GAN was not
trained on, where there are enough; no patient is on both sides of a fold; and every number has an interval that
resamples what is independent. Models see an image's appearance alone or all descriptors: the traces of a generator give
small DCGANs away whatever they show, so with them all kinds of image look alike.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from scipy.sparse.csgraph import connected_components

from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec
from training import checkpoints, device, interruption, progress
from training.data.prepared import SPLITS, PreparedSplit, Row
from training.detectors.appearance import Descriptors
from training.detectors.linear_evidence import features_of
from training.evaluation.detection import CONFIDENCE, independent_groups
from training.gans.recipes import Trained
from training.params import MINIMUM_STUDIED_IMAGES, Study
from training.study.classifiers import classifiers, out_of_fold

MINIMUM_HELD_OUT = 100
"""With fewer real images outside the training split than this, all of them are used, and the report says so."""
SAMPLE_SEED = 3
"""Of the generated images: others than those that looks, detectors and privacy see."""
IMITATED_BELOW = 0.95
"""A kind of image is imitated well where the best model's F-measure may be below this: its interval reaches there."""
APPEARANCE = ("colour_layout", "colour_histogram", "intensity_histogram", "co_occurrence")
"""The descriptors of what an image shows; the others look for how it was made."""
DESCRIPTOR_SETS = ("appearance", "all")
RESULTS_FILE = "results.jsonl"

Estimate = dict[str, float]
"""`value`, and the bounds `low` and `high` of its 95 % interval."""


class StudyError(VerisynthError):
    """Images of which no study can be made."""


@dataclass(frozen=True)
class Real:
    """The real images of a study, and which of them belong together."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    held_out: bool
    """Whether the GAN was trained on none of them."""
    fold_unit: str
    fold_groups: np.ndarray
    """int64 [N]: images that are on one side of every fold, since they show the same `fold_unit`."""
    interval_unit: str
    interval_groups: np.ndarray
    """str [N]: what intervals resample, the same `interval_unit`."""

    def folds(self, most: int) -> int:
        """Folds of the cross-validation: `most`, or as many as there are groups to divide."""
        return min(most, len(np.unique(self.fold_groups)))


@dataclass(frozen=True)
class Snapshot:
    """A generator as it was at a look."""

    recipe: str
    images_seen: int
    """Training images, repeats counted."""
    epoch: float
    """The same in passes through the training split."""
    path: Path


@dataclass(frozen=True)
class Detectability:
    """How well one model tells one snapshot's images from real ones; synthetic is positive."""

    recipe: str
    images_seen: int
    epoch: float
    descriptors: str
    """What the model saw: one of `DESCRIPTOR_SETS`."""
    model: str
    precision: Estimate
    recall: Estimate
    f_measure: Estimate
    accuracy: Estimate
    auc: Estimate


METRICS = ("precision", "recall", "f_measure", "accuracy", "auc")


def real_images(splits: dict[str, PreparedSplit], settings: Study) -> Real:
    """The real images to study: held-out ones where there are enough, else all, thinned at random.

    Raises:
        StudyError: for too few images, or images that are all of one group.
    """
    held_out = sum(len(splits[name].rows) for name in SPLITS if name != "train") >= MINIMUM_HELD_OUT
    used = [splits[name] for name in SPLITS if name != "train" or not held_out]
    images = np.concatenate([split.images for split in used])
    rows = [row for split in used for row in split.rows]
    if len(rows) < MINIMUM_STUDIED_IMAGES:
        raise StudyError(
            f"there are {len(rows)} real images; a study needs at least {MINIMUM_STUDIED_IMAGES}: add images"
        )
    count = min(settings.images, len(rows))
    chosen = np.sort(np.random.default_rng(settings.seed).choice(len(rows), count, replace=False))
    rows = [rows[index] for index in chosen]
    fold_unit, fold_groups = apart(rows, settings.folds)
    interval_unit, interval_groups = independent_groups(rows)
    for unit, groups in ((fold_unit, fold_groups), (interval_unit, interval_groups)):
        if len(np.unique(groups)) < 2:
            raise StudyError(
                f"the {count} real images studied are all of one group ({unit}), and cross-validation needs at least "
                "two: add images of other patients, or of other places"
            )
    return Real(images[chosen], held_out, fold_unit, fold_groups, interval_unit, interval_groups)


def apart(rows: Sequence[Row], folds: int) -> tuple[str, np.ndarray]:
    """What is never divided between folds, and the group of each real image, int64 [N]: `patients` or `regions`.

    Patients, where there are as many as folds or images were taken whole. Else details that overlap, directly or by way
    of others, are one region: a nearest neighbour would know a detail by the one beside it.
    """
    patients, patient = np.unique([row.patient for row in rows], return_inverse=True)
    boxes = [row.box for row in rows if row.box is not None]
    if len(patients) >= folds or len(boxes) < len(rows):
        return "patients", patient
    source = np.unique([row.source for row in rows], return_inverse=True)[1]
    left, top = np.array([box.left for box in boxes]), np.array([box.top for box in boxes])
    right, bottom = left + [box.width for box in boxes], top + [box.height for box in boxes]
    touching = source[:, None] == source[None, :]
    touching &= (left[:, None] < right[None, :]) & (left[None, :] < right[:, None])
    touching &= (top[:, None] < bottom[None, :]) & (top[None, :] < bottom[:, None])
    return "regions", np.asarray(connected_components(touching, directed=False)[1]).astype(np.int64)


def snapshots(folder: Path, recipe: str, training_images: int, most: int) -> list[Snapshot]:
    """At most `most` of a recipe's snapshots in `folder`, evenly spread, from the first to the last, in that order.

    Of one alone it is the last. `training_images` is the size of the training split.

    Raises:
        StudyError: where there is none.
    """
    paths = sorted(folder.glob("*.pt"), key=lambda path: int(path.stem))
    if not paths:
        raise StudyError(f"{folder} holds no snapshot of a generator; run the stage train_gan of {recipe} again")
    spread = sorted({round(position) for position in np.linspace(len(paths) - 1, 0, min(most, len(paths)))})
    return [
        Snapshot(recipe, int(path.stem), int(path.stem) / training_images, path)
        for path in (paths[index] for index in spread)
    ]


def identity(content_hash: str, found: Sequence[Snapshot], settings: Study) -> str:
    """A fingerprint of everything that the results of a study depend on; `content_hash` is the prepared dataset's."""
    return checkpoints.fingerprint(
        content_hash=content_hash,
        settings=asdict(settings),
        snapshots=[[shot.recipe, shot.images_seen, _file_hash(shot.path)] for shot in found],
        models={name: str(model) for name, model in classifiers(settings.seed).items()},
        versions=[torch.__version__, sklearn.__version__],
    )


def measure(
    real: Real,
    found: Sequence[Snapshot],
    settings: Study,
    work: Path,
    log: Callable[[dict[str, float], int], None],
    progress_name: str,
) -> list[Detectability]:
    """The numbers of every snapshot, set of descriptors and model, in that order.

    `work` is a claimed folder (`checkpoints.claim`): it keeps each result, and a stopped study goes on from there to
    the same results. `log(numbers, images_seen)` is called after every snapshot that was measured.

    Raises:
        StudyError: for a generator whose images are not of the real ones' form.
        KeyboardInterrupt: after a model's result is kept.
    """
    done = {_key(row): row for row in _kept(work / RESULTS_FILE)}
    models = classifiers(settings.seed)
    size, _, channels = real.images.shape[1:]
    descriptors = Descriptors(ImageSpec(size, channels)).eval()
    real_features = described(real.images, descriptors)
    results: list[Detectability] = []
    total = len(found) * len(DESCRIPTOR_SETS) * len(models)
    with progress.bar(total, progress_name, "models", len(done)) as bar, interruption.deferred() as stop:
        for shot in found:
            keys = [(shot.recipe, shot.images_seen, seen, name) for seen in DESCRIPTOR_SETS for name in models]
            missing = [key for key in keys if key not in done]
            if missing:
                fakes = described(_generated(shot, real), descriptors)
                for key in missing:
                    _, _, seen, name = key
                    features = np.concatenate([real_features[seen], fakes[seen]])
                    numbers = evaluated(models[name], features, real, settings)
                    done[key] = Detectability(shot.recipe, shot.images_seen, shot.epoch, seen, name, **numbers)
                    _keep(done[key], work / RESULTS_FILE)
                    bar.update()
                    if stop.requested:
                        raise KeyboardInterrupt(f"stopped after {len(done)} of {total} models, all kept in {work}")
            rows = [done[key] for key in keys]
            results += rows
            if missing:
                tops = {seen: best([row for row in rows if row.descriptors == seen]) for seen in DESCRIPTOR_SETS}
                log({f"{shot.recipe}/{seen}": top.f_measure["value"] for seen, top in tops.items()}, shot.images_seen)
    return results


def described(images: np.ndarray, descriptors: Descriptors) -> dict[str, np.ndarray]:
    """Features float64 [N, count] of uint8 images [N, H, W, C], by set of descriptors."""
    parts = {name: features_of(images, part).astype(np.float64) for name, part in descriptors.parts.items()}
    return {
        "appearance": np.concatenate([parts[name] for name in APPEARANCE], axis=1),
        "all": np.concatenate(list(parts.values()), axis=1),
    }


def evaluated(model: Any, features: np.ndarray, real: Real, settings: Study) -> dict[str, Estimate]:
    """Cross-validated numbers of one model with their intervals, by metric.

    `features` are float [N + M, count]: of the N real images, then of M generated ones, each of these a group.
    """
    synthetic = np.arange(len(features)) >= len(real.images)
    generated = int(synthetic.sum())
    groups = np.concatenate([real.fold_groups, real.fold_groups.max() + 1 + np.arange(generated)])
    scores, predicted = out_of_fold(model, features, synthetic, groups, real.folds(settings.folds), settings.seed)
    counts = resampled(real.interval_groups, generated, settings.bootstrap_rounds, settings.seed)
    values = metrics(synthetic, predicted, scores, counts)
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    estimates = {}
    for name in METRICS:
        low, high = np.quantile(values[name][1:], tails)
        estimates[name] = {"value": float(values[name][0]), "low": float(low), "high": float(high)}
    return estimates


def resampled(real_groups: np.ndarray, generated: int, rounds: int, seed: int) -> np.ndarray:
    """How often each image counts, float64 [1 + rounds, N + generated]: as it is first, then in the resamples.

    Of the real images as many groups as there are are drawn with replacement; generated images are independent.
    """
    random = np.random.default_rng(seed)
    names, group = np.unique(real_groups, return_inverse=True)
    real = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rounds)[:, group]
    fakes = random.multinomial(generated, np.full(generated, 1 / generated), size=rounds)
    once = np.ones((1, len(real_groups) + generated))
    return np.concatenate([once, np.concatenate([real, fakes], axis=1)])


def metrics(
    synthetic: np.ndarray, predicted: np.ndarray, scores: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Every metric float64 [R] of targets and predictions bool [N] and scores [N], for how often images count [R, N].

    Precision is 0 where nothing is called synthetic. The area under the ROC curve is the share of pairs in the right
    order, ties counting half (Hanley and McNeil, Radiology 143, 1982).
    """
    found, missed = counts @ (synthetic & predicted), counts @ (synthetic & ~predicted)
    alarms, spared = counts @ (~synthetic & predicted), counts @ (~synthetic & ~predicted)
    order = np.argsort(scores, kind="stable")
    ties = np.unique(scores[order], return_index=True)[1]
    positives = np.add.reduceat(counts[:, order] * synthetic[order], ties, axis=1)
    negatives = np.add.reduceat(counts[:, order] * ~synthetic[order], ties, axis=1)
    below = negatives.cumsum(axis=1) - negatives / 2
    return {
        "precision": found / np.maximum(1, found + alarms),
        "recall": found / (found + missed),
        "f_measure": 2 * found / (2 * found + alarms + missed),
        "accuracy": (found + spared) / counts.sum(axis=1),
        "auc": (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1)),
    }


def best(rows: Sequence[Detectability]) -> Detectability:
    """The result with the highest F-measure; of equal ones, that with the highest AUC."""
    return max(rows, key=lambda row: (row.f_measure["value"], row.auc["value"]))


def best_by_snapshot(rows: Sequence[Detectability], recipe: str, descriptors: str) -> list[Detectability]:
    """The best model's result on each snapshot of a recipe, in the order of training."""
    own = [row for row in rows if (row.recipe, row.descriptors) == (recipe, descriptors)]
    return [best([row for row in own if row.images_seen == seen]) for seen in sorted({row.images_seen for row in own})]


def summary(dataset: str, real: Real, rows: Sequence[Detectability], settings: Study) -> dict[str, Any]:
    """The content of `metrics.json`: of every recipe and set of descriptors, the best model at each look, and verdicts.

    Imitated are real images where the interval of the best model's F-measure reaches below `IMITATED_BELOW`: at the
    last look, or at any. `hardest` is the look at which the best model's F-measure is lowest.
    """
    recipes = {
        recipe: {seen: _over_looks(best_by_snapshot(rows, recipe, seen)) for seen in DESCRIPTOR_SETS}
        for recipe in dict.fromkeys(row.recipe for row in rows)
    }
    return {
        "dataset": dataset,
        "real_images": {
            "count": len(real.images),
            "held_out": real.held_out,
            "folds": real.folds(settings.folds),
            "folds_divide": {"unit": real.fold_unit, "count": len(np.unique(real.fold_groups))},
            "intervals_resample": {"unit": real.interval_unit, "count": len(np.unique(real.interval_groups))},
        },
        "recipes": recipes,
    }


def _over_looks(tops: Sequence[Detectability]) -> dict[str, Any]:
    hardest = min(tops, key=lambda row: (row.f_measure["value"], row.auc["value"]))
    return {
        "looks": {f"{row.images_seen:08d}": _brief(row) for row in tops},
        "last": _brief(tops[-1]),
        "hardest": _brief(hardest),
        "imitated_at_last": tops[-1].f_measure["low"] < IMITATED_BELOW,
        "imitated_ever": any(row.f_measure["low"] < IMITATED_BELOW for row in tops),
    }


def _brief(row: Detectability) -> dict[str, Any]:
    return {"epoch": row.epoch, "best_model": row.model, "f_measure": row.f_measure, "auc": row.auc}


def _generated(shot: Snapshot, real: Real) -> np.ndarray:
    """As many images of a snapshot as there are real ones, uint8 [N, H, W, C]."""
    trained = Trained.load(shot.path).to(device.choose())
    fakes = trained.generate(SAMPLE_SEED, 0, len(real.images))
    if fakes.shape[1:] != real.images.shape[1:]:
        raise StudyError(
            f"{shot.recipe} after {shot.images_seen} images makes images of {_form(fakes)}, and the real ones are of "
            f"{_form(real.images)}; run the stage train_gan again"
        )
    return fakes


def _key(row: Detectability) -> tuple[str, int, str, str]:
    return row.recipe, row.images_seen, row.descriptors, row.model


def _form(images: np.ndarray) -> str:
    return " x ".join(map(str, images.shape[1:]))


def _keep(row: Detectability, path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def _kept(path: Path) -> list[Detectability]:
    """The results of a stopped study; the file loses a last line that was not written to its end."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    path.write_text("".join(whole), encoding="utf-8")
    return [Detectability(**json.loads(line)) for line in whole]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
