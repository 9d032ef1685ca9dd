"""The shards of a collection: a ZIP of PNG files and a table of what they are, each made alone and the same again.

Shard `k` holds the images `k * SHARD_IMAGES` and following of one seed, but for those that look like copies of training
images: these are left out, and counted.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import onnxruntime

from contracts.balances import EQUAL
from contracts.claims import IMAGE, MASK, Claim, Origin
from contracts.collection import archive_name, table_name
from contracts.imaging import encode_png
from contracts.latents import latents
from contracts.manifest import GENERATOR, Release
from contracts.marks import mark_png
from training.evaluation import privacy

SHARD_IMAGES = 500
BATCH = 50
EXACT, NEAR = "exact_copy", "near_duplicate"


@dataclass(frozen=True)
class Record:
    """One image of a collection: a line of its shard's table."""

    file: str
    """Inside the shard's ZIP."""
    mask: str
    """Inside the shard's ZIP; empty where the model draws no masks."""
    label: str
    """Empty where the model is not conditional."""
    index: int
    """Of the seed's stream: with model version and seed it makes the image again."""
    sha256: str
    """Of the pixels, uint8 [H, W, C] in that order."""


@dataclass(frozen=True)
class Shard:
    """What a shard holds, and how many images were left out by the reason."""

    records: list[Record]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Guard:
    """The training images that no image of a collection may repeat."""

    train: np.ndarray
    """uint8 [N, H, W, C]."""
    flips: list[str]
    distance: float
    """Near duplicates are nearer than this: see `privacy.near_duplicate_distance`."""

    @staticmethod
    def of(train: np.ndarray, held_out: np.ndarray, flips: list[str]) -> "Guard":
        """From training and held-out real images, uint8 [N, H, W, C]."""
        return Guard(train, flips, privacy.near_duplicate_distance(privacy.nearest(held_out, train, flips)))

    def reasons(self, images: np.ndarray) -> list[str]:
        """Why each image, uint8 [N, H, W, C], is left out; empty where it is not."""
        found = privacy.nearest(images, self.train, self.flips)
        near = found.near_duplicates(self.distance)
        return [EXACT if one else NEAR if other else "" for one, other in zip(found.exact_copies, near, strict=True)]


def count_of(images: int) -> int:
    """Shards that so many images need."""
    return -(-images // SHARD_IMAGES)


def archive(folder: Path, number: int) -> Path:
    """The ZIP of a shard."""
    return folder / archive_name(number)


def table(folder: Path, number: int) -> Path:
    """The table of a shard, a line per image."""
    return folder / table_name(number)


def tally(folder: Path, number: int) -> Path:
    """What was left out of a shard; there once the shard is whole."""
    return folder / "records" / f"{number:05d}.left_out.json"


def write(folder: Path, release: Release, seed: int, number: int, images: int, guard: Guard) -> None:
    """Write shard `number` of a collection of so many images, its tally last; a stop leaves a whole shard or none."""
    start = number * SHARD_IMAGES
    drawn, masks, labels = _drawn(release, seed, start, min(SHARD_IMAGES, images - start))
    reasons = guard.reasons(drawn)
    origin = Origin(release.name, release.version, seed, 1.0, None, EQUAL if release.labels else None)
    records, files = [], {}
    for row, reason in enumerate(reasons):
        if reason:
            continue
        name = f"{release.name}-{start + row:07d}"
        files[f"{name}.png"] = _marked(IMAGE, origin, start + row, drawn[row])
        if masks is not None:
            files[f"{name}-mask.png"] = _marked(MASK, origin, start + row, masks[row][..., None])
        records.append(
            Record(
                f"{name}.png",
                f"{name}-mask.png" if masks is not None else "",
                release.labels[labels[row]] if labels is not None else "",
                start + row,
                hashlib.sha256(drawn[row].tobytes()).hexdigest(),
            )
        )
    left_out = {reason: reasons.count(reason) for reason in (EXACT, NEAR)}
    for path in (archive(folder, number), table(folder, number)):
        path.parent.mkdir(parents=True, exist_ok=True)
    _whole(archive(folder, number), _zip(files))
    _whole(table(folder, number), _csv(records))
    _whole(tally(folder, number), json.dumps(left_out).encode())


def read(folder: Path, number: int) -> Shard:
    """What a whole shard holds."""
    with table(folder, number).open(encoding="utf-8", newline="") as lines:
        records = [Record(**row | {"index": int(row["index"])}) for row in csv.DictReader(lines)]  # type: ignore[arg-type]
    return Shard(records, json.loads(tally(folder, number).read_text(encoding="utf-8")))


def join_tables(folder: Path, count: int, path: Path) -> None:
    """The tables of the first `count` shards as one."""
    tables = [table(folder, number).read_text(encoding="utf-8").splitlines(keepends=True) for number in range(count)]
    path.write_text(tables[0][0] + "".join("".join(lines[1:]) for lines in tables), encoding="utf-8")


def missing(folder: Path, images: int) -> Iterator[int]:
    """Numbers of the shards that are not whole yet."""
    return (number for number in range(count_of(images)) if not tally(folder, number).is_file())


def _drawn(
    release: Release, seed: int, start: int, count: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Images uint8 [count, H, W, C], and masks uint8 [count, H, W] and labels int64 [count] where there are any.

    Labels come in turn, so that all are equally frequent.
    """
    session = onnxruntime.InferenceSession(release.folder / GENERATOR, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    labels = np.arange(start, start + count) % len(release.labels) if release.labels else None
    parts = []
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        feeds: dict[str, np.ndarray] = {"latent": latents(seed, start + first, size, release.latent_size)}
        if labels is not None:
            feeds["label"] = labels[first : first + size]
        parts.append(dict(zip(names, session.run(names, feeds), strict=True)))
    images = np.concatenate([part["image"] for part in parts])
    masks = np.concatenate([part["mask"] for part in parts]) if "mask" in names else None
    return images, masks, labels


def _marked(kind: str, origin: Origin, index: int, pixels: np.ndarray) -> bytes:
    """A PNG of uint8 [H, W, C] that says where it comes from, as those of the service do; nobody signs it."""
    return mark_png(encode_png(pixels), Claim.unsigned(kind, origin, index, pixels))


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as whole:
        for name, data in files.items():
            whole.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _csv(records: list[Record]) -> bytes:
    text = io.StringIO()
    lines = csv.DictWriter(text, [field.name for field in fields(Record)], lineterminator="\n")
    lines.writeheader()
    lines.writerows(asdict(record) for record in records)
    return text.getvalue().encode()


def _whole(path: Path, data: bytes) -> None:
    incomplete = path.with_suffix(".incomplete")
    incomplete.write_bytes(data)
    incomplete.replace(path)
