"""A small project in which `register` runs: prepared images, stages' folders, params, and candidates to judge."""

import json
import shutil
from pathlib import Path

import yaml

from contracts.imaging import ImageSpec
from contracts.manifest import Release
from tests.releases import real_images
from tests.training.releases.altered import write_altered_release
from training import folders
from training.data import prepared
from training.data.items import Pixels
from training.data.prepared import Card, Row, Spool
from training.tracking import Record

ROOT = Path(__file__).parents[3]
NAME = "blood"


def make_project(folder: Path) -> None:
    """Everything but a candidate; `folder` must be the working directory."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["run"] = {"datasets": [NAME], "recipes": ["dcgan"]}
    document["evaluate"]["jackknife_blocks"] = 6
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    image = ImageSpec(32, 3, tile_side=None)
    rows = [Row(f"{number}.png", str(number), None, f"{number:064}") for number in range(72)]
    splits = ["train"] * 40 + ["validation"] * 8 + ["test"] * 24
    with prepared.staged(folders.prepared(NAME)) as staging:
        spool = Spool(staging, image, has_masks=False)
        for pixels in real_images(len(rows)):
            spool.append(Pixels(pixels))
        card = Card(NAME, image, "folder", "random numbers", "none needed", "by number")
        prepared.write(staging, card, rows, splits, spool, [])
        spool.discard()
    lineage = {"source": "folder", "origin": "random", "licence": "none", "content_hash": "0" * 64}
    for stage, made in (
        ("train_gan", folders.gan(NAME, "dcgan")),
        ("train_detector", folders.detectors(NAME)),
        ("evaluate", folders.evaluation(NAME)),
    ):
        made.mkdir(parents=True)
        Record(stage, NAME, NAME, {}, lineage).write(made)


def make_candidate(middle: float, **small: object) -> Release:
    """A candidate whose images are `middle` bright; real ones are 110."""
    shutil.rmtree(folders.candidate(NAME), ignore_errors=True)
    return write_altered_release(folders.candidate(NAME), generator={"middle": middle}, **small)


def decision() -> dict[str, object]:
    """What `register` left in `reports/`."""
    document: dict[str, object] = json.loads(folders.decision(NAME).read_text(encoding="utf-8"))
    return document
