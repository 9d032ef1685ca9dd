import copy
import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ReleaseError
from contracts.imaging import ImageSpec
from contracts.manifest import Release, Thresholds, read_release, write_release

IMAGE = {"dtype": "uint8", "shape": ["N", 32, 32, 3]}
DOCUMENT: dict[str, Any] = {
    "schema": 2,
    "name": "tissue",
    "image": {"size": 32, "channels": 3, "tile_side": None},
    "generator": {
        "recipe": "dcgan",
        "latent_size": 8,
        "labels": [],
        "label_shares": [],
        "inputs": {"latent": {"dtype": "float32", "shape": ["N", 8]}},
        "outputs": {"image": IMAGE},
    },
    "detector": {
        "kind": "linear",
        "thresholds": {"real": 0.2, "synthetic": 0.8, "typicality": 0.01},
        "operating_points": [],
        "inputs": {"image": IMAGE},
        "outputs": {"synthetic_probability": {"dtype": "float32", "shape": ["N"]}},
    },
    "privacy": {"passed": True, "checks": [{"name": "exact_copies", "passed": True, "detail": "None was found."}]},
    "metrics": {},
    "data": {"source": "folder", "licence": "CC0", "counts": {"train": 1}, "split": "by patient", "content_hash": "0"},
    "intended_use": "Tests",
    "limitations": ["None of it is real."],
}


@pytest.fixture
def release(tmp_path: Path) -> Release:
    sources = {}
    for name in ("generator.onnx", "detector.onnx", "reference.npz"):
        sources[name] = tmp_path / f"source-{name}"
        sources[name].write_bytes(name.encode())
    return write_release(tmp_path / "models" / "tissue", sources, copy.deepcopy(DOCUMENT))


def test_what_is_written_is_read(release: Release) -> None:
    read = read_release(release.folder)
    assert read == release
    assert (read.name, read.latent_size, read.labels, read.label_shares) == ("tissue", 8, [], [])
    assert read.image == ImageSpec(32, 3, None)
    assert read.thresholds == Thresholds(0.2, 0.8, 0.01)
    assert [path.name for path in release.folder.parent.iterdir()] == ["tissue"]


@pytest.mark.parametrize("name", ["generator.onnx", "detector.onnx", "reference.npz"])
def test_an_altered_or_missing_file_is_named(release: Release, name: str) -> None:
    (release.folder / name).write_bytes(b"altered")
    with pytest.raises(ReleaseError, match=f"{name} was altered"):
        read_release(release.folder)
    (release.folder / name).unlink()
    with pytest.raises(ReleaseError, match=f"{name} is missing"):
        read_release(release.folder)


def test_an_altered_manifest_is_named(release: Release) -> None:
    path = release.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["detector"]["thresholds"]["synthetic"] = 0.5
    path.write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=r"manifest.json was altered"):
        read_release(release.folder)
    path.write_text("{")
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_release(release.folder)
    path.unlink()
    with pytest.raises(ReleaseError, match=r"manifest.json is missing"):
        read_release(release.folder)


def test_a_document_that_breaks_the_schema_replaces_nothing(release: Release, tmp_path: Path) -> None:
    sources = {name: release.folder / name for name in release.manifest["files"]}
    broken = copy.deepcopy(DOCUMENT)
    broken["image"]["size"] = 33
    with pytest.raises(ReleaseError, match="image/size"):
        write_release(release.folder, sources, broken)
    assert read_release(release.folder) == release


@pytest.mark.parametrize("number", [1, 3])
def test_a_manifest_of_another_schema_is_to_be_exported_again(release: Release, number: int) -> None:
    path = release.folder / "manifest.json"
    path.write_text(json.dumps(release.manifest | {"schema": number}))
    with pytest.raises(
        ReleaseError, match=f"is of schema {number}, and this software reads 2; export the release again"
    ):
        read_release(release.folder)


@pytest.mark.parametrize("shares", [[], [0.5], [0.0, 0.0], [0.5, 0.3, 0.2]])
def test_every_label_needs_a_share(release: Release, tmp_path: Path, shares: list[float]) -> None:
    sources = {name: release.folder / name for name in release.manifest["files"]}
    labelled = copy.deepcopy(DOCUMENT)
    labelled["generator"] |= {"labels": ["benign", "malignant"], "label_shares": shares}
    with pytest.raises(ReleaseError, match="label shares"):
        write_release(tmp_path / "labelled", sources, labelled)


@pytest.mark.parametrize("privacy", [{}, {"passed": True}, {"passed": "yes", "checks": []}])
def test_privacy_must_be_stated(release: Release, tmp_path: Path, privacy: dict[str, Any]) -> None:
    sources = {name: release.folder / name for name in release.manifest["files"]}
    with pytest.raises(ReleaseError, match="schema at privacy"):
        write_release(tmp_path / "silent", sources, copy.deepcopy(DOCUMENT) | {"privacy": privacy})


def test_version_follows_the_content(release: Release) -> None:
    sources = {name: release.folder / name for name in release.manifest["files"]}
    again = write_release(release.folder.with_name("again"), sources, copy.deepcopy(DOCUMENT))
    assert again.version == release.version
    other = copy.deepcopy(DOCUMENT) | {"intended_use": "Others"}
    assert write_release(release.folder.with_name("other"), sources, other).version != release.version


@pytest.mark.parametrize(
    ("probability", "typicality", "verdict"),
    [(0.2, 0.5, "real"), (0.5, 0.5, "uncertain"), (0.8, 0.5, "synthetic"), (0.9, 0.001, "out_of_scope")],
)
def test_verdicts(probability: float, typicality: float, verdict: str) -> None:
    assert Thresholds(0.2, 0.8, 0.01).verdict(probability, typicality) == verdict
