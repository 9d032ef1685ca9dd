"""What a collection says of itself: Croissant metadata for machines, a data card for people, checksums of its files.

Croissant is MLCommons' vocabulary for datasets (mlcommons.org/croissant, version 1.0); `mlcroissant` reads it.
"""

import json
from pathlib import Path
from typing import Any

from contracts.card import card
from contracts.collection import CHECKSUMS, CROISSANT, PROVENANCE, RECORDS
from contracts.manifest import Release, sha256
from training.collections import shards
from training.collections.shards import Shard

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        term: f"cr:{term}"
        for term in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
}
"""The standard context of Croissant, in which the terms below are said."""
TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for what a generative model made."""
PERSONAL_INFORMATION = (
    "Every image is generated. Images too like one that the model was trained on were left out and are counted in "
    "provenance.json; masks were not compared. That is no proof of anonymity."
)


def provenance(release: Release, seed: int, images: int, found: list[Shard]) -> dict[str, Any]:
    """How the collection was made, what was left out, and what to make it again with."""
    left_out = {reason: sum(shard.left_out[reason] for shard in found) for reason in (shards.EXACT, shards.NEAR)}
    return {
        "synthetic": True,
        "digital_source_type": TRAINED_ALGORITHMIC_MEDIA,
        "model": release.name,
        "model_version": release.version,
        "seed": seed,
        "images_drawn": images,
        "images_kept": sum(len(shard.records) for shard in found),
        "left_out": left_out,
        "privacy": release.manifest["privacy"],
        "licence": release.manifest["data"]["licence"],
        "training_data": {key: release.manifest["data"][key] for key in ("source", "content_hash", "licence")},
    }


def data_card(name: str, version: str, release: Release, made: dict[str, Any]) -> str:
    """The data card, in Markdown: what is in it, how it was made, and the model's own card."""
    size, channels = release.image.size, release.image.channels
    holds = "image and mask" if release.painter_noise_size else "image"
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in made["left_out"].items())
    return (
        f"# {name}, collection {version}\n\n"
        f"{made['images_kept']} synthetic pictures of {size} x {size} pixels in "
        f"{'colour' if channels == 3 else 'grey'}, each {holds}. **None shows a patient.** They were drawn by model "
        f"`{made['model']}`, version `{made['model_version']}`, from seed {made['seed']}: image `i` of it is the image "
        "whose `index` is `i`, and can be made again.\n\n"
        f"Of {made['images_drawn']} drawn, these were left out as too like a training image: {left_out}. "
        "That is no proof of anonymity: only what the check looks for was looked for.\n\n"
        f"Licence: {made['licence']}\n\n"
        "| file | what it is |\n| --- | --- |\n"
        "| `shards/*.zip` | PNG files, 500 images a shard, each with a claim of where it comes from |\n"
        f"| `{RECORDS}` | a line per image: file, mask, label, index, SHA-256 of its pixels |\n"
        f"| `{CROISSANT}` | the same for machines |\n"
        f"| `{PROVENANCE}` | model, seed, privacy checks |\n"
        f"| `{CHECKSUMS}` | `sha256sum -c {CHECKSUMS}` |\n\n"
        "What follows is the card of the model.\n\n" + card(release.manifest)
    )


def checksums(folder: Path) -> str:
    """A line per file of the collection, as `sha256sum` reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return "".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def croissant(folder: Path, name: str, version: str, release: Release, made: dict[str, Any], count: int) -> str:
    """The Croissant document: ZIPs and tables as files, and a record per image with its picture, mask and label."""
    archives = [_file(folder, shards.archive(folder, number), "application/zip") for number in range(count)]
    masked, labelled = release.painter_noise_size is not None, bool(release.labels)
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "version": f"1.0.0+{version}",
        "description": (
            f"{made['images_kept']} synthetic images of `{name}`: {release.manifest['data'].get('title', name)}. "
            "Drawn by a generative model; none shows a patient."
        ),
        "license": made["licence"],
        "creator": {"@type": "Organization", "name": "Verisynth"},
        "isLiveDataset": False,
        "citeAs": f"Verisynth collection {name} {version}, model {made['model_version']}, seed {made['seed']}",
        "rai:dataCollection": "Generated; see provenance.json",
        "rai:personalSensitiveInformation": PERSONAL_INFORMATION,
        "distribution": [
            *archives,
            _file(folder, folder / RECORDS, "text/csv"),
            {
                "@type": "cr:FileSet",
                "@id": "pictures",
                "containedIn": [{"@id": one["@id"]} for one in archives],
                "encodingFormat": "image/png",
                "includes": "*.png",
            },
        ],
        "recordSet": [_pictures(), _records(masked, labelled)],
    }
    return json.dumps(document, indent=2) + "\n"


def _file(folder: Path, path: Path, encoding: str) -> dict[str, Any]:
    relative = path.relative_to(folder).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": relative,
        "contentUrl": relative,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": encoding,
        "sha256": sha256(path),
    }


def _pictures() -> dict[str, Any]:
    """Every PNG by its name: images and masks."""
    return {
        "@type": "cr:RecordSet",
        "@id": "files",
        "key": {"@id": "files/name"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "files/name",
                "dataType": "sc:Text",
                "source": {"fileSet": {"@id": "pictures"}, "extract": {"fileProperty": "filename"}},
            },
            {
                "@type": "cr:Field",
                "@id": "files/pixels",
                "dataType": "sc:ImageObject",
                "source": {"fileSet": {"@id": "pictures"}, "extract": {"fileProperty": "content"}},
            },
        ],
    }


def _records(masked: bool, labelled: bool) -> dict[str, Any]:
    """A line of the table of records."""
    columns = [("file", "sc:Text"), ("index", "sc:Integer"), ("sha256", "sc:Text")]
    columns += [("mask", "sc:Text")] if masked else []
    columns += [("label", "sc:Text")] if labelled else []
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "key": {"@id": "images/file"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"images/{column}",
                "dataType": kind,
                "source": {"fileObject": {"@id": RECORDS}, "extract": {"column": column}},
            }
            for column, kind in columns
        ],
    }
