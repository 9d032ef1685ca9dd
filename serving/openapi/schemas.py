"""The values of requests and answers, as JSON schemas."""

from typing import Any

from contracts.balances import BALANCES
from contracts.claims import KINDS, SCHEMA
from contracts.imaging import FORMATS as IMAGE_FORMATS
from contracts.limits import MAXIMUM_COUNT, MAXIMUM_SEED, MAXIMUM_START
from contracts.manifest import VERDICTS
from serving.batches import LONGEST_NAME, MAXIMUM_FILES
from serving.formats import FORMATS
from serving.provenance.claims import STATUSES
from serving.provenance.fingerprints import MAXIMUM_DISTANCE, MINIMUM_SIMILARITY
from serving.refusals import STATUSES as HTTP_STATUSES

# What may be wrong with an image; and with a file of a batch.
DECODING = (
    "not_an_image",
    "broken_image",
    "unsupported_pixels",
    "several_frames",
    "image_too_small",
    "image_too_large",
)
FILE_CODES = (*DECODING, "invalid_request", "file_too_large", "broken_entry", "model_failure", "internal_error")

GENERATE_EXAMPLE = {"model": "ihc", "count": 16, "seed": 7, "format": "npz"}

ORIGIN_PROPERTIES: dict[str, Any] = {
    "model": {"type": "string"},
    "version": {"type": "string"},
    "seed": {"type": "integer", "minimum": 0, "maximum": MAXIMUM_SEED},
    "truncation": {"type": "number", "minimum": 0, "maximum": 1},
    "label": {"type": ["string", "null"], "description": "The label asked for."},
    "balance": {"type": ["string", "null"], "enum": [*BALANCES, None]},
}

MASK_PROPERTY: dict[str, Any] = {
    "mask_sha256": {
        "type": "string",
        "description": "Only of what was painted on a client's mask: that mask's, hashed as `pixel_sha256` is.",
    }
}

CLAIM_PROPERTIES: dict[str, Any] = {
    "verisynth": {"const": SCHEMA, "description": "The form of the claim."},
    "synthetic": {"const": True},
    "kind": {"type": "string", "enum": list(KINDS)},
    **ORIGIN_PROPERTIES,
    "index": {"type": "integer", "minimum": 0, "description": "Which image of the seed; of a grid, the first."},
    "count": {"type": "integer", "minimum": 0, "description": "Images in the grid; 1 else."},
    "pixel_sha256": {"type": "string", "description": "SHA-256 of `uint8 HxWxC`, a line feed and the pixels."},
    "key_id": {"type": ["string", "null"]},
    "signature": {"type": ["string", "null"], "description": "Ed25519 over the canonical JSON of all other fields."},
}

COLLECTION_PROPERTIES: dict[str, Any] = {
    "name": {"type": "string"},
    "version": {"type": "string"},
    "model": {"type": "string"},
    "model_version": {"type": "string"},
    "seed": {"type": "integer"},
    "images_kept": {"type": "integer", "minimum": 0},
    "left_out": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "Images that were left out as too like a training image, by reason.",
    },
    "licence": {"type": "string"},
    "pages": {"type": "integer", "minimum": 1, "description": "Of records; a page is a shard."},
    "bytes": {"type": "integer", "minimum": 0, "description": "Of all its files."},
}

SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "request_id"],
                "properties": {
                    "code": {"type": "string", "enum": sorted(HTTP_STATUSES)},
                    "message": {"type": "string", "description": "What is wrong and what to do."},
                    "request_id": {"type": "string"},
                },
            }
        },
    },
    "GenerateRequest": {
        "type": "object",
        "additionalProperties": False,
        "required": ["count"],
        "properties": {
            "model": {
                "type": ["string", "null"],
                "description": "May be left out where exactly one model is served.",
            },
            "count": {"type": "integer", "minimum": 1, "maximum": MAXIMUM_COUNT},
            "seed": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": MAXIMUM_SEED,
                "description": "Image i of a seed is the same image whatever the count. Without one, a random seed.",
            },
            "label": {
                "type": ["string", "null"],
                "description": "A class of a conditional model; without one, all classes by `balance`.",
            },
            "balance": {
                "type": ["string", "null"],
                "enum": [*BALANCES, None],
                "description": (
                    "Of the classes of a conditional model, where `label` is left out. `equal`, the default: in turn. "
                    "`training`: at random, as often as the training images had them."
                ),
            },
            "truncation": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 1,
                "description": "Below 1: closer to the mean image, less varied.",
            },
            "format": {"type": "string", "enum": list(FORMATS), "default": "npz"},
            "start": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAXIMUM_START,
                "default": 0,
                "description": (
                    "Index of the first image: images `start` to `start + count - 1` of the seed. Several requests "
                    "with one seed so make one sequence, longer than a single request may ask for."
                ),
            },
        },
        "examples": [GENERATE_EXAMPLE],
    },
    "Verdict": {
        "type": "object",
        "required": [
            "model",
            "model_version",
            "verdict",
            "synthetic_probability",
            "thresholds",
            "evidence",
            "image",
        ],
        "properties": {
            "model": {"type": "string", "description": "The model that answers."},
            "model_version": {"type": "string"},
            "verdict": {
                "type": "string",
                "enum": list(VERDICTS),
                "description": (
                    "`synthetic` where provenance proves it: a valid mark, an image made again, or a confirmed match. "
                    "Else that of the detector."
                ),
            },
            "synthetic_probability": {"$ref": "#/components/schemas/Share"},
            "thresholds": {
                "type": "object",
                "required": ["real", "synthetic", "typicality"],
                "properties": {
                    "real": {"$ref": "#/components/schemas/Share"},
                    "synthetic": {"$ref": "#/components/schemas/Share"},
                    "typicality": {"$ref": "#/components/schemas/Share"},
                },
            },
            "evidence": {
                "type": "object",
                "required": ["detector", "typicality", "typicalities", "provenance"],
                "properties": {
                    "detector": {
                        "type": "object",
                        "required": ["kind", "verdict", "tiles", "heatmap"],
                        "properties": {
                            "kind": {"type": "string"},
                            "verdict": {
                                "type": "string",
                                "enum": list(VERDICTS),
                                "description": "What the detector alone says.",
                            },
                            "tiles": {"type": "integer", "minimum": 1},
                            "heatmap": {
                                "type": ["array", "null"],
                                "items": {"type": "array", "items": {"type": "number"}},
                                "description": "Where the evidence lies; null where several tiles were judged.",
                            },
                        },
                    },
                    "typicality": {
                        "type": "number",
                        "description": "How much the image is like the training images at all; 0: unlike any.",
                    },
                    "typicalities": {
                        "type": "object",
                        "additionalProperties": {"type": "number"},
                        "description": (
                            "Typicality by every model that looked at the image: the one named, or all. A percentile "
                            "among the model's own held-out images, so that those of several models can be compared."
                        ),
                    },
                    "provenance": {"$ref": "#/components/schemas/Provenance"},
                },
            },
            "image": {
                "type": "object",
                "required": ["format", "width", "height", "sha256"],
                "properties": {
                    "format": {"type": "string", "enum": [*IMAGE_FORMATS, "DICOM"]},
                    "width": {"type": "integer"},
                    "height": {"type": "integer"},
                    "sha256": {"type": "string", "description": "Of the uploaded bytes."},
                },
            },
        },
    },
    "BatchLine": {
        "description": "A line of the answer to a batch: of a file that was checked, of one that was not, or the last.",
        "anyOf": [
            {
                "allOf": [
                    {"$ref": "#/components/schemas/BatchFile"},
                    {"$ref": "#/components/schemas/Verdict"},
                ]
            },
            {
                "allOf": [{"$ref": "#/components/schemas/BatchFile"}],
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["code", "message"],
                        "properties": {
                            "code": {"type": "string", "enum": [*FILE_CODES]},
                            "message": {"type": "string", "description": "What is wrong with this file."},
                        },
                    }
                },
            },
            {
                "type": "object",
                "description": "The last line: an answer without it was cut off.",
                "required": ["files", "checked", "errors"],
                "additionalProperties": False,
                "properties": {name: {"type": "integer", "minimum": 0} for name in ("files", "checked", "errors")},
            },
        ],
    },
    "BatchFile": {
        "type": "object",
        "required": ["index", "name"],
        "properties": {
            "index": {"type": "integer", "minimum": 0, "maximum": MAXIMUM_FILES - 1},
            "name": {
                "type": "string",
                "maxLength": LONGEST_NAME,
                "description": "As the client called it, or the end of that. It is neither kept nor logged.",
            },
        },
    },
    "Model": {
        "type": "object",
        "required": ["name", "version", "provider", "manifest"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "provider": {"type": "string", "description": "The ONNX Runtime execution provider."},
            "manifest": {"type": "object", "description": "The release's manifest.json."},
        },
    },
    "Models": {
        "type": "object",
        "required": ["models", "refused"],
        "properties": {
            "models": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            "refused": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Releases that are not served, and why; under such a name an older one may be.",
            },
        },
    },
    "Collection": {
        "type": "object",
        "required": sorted(COLLECTION_PROPERTIES),
        "properties": COLLECTION_PROPERTIES,
    },
    "Collections": {
        "type": "object",
        "required": ["collections"],
        "properties": {"collections": {"type": "array", "items": {"$ref": "#/components/schemas/Collection"}}},
    },
    "CollectionDescription": {
        "type": "object",
        "required": [*COLLECTION_PROPERTIES, "croissant", "card", "files"],
        "properties": {
            **COLLECTION_PROPERTIES,
            "croissant": {"type": "object", "description": "Croissant metadata; its paths are those of `files`."},
            "card": {"type": "string", "description": "The data card, as Markdown."},
            "files": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["path", "bytes", "sha256"],
                    "properties": {
                        "path": {"type": "string"},
                        "bytes": {"type": "integer", "minimum": 0},
                        "sha256": {"type": "string"},
                    },
                },
            },
        },
    },
    "Records": {
        "type": "object",
        "required": ["page", "pages", "records"],
        "properties": {
            "page": {"type": "integer", "minimum": 0},
            "pages": {"type": "integer", "minimum": 1},
            "records": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["file", "mask", "label", "index", "sha256", "image_url", "mask_url"],
                    "properties": {
                        "file": {"type": "string", "description": "Its name in the shard's ZIP."},
                        "mask": {"type": ["string", "null"]},
                        "label": {"type": ["string", "null"]},
                        "index": {"type": "integer", "minimum": 0, "description": "Which image of the seed."},
                        "sha256": {"type": "string", "description": "Of the pixels uint8 [H, W, C], without a header."},
                        "image_url": {"type": "string"},
                        "mask_url": {"type": ["string", "null"]},
                    },
                },
            },
        },
    },
    "Reload": {
        "type": "object",
        "required": ["at", "loaded", "unchanged", "removed", "refused"],
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "loaded": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "The versions served from now on, by name.",
            },
            "unchanged": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Verified, and of the version that was served already.",
            },
            "removed": {"type": "array", "items": {"type": "string"}},
            "refused": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Why a release is not served; what served before under that name serves on.",
            },
            "other_workers_asked": {
                "type": "boolean",
                "description": (
                    "Whether the other workers verify everything, too, at their next look; false where the models "
                    "folder cannot be written. They take up what changed either way."
                ),
            },
            "name": {"type": "string", "description": "After a rollback: the model."},
            "version": {"type": "string", "description": "After a rollback: its champion."},
            "withdrawn": {"type": "array", "items": {"type": "string"}},
        },
    },
    "ServedModels": {
        "type": "object",
        "required": ["worker", "models", "refused", "unreadable", "last_reload"],
        "properties": {
            "worker": {"type": "integer", "description": "The process that answers; each loads models by itself."},
            "models": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "version", "provider", "since", "previous"],
                    "properties": {
                        "name": {"type": "string"},
                        "version": {"type": "string"},
                        "provider": {"type": "string"},
                        "since": {"type": "string", "format": "date-time"},
                        "previous": {"type": ["string", "null"], "description": "What a rollback brings back."},
                    },
                },
            },
            "refused": {"type": "object", "additionalProperties": {"type": "string"}},
            "unreadable": {"type": ["string", "null"], "description": "Why the models folder cannot be read."},
            "last_reload": {"anyOf": [{"$ref": "#/components/schemas/Reload"}, {"type": "null"}]},
        },
    },
    "Provenance": {
        "type": "object",
        "required": ["status", "claim", "key_id", "reproduced", "match"],
        "description": "What is known of where the image comes from. A missing mark never means real.",
        "properties": {
            "status": {
                "type": "string",
                "enum": list(STATUSES),
                "description": (
                    "`valid`: signed by a key trusted here, pixels unaltered. `broken`: a mark that cannot be read, a "
                    "wrong signature, or altered pixels. `unsigned`, `unknown_key`: pixels as claimed, by nobody known "
                    "here. `absent`: no mark."
                ),
            },
            "claim": {"anyOf": [{"$ref": "#/components/schemas/Claim"}, {"type": "null"}]},
            "key_id": {"type": ["string", "null"], "description": "The key that the claim names."},
            "reproduced": {
                "type": ["boolean", "null"],
                "description": (
                    "Whether the model claimed draws this image; null where its version is not served here, for grids, "
                    "and for what was painted on a client's mask."
                ),
            },
            "match": {
                "anyOf": [{"$ref": "#/components/schemas/Match"}, {"type": "null"}],
                "description": "The generated image that it is like, where fingerprints are kept and nothing is proof.",
            },
        },
    },
    "Claim": {
        "type": "object",
        "description": "As it is written into the file, unverified: `status` says what it is worth.",
        "required": sorted(CLAIM_PROPERTIES),
        "additionalProperties": False,
        "properties": CLAIM_PROPERTIES | MASK_PROPERTY,
    },
    "Match": {
        "type": "object",
        "required": [*ORIGIN_PROPERTIES, "index", "distance", "similarity"],
        "additionalProperties": False,
        "properties": {
            **ORIGIN_PROPERTIES,
            **MASK_PROPERTY,
            "index": {"type": "integer", "minimum": 0},
            "distance": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAXIMUM_DISTANCE,
                "description": "Of 128 signs of low frequencies, how many differ.",
            },
            "similarity": {
                "type": ["number", "null"],
                "description": (
                    f"To the image made again; {MINIMUM_SIMILARITY} and more is proof, less is no match. "
                    "Null where that version is not served here, or a client's mask was painted on: then it is a hint."
                ),
            },
        },
    },
    "Share": {"type": "number", "minimum": 0, "maximum": 1},
}
