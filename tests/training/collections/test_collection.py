"""A collection out of a small release: whole, resumed, one shard alone, and opened as its users would."""

import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import mlcroissant
import numpy as np
import pytest
from PIL import Image

from contracts.collection import CARD, CHECKSUMS, CROISSANT, PROVENANCE, RECORDS
from contracts.imaging import decode
from contracts.manifest import read_release
from serving.provenance.claims import UNSIGNED, ClaimKeys
from serving.provenance.evidence import examine
from serving.runtime import Model
from tests.releases import write_small_release
from tests.training.releases.project import NAME, make_project
from training import folders
from training.collections import __main__ as command
from training.collections import description, shards
from training.collections.__main__ import CollectionError, collect
from training.collections.shards import Guard
from training.data import prepared


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shards, "SHARD_IMAGES", 12)
    make_project(tmp_path)
    content_hash = prepared.read_dataset(folders.prepared(NAME)).content_hash
    write_small_release(folders.release(NAME), labels=("benign", "malignant"), masks=True, content_hash=content_hash)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_image_is_the_one_of_its_index_with_its_mask_and_label() -> None:
    out = collect(NAME, 30, seed=5)
    model = Model.load(folders.release(NAME))
    drawn = model.generate(5, 0, 30)
    with (out / RECORDS).open(encoding="utf-8") as lines:
        records = list(csv.DictReader(lines))
    assert [int(record["index"]) for record in records] == list(range(30))
    for record in records:
        index = int(record["index"])
        with zipfile.ZipFile(shards.archive(out, index // 12)) as archive:
            image, mask = (np.asarray(Image.open(io.BytesIO(archive.read(record[name])))) for name in ("file", "mask"))
        np.testing.assert_array_equal(image, drawn.images[index])
        np.testing.assert_array_equal(mask, drawn.masks[index])
        assert record["label"] == ("benign", "malignant")[index % 2]
        assert record["sha256"] == hashlib.sha256(drawn.images[index].tobytes()).hexdigest()


def test_every_picture_says_where_it_comes_from() -> None:
    out = collect(NAME, 14, seed=5)
    model = Model.load(folders.release(NAME))
    kinds = []
    for number in range(2):
        with zipfile.ZipFile(shards.archive(out, number)) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                found = examine(data, decode(data).pixels, ClaimKeys(), {NAME: model})
                assert (found.status, found.reproduced, found.verdict("real")) == (UNSIGNED, True, "synthetic"), name
                assert found.claim is not None
                kinds.append((found.claim.kind, found.claim.index))
    assert sorted(kinds) == sorted((kind, index) for kind in ("image", "mask") for index in range(14))


def test_a_stopped_collection_goes_on_and_a_shard_alone_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(collect(NAME, 30, seed=5))
    made: list[int] = []
    write = shards.write

    def stopping(folder: Path, release: object, seed: int, number: int, *rest: object) -> None:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(number)
        write(folder, release, seed, number, *rest)

    out = folders.collection(NAME, next(Path("collections", NAME).iterdir()).name)
    out.rename("first")
    monkeypatch.setattr(shards, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        collect(NAME, 30, seed=5)
    assert not (out / CROISSANT).exists()
    monkeypatch.setattr(shards, "write", write)
    assert contents(collect(NAME, 30, seed=5)) == whole

    for path in (shards.archive(out, 1), shards.table(out, 1), shards.tally(out, 1)):
        path.unlink()
    collect(NAME, 30, seed=5, only=1)
    assert contents(out) == whole


def test_copies_of_training_images_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Model.load(folders.release(NAME)).generate(5, 0, 30).images
    others = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    brighter = np.clip(drawn[20].astype(int) + 3, 0, 255).astype(np.uint8)
    guard = Guard.of(np.concatenate([others, drawn[4:5], brighter[None]]), others[::2] // 2, [])
    monkeypatch.setattr("training.collections.__main__._guard", lambda dataset, release: guard)
    out = collect(NAME, 30, seed=5)
    made = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
    assert made["left_out"] == {shards.EXACT: 1, shards.NEAR: 1}
    assert made["images_kept"] == 28
    kept = {record.index for number in range(3) for record in shards.read(out, number).records}
    assert kept == set(range(30)) - {4, 20}
    assert "1 exact copy, 1 near duplicate" in (out / CARD).read_text(encoding="utf-8")


def test_the_guard_knows_the_prepared_training_images_and_their_flips() -> None:
    guard = command._guard(NAME, read_release(folders.release(NAME)))
    train, test = (np.asarray(prepared.load(folders.prepared(NAME), split).images) for split in ("train", "test"))
    assert guard.reasons(train[3:6]) == [shards.EXACT] * 3
    assert guard.reasons(train[3:6, :, ::-1]) == [shards.EXACT] * 3
    noisy = np.clip(train[3:6] + np.random.default_rng(0).normal(0, 3, train[3:6].shape), 0, 255).astype(np.uint8)
    assert guard.reasons(noisy) == [shards.NEAR] * 3
    assert guard.reasons(test) == [""] * len(test)


def test_prepared_images_that_the_release_was_not_trained_on_are_refused() -> None:
    """Beside other images, copies of those that it was trained on would look new."""
    release = write_small_release(folders.release(NAME), masks=True, content_hash="1" * 64)
    with pytest.raises(CollectionError, match=f"data/prepared/{NAME} holds other images .* than version"):
        collect(NAME, 14, seed=5)
    assert not folders.collection(NAME, command.version_of(release, 14, 5)).exists()


def test_what_a_collection_says_is_true_of_every_one() -> None:
    document = json.loads((collect(NAME, 14, seed=5) / description.CROISSANT).read_text(encoding="utf-8"))
    assert "datePublished" not in document
    assert "no proof of anonymity" in document["rai:personalSensitiveInformation"]
    assert "masks were not compared" in document["rai:personalSensitiveInformation"]


def test_mlcroissant_reads_pictures_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "cache"))
    out = collect(NAME, 14, seed=5)
    dataset = mlcroissant.Dataset(jsonld=out / CROISSANT)
    assert dataset.metadata.issues.errors == set()
    records = list(dataset.records("images"))
    assert len(records) == 14
    assert {record["images/label"] for record in records} == {b"benign", b"malignant"}
    pictures = {record["files/name"]: record["files/pixels"] for record in dataset.records("files")}
    assert len(pictures) == 28


def test_the_checksums_are_those_that_sha256sum_verifies() -> None:
    out = collect(NAME, 14, seed=5)
    lines = (out / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    files = {line[66:]: line[:64] for line in lines}
    assert set(files) == {name for name in contents(out) if name != CHECKSUMS}
    for name, digest in files.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(CollectionError, match="count is 0"):
        collect(NAME, 0, seed=0)
    with pytest.raises(CollectionError, match="seed is -1"):
        collect(NAME, 5, seed=-1)
    with pytest.raises(CollectionError, match="shard is 3; 30 images are in the shards 0 to 2"):
        collect(NAME, 30, seed=0, only=3)
    done = subprocess.run(
        [sys.executable, "-m", "training.collections", "cats"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("collection@cats: models/cats/manifest.json is missing")


def test_another_model_or_seed_is_another_version() -> None:
    release = read_release(folders.release(NAME))
    from training.collections.__main__ import version_of

    assert len({version_of(release, count, seed) for count in (10, 20) for seed in (0, 1)}) == 4
