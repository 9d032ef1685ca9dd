"""Stage pairs@D: what pairs of image and mask that the dual GAN draws are worth.  python -m training.stages.pairs D

Masks and images are compared with real ones, and masks searched for copies; then U-Nets are trained on real pairs,
synthetic ones and both, also of few patients, and tested on held-out ones. Leaves `reports/pairs/D/`: `metrics.json`,
`table.md` and `figures/`.
"""

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from training import device, folders, markdown, params, tracking
from training.border import border
from training.data import prepared
from training.data.params import MaskedFolderSource, Prepare
from training.data.prepared import PreparedSplit
from training.evaluation import detection, figures, privacy
from training.gans import geometry, recipes
from training.pairs import dispersion, morphology, segmentation
from training.pairs.segmentation import Pairs
from training.params import PAIRED

FIGURES = "figures"
SEED = 3
"""Of the synthetic pairs: others than detectors and distances see."""
PUBLISHED = {"real": 0.8988, "synthetic": 0.8877, "ratio": 0.988}
"""F1 of Guibas et al. (arXiv 1709.01872): whole fundus photographs, another data set and split.

Said of vessels that people drew alone: F1 against masks of a filter tells how well the filter is imitated.
"""


def pairs(dataset: str) -> None:
    """Measure the pairs of a dataset's dual GAN."""
    configuration = params.load()
    settings, flips = configuration.segmentation, configuration.dataset(dataset).train_gan.flips
    rounds, origin = configuration.evaluate.bootstrap_rounds, configuration.dataset(dataset).prepare
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record(
        "pairs", dataset, dataset, asdict(settings) | {"bootstrap_rounds": rounds}, tracking.lineage(info)
    )
    real = {split: prepared.load(folders.prepared(dataset), split) for split in ("train", "test")}
    trained = recipes.Trained.load(folders.gan(dataset, PAIRED) / recipes.GENERATOR_FILE).to(device.choose())
    synthetic = Pairs(*trained.pairs(SEED, 0, settings.pairs))
    train, test = (_pairs(real[split]) for split in ("train", "test"))
    out = folders.pairs(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tracking.run(record) as run:
        train_groups = detection.independent_groups(real["train"].rows)[1]
        unit, groups = detection.independent_groups(real["test"].rows)
        drawn_groups = np.arange(settings.pairs)
        report: dict[str, Any] = {
            "masks_from": masks_from(origin),
            "masks": morphology.compared(train.masks, train_groups, synthetic.masks, drawn_groups, rounds, SEED),
            "masks_floor": morphology.compared(train.masks, train_groups, test.masks, groups, rounds, SEED),
            "mask_copies": _mask_copies(synthetic.masks, train.masks, test.masks, flips),
            "dispersion": dispersion.report(
                dispersion.quantities(train.images, train.masks),
                dispersion.quantities(test.images, test.masks),
                dispersion.quantities(synthetic.images, synthetic.masks),
                SEED,
            ),
            "diversity": {
                "images": dispersion.varied(real=train.images, synthetic=synthetic.images),
                "masks": dispersion.varied(real=train.masks, synthetic=synthetic.masks),
            },
            "segmentation": segmentation.measure(
                train, np.array(real["train"].patients), synthetic, test, groups, flips, settings, rounds, SEED
            )
            | {"intervals_resample": unit},
        }
        if isinstance(origin.source, MaskedFolderSource) and origin.source.shows == "vessels":
            report["segmentation"]["published"] = PUBLISHED
        figures.pairs(train.images, train.masks, synthetic.images, synthetic.masks, out / FIGURES / "pairs.png")
        (out / "table.md").write_text(document(dataset, report), encoding="utf-8")
        text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False)
        (out / tracking.METRICS).write_text(text + "\n", encoding="utf-8")
        record.write(out)
        run.finish(out)
    print(f"pairs@{dataset} took {time.process_time() / 60:.1f} minutes of CPU time", file=sys.stderr)


def document(dataset: str, report: dict[str, Any]) -> str:
    """The report as Markdown tables."""
    found = report["segmentation"]
    scores = ("f1", "iou", "auc", "sensitivity", "specificity")
    networks = [
        [
            name.replace("_", " "),
            str(row["images"]),
            markdown.interval(row["f1"]),
            *(f"{row[score]:.3f}" for score in scores[1:]),
        ]
        for name, row in found["mixtures"].items()
    ]
    masks = [
        [
            name.replace("_", " "),
            _number(row["real"]),
            _number(row["drawn"]),
            markdown.interval(row | {"value": row["ratio"]}) if "ratio" in row else "",
            _number(report["masks_floor"][name]["drawn"]),
        ]
        for name, row in report["masks"].items()
    ]
    spread = [[name, f"{row['synthetic']:.3f}", f"{row['floor']:.3f}"] for name, row in report["dispersion"].items()]
    varied = [[of, f"{row['real']:.1f}", f"{row['synthetic']:.1f}"] for of, row in report["diversity"].items()]
    copies = report["mask_copies"]
    return "\n".join(
        [
            f"# What the pairs drawn for {dataset} are worth\n",
            f"Masks show {report['masks_from']}. U-Nets are tested on {found['test_images']} held-out images; means "
            f"over {found['network']['seeds']} seeds. Parentheses hold 95 % intervals, which resample seeds and "
            f"{found['intervals_resample']}.\n",
            markdown.table(
                ["trained on", "pairs", *(name.upper() if name != "f1" else "F1" for name in scores)], networks
            ),
            f"{_told_ratio(found)}\n",
            "Few patients are others for each seed. They are few for the U-Net alone: the generator saw all training "
            "patients, so what its pairs add to a few is what they hand on of the others.\n",
            "## Masks, means\n",
            markdown.table(["of a mask", "real", "drawn", "drawn / real", "held out"], masks),
            f"Of {copies['samples']} drawn masks {copies['exact_copies']} repeat one of training and "
            f"{copies['near_duplicates']} nearly do, of {copies['held_out_images']} held-out ones "
            f"{copies['held_out_exact_copies']} and {copies['held_out_near_duplicates']}; compared as distances.\n",
            "## Kullback-Leibler divergence of real training images, in nats\n",
            markdown.table(["histogram of", "from synthetic", "from held out"], spread),
            "## Diversity: mean difference of two images, in grey levels\n",
            markdown.table(["", "real", "synthetic"], varied),
        ]
    )


def masks_from(prepare: Prepare) -> str:
    """What the masks of a dataset show and where they come from, in words."""
    if isinstance(prepare.source, MaskedFolderSource):
        return f"{prepare.source.shows}, as given with the images"
    assert prepare.masks is not None, "params refuse pairs without masks"
    return f"{prepare.masks.kind} as `prepare.masks` draws them, which is no ground truth"


def _told_ratio(found: dict[str, Any]) -> str:
    if found["ratio"] is None:
        return "F1 from real pairs is 0 where some test images are drawn, so that there is no ratio to it."
    told = f"F1 from synthetic pairs by F1 from real ones: {markdown.interval(found['ratio'])}."
    published = found.get("published")
    if published is None:
        return told
    return (
        f"{told} Guibas et al. report {published['synthetic']} and {published['real']}, a ratio of "
        f"{published['ratio']}, on whole fundus photographs of another set and split."
    )


def _mask_copies(drawn: np.ndarray, train: np.ndarray, held_out: np.ndarray, flips: list[str]) -> dict[str, Any]:
    """How many masks uint8 [N, H, W] repeat a training mask; as distances, so that a shifted edge is a small step."""
    soft = [geometry.distances(masks)[..., None] for masks in (drawn, held_out, train)]
    return privacy.copies(*(privacy.nearest(masks, soft[2], flips) for masks in soft[:2]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _pairs(split: PreparedSplit) -> Pairs:
    assert split.masks is not None, "stage train_dual refuses datasets without masks"
    return Pairs(split.images, split.masks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("pairs", arguments.dataset):
        pairs(arguments.dataset)
