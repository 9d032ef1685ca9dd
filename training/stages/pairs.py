"""Stage pairs@D: what pairs of image and mask that the dual GAN draws are worth.  python -m training.stages.pairs D

Masks and images are compared with real ones; then U-Nets are trained on real pairs, synthetic ones and both, also of
few patients, and tested on held-out patients. Leaves `reports/pairs/D/`: `metrics.json`, `table.md` and `figures/`.
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
from training.data.prepared import PreparedSplit
from training.evaluation import detection, dispersion, figures, morphology, segmentation
from training.evaluation.dispersion import Quantities
from training.evaluation.segmentation import Pairs
from training.gans import recipes
from training.params import PAIRED

FIGURES = "figures"
SEED = 3
"""Of the synthetic pairs: others than detectors and distances see."""
PUBLISHED = {"real": 0.8988, "synthetic": 0.8877, "ratio": 0.988}
"""F1 of Guibas et al. (arXiv 1709.01872): whole fundus photographs, another data set and split."""


def pairs(dataset: str) -> None:
    """Measure the pairs of a dataset's dual GAN."""
    configuration = params.load()
    settings, flips = configuration.segmentation, configuration.dataset(dataset).train_gan.flips
    rounds = configuration.evaluate.bootstrap_rounds
    info = prepared.read_dataset(folders.prepared(dataset))
    record = tracking.Record(
        "pairs", dataset, dataset, asdict(settings) | {"bootstrap_rounds": rounds}, tracking.lineage(info)
    )
    real = {split: prepared.load(folders.prepared(dataset), split) for split in prepared.SPLITS}
    trained = recipes.Trained.load(folders.gan(dataset, PAIRED) / recipes.GENERATOR_FILE).to(device.choose())
    synthetic = Pairs(*trained.pairs(SEED, 0, settings.pairs))
    train, test = (_pairs(real[split]) for split in ("train", "test"))
    out = folders.pairs(dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tracking.run(record) as run:
        unit, groups = detection.independent_groups(real["test"].rows)
        report: dict[str, Any] = {
            "masks": morphology.compared(train.masks, synthetic.masks, rounds, SEED),
            "masks_floor": morphology.compared(train.masks, test.masks, rounds, SEED),
            "dispersion": dispersion.report(
                *(Quantities.of(one.images, one.masks) for one in (train, test, synthetic))
            ),
            "diversity": {
                "images": dispersion.varied(real=train.images, synthetic=synthetic.images),
                "masks": dispersion.varied(real=train.masks, synthetic=synthetic.masks),
            },
            "segmentation": segmentation.measure(
                train, np.array(real["train"].patients), synthetic, test, groups, flips, settings, rounds, SEED
            )
            | {"intervals_resample": unit, "published": PUBLISHED},
        }
        figures.pairs(train.images, train.masks, synthetic.images, synthetic.masks, out / FIGURES / "pairs.png")
        (out / "table.md").write_text(document(dataset, report), encoding="utf-8")
        (out / tracking.METRICS).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
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
            f"{row['real']:.3f}",
            f"{row['drawn']:.3f}",
            f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})" if "ratio" in row else "",
            f"{report['masks_floor'][name]['drawn']:.3f}",
        ]
        for name, row in report["masks"].items()
    ]
    spread = [[name, f"{row['synthetic']:.3f}", f"{row['floor']:.3f}"] for name, row in report["dispersion"].items()]
    varied = [[of, f"{row['real']:.1f}", f"{row['synthetic']:.1f}"] for of, row in report["diversity"].items()]
    published = found["published"]
    return "\n".join(
        [
            f"# What the pairs drawn for {dataset} are worth\n",
            f"U-Nets tested on {found['test_images']} images of held-out patients; means over "
            f"{found['network']['seeds']} seeds. Parentheses hold 95 % intervals, which resample seeds and "
            f"{found['intervals_resample']}.\n",
            markdown.table(
                ["trained on", "pairs", *(name.upper() if name != "f1" else "F1" for name in scores)], networks
            ),
            f"F1 from synthetic pairs by F1 from real ones: {markdown.interval(found['ratio'])}. Guibas et al. report "
            f"{published['synthetic']} and {published['real']}, a ratio of {published['ratio']}, on whole fundus "
            "photographs of another set and split.\n",
            "## Masks, means\n",
            markdown.table(["of a mask", "real", "drawn", "drawn / real", "held out"], masks),
            "## Kullback-Leibler divergence of real training images, in nats\n",
            markdown.table(["histogram of", "from synthetic", "from held out"], spread),
            "## Diversity: mean difference of two images, in grey levels\n",
            markdown.table(["", "real", "synthetic"], varied),
        ]
    )


def _pairs(split: PreparedSplit) -> Pairs:
    assert split.masks is not None, "stage train_dual refuses datasets without masks"
    return Pairs(split.images, split.masks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    with border("pairs", arguments.dataset):
        pairs(arguments.dataset)
