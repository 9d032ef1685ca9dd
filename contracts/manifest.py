"""The release folder `models/<name>/` and its manifest: written whole, verified when read.

    models/<name>/generator.onnx  detector.onnx  reference.npz  manifest.json
    models/<name>/painter.onnx                                  where the generator draws masks

The manifest's form is `manifest.schema.json`; its meaning is told in `docs/manifest.md`.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import jsonschema

from contracts.errors import ReleaseError
from contracts.imaging import ImageSpec

FILE_NAME = "manifest.json"
GENERATOR = "generator.onnx"
DETECTOR = "detector.onnx"
PAINTER = "painter.onnx"
REFERENCE = "reference.npz"
SCHEMA = 2
VERDICTS = ("real", "synthetic", "uncertain", "out_of_scope")


@dataclass(frozen=True)
class Thresholds:
    """Where verdicts change, each in [0, 1]."""

    real: float
    synthetic: float
    typicality: float

    def verdict(self, synthetic_probability: float, typicality: float) -> str:
        """One of `VERDICTS`."""
        if typicality < self.typicality:
            return "out_of_scope"
        if synthetic_probability >= self.synthetic:
            return "synthetic"
        if synthetic_probability <= self.real:
            return "real"
        return "uncertain"


@dataclass(frozen=True)
class Release:
    """A verified release: its folder and the manifest as parsed JSON, with typed views of what the runtime needs."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(**self.manifest["image"])

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(**self.manifest["detector"]["thresholds"])

    @property
    def latent_size(self) -> int:
        return int(self.manifest["generator"]["latent_size"])

    @property
    def labels(self) -> list[str]:
        """Class names the generator can be asked for; empty where it is not conditional."""
        return list(self.manifest["generator"]["labels"])

    @property
    def painter_noise_size(self) -> int | None:
        """Random numbers per image that the painter reads, the first of a latent; None without a painter."""
        painter = self.manifest.get("painter")
        return None if painter is None else int(painter["noise_size"])

    @property
    def label_shares(self) -> list[float]:
        """Share of each label in the training images."""
        return list(self.manifest["generator"]["label_shares"])


def schema() -> dict[str, Any]:
    """The manifest's JSON schema."""
    text = package_files("contracts").joinpath("manifest.schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_release(folder: Path, sources: dict[str, Path], document: dict[str, Any]) -> Release:
    """Write a release folder whole: a copy of every file in `sources` (by name in the folder), the manifest last.

    `document` is the manifest without `files` and `version`, which are derived from the content.
    An existing folder of that name is replaced only when the new one is complete.

    Raises:
        ReleaseError: when the document breaks the manifest's schema.
    """
    staging = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, source in sources.items():
        shutil.copyfile(source, staging / name)
    manifest = document | {
        "files": {
            name: {"sha256": sha256(staging / name), "bytes": (staging / name).stat().st_size}
            for name in sorted(sources)
        }
    }
    manifest["version"] = _version(manifest)
    _check(manifest, folder)
    (staging / FILE_NAME).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    return Release(folder, manifest)


def read_release(folder: Path) -> Release:
    """Read and verify a release folder: schema, version, presence, size and SHA-256 of every file.

    Raises:
        ReleaseError: naming the file that is missing, altered, malformed or cannot be read.
    """
    path = folder / FILE_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReleaseError(f"{path} is missing: the release was not written whole; export it again") from error
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}") from error
    _check(manifest, folder)
    if manifest["version"] != _version(manifest):
        raise ReleaseError(f"{path} was altered: its version {manifest['version']} is not that of its content")
    for name, stated in manifest["files"].items():
        file = folder / name
        try:
            found = sha256(file)
        except FileNotFoundError as error:
            raise ReleaseError(f"{file} is missing; export the release again") from error
        except OSError as error:
            raise ReleaseError(f"{file} cannot be read: {error}") from error
        if found != stated["sha256"]:
            raise ReleaseError(f"{file} was altered: its sha256 is {found}, the manifest says {stated['sha256']}")
    return Release(folder, manifest)


def _version(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "version"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _check(manifest: Any, folder: Path) -> None:
    path = folder / FILE_NAME
    if isinstance(manifest, dict) and (form := manifest.get("schema", SCHEMA)) != SCHEMA:
        raise ReleaseError(f"{path} is of schema {form}, and this software reads {SCHEMA}; export the release again")
    error = jsonschema.Draft202012Validator(schema()).iter_errors(manifest)
    first = jsonschema.exceptions.best_match(error)
    if first is not None:
        where = "/".join(str(step) for step in first.absolute_path) or "the document"
        raise ReleaseError(f"{path} breaks the manifest schema at {where}: {first.message}")
    if ("painter" in manifest) != (PAINTER in manifest["files"]):
        raise ReleaseError(f"{path} describes a painter without {PAINTER}, or has {PAINTER} and does not describe it")
    labels, shares = manifest["generator"]["labels"], manifest["generator"]["label_shares"]
    if len(labels) != len(shares) or (labels and not any(shares)):
        raise ReleaseError(f"{path} has the label shares {shares} for the labels {labels}; it needs one for each")
