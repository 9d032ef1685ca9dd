"""The service's OpenAPI 3.1 document, kept by hand: every route and every status that can occur."""

import re
from typing import Any

from contracts.balances import BALANCES
from contracts.claims import KINDS, SCHEMA
from contracts.imaging import FORMATS as IMAGE_FORMATS
from contracts.limits import MAXIMUM_COUNT, MAXIMUM_SEED, MAXIMUM_START
from contracts.manifest import VERDICTS
from serving.access.gate import ADMIN, ANY_KEY, OPEN, RULES
from serving.batches import LONGEST_NAME, MAXIMUM_FILES
from serving.formats import FORMATS
from serving.provenance.claims import STATUSES
from serving.provenance.fingerprints import MAXIMUM_DISTANCE, MINIMUM_SIMILARITY
from serving.refusals import STATUSES as HTTP_STATUSES
from serving.requests import PAINT_FIELDS

VERSION = "1.0.0"

# What any route can answer; what every one can that is not open to anybody; what every one can that reads a body and
# runs a model.
ALWAYS = ("bad_request", "method_not_allowed", "body_too_large", "internal_error", "not_ready", "timeout")
KEYED = ("unauthorized", "rate_limited", "audit_failure")
INFERENCE = (
    "body_too_slow",
    "unknown_model",
    "invalid_request",
    "overloaded",
    "model_refused",
    "model_failure",
)
NAMED = ("unknown_model", "model_refused")
SHELVED = ("unknown_collection",)
DECODING = (
    "not_an_image",
    "broken_image",
    "unsupported_pixels",
    "several_frames",
    "image_too_small",
    "image_too_large",
)

MASKS = ("not_a_mask", "empty_mask", "mask_size", "no_painter")
# What a line of a batch may say of its file.
FILE_CODES = (*DECODING, "invalid_request", "file_too_large", "broken_entry", "model_failure", "internal_error")

GENERATE_EXAMPLE = {"model": "ihc", "count": 16, "seed": 7, "format": "npz"}

PARAMETER = re.compile(r"{(\w+)}")

REQUEST_ID_HEADER = {
    "X-Request-ID": {
        "description": "The client's own where it sent one of up to 64 letters, digits, dots, hyphens and underscores.",
        "schema": {"type": "string"},
    }
}

RETRY_AFTER_HEADER = {
    "Retry-After": {
        "description": "Seconds to wait before asking again; not with `model_refused`.",
        "schema": {"type": "integer", "minimum": 1},
    }
}

ETAG_HEADER = {"ETag": {"description": "The SHA-256 in quotes.", "schema": {"type": "string"}}}

STATUS_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to ask.", "schema": {"type": "string", "const": "Bearer"}}},
    429: RETRY_AFTER_HEADER,
    503: RETRY_AFTER_HEADER,
}

SECURITY_SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "vs_<id>_<secret>",
        "description": "A key of the operator. A service that only its own machine reaches may ask for none.",
    },
    "keyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}

ORIGIN_HEADERS = {
    "X-Verisynth-Model": {"description": "The model that drew the images.", "schema": {"type": "string"}},
    "X-Verisynth-Version": {"description": "Its version.", "schema": {"type": "string"}},
    "X-Verisynth-Seed": {
        "description": "The seed; with the same model version and request it gives the same images.",
        "schema": {"type": "integer"},
    },
}

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


def document() -> dict[str, Any]:
    """The OpenAPI document as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Verisynth",
            "version": VERSION,
            "summary": "Makes synthetic bioimages and tells synthetic from real ones.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _generate()
        | _paint()
        | _authenticity()
        | _batch()
        | _get("/v1/models", "listModels", "The models served", _json("Models"))
        | _get("/v1/models/{name}", "showModel", "One model", _json("Model"), *NAMED)
        | _get(
            "/v1/models/{name}/card",
            "showCard",
            "What a model is, is for and is worth, as Markdown",
            _text("text/markdown"),
            *NAMED,
        )
        | _collections()
        | _get("/v1/admin/models", "adminModels", "What the worker that answers serves", _json("ServedModels"))
        | _post("/v1/admin/reload", "adminReload", "Verify all releases again, now")
        | _post(
            "/v1/admin/models/{name}/rollback",
            "adminRollback",
            "The previous release in the place of the champion",
            *NAMED,
            "rollback_refused",
        )
        | _get("/", "page", "The page for people", _text("text/html"))
        | _get("/docs", "documentation", "This document, to read and try", _text("text/html"))
        | _get("/openapi.json", "openapi", "This document", _text("application/json"))
        | _get("/livez", "live", "Whether the process lives", _text("text/plain"))
        | _get("/readyz", "ready", "Whether a model is served", _text("text/plain"))
        | _get("/metrics", "metrics", "Prometheus metrics", _text("text/plain")),
        "components": {"schemas": SCHEMAS, "securitySchemes": SECURITY_SCHEMES},
    }


def _images() -> dict[str, Any]:
    """The answer of whatever makes images."""
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    return {
        "description": "The images.",
        "headers": REQUEST_ID_HEADER | ORIGIN_HEADERS,
        "content": {form.media_type: binary for form in FORMATS.values()},
    }


def _generate() -> dict[str, Any]:
    operation = {
        "operationId": "generate",
        "summary": "Synthetic images",
        "description": (
            "`npz`: arrays `images` uint8 [N, H, W, C], `masks`, `labels` where the model has them, and the JSON text "
            "`provenance`. `zip`: PNG files and their origin in `manifest.json`. `png`: one grid to look at. "
            "`dicom`: a ZIP of DICOM files marked as synthetic, without masks. "
            "All carry a claim of where they come from, signed where the service has a key. "
            "The same request to the same model version gives the same pixels and claims; the same bytes, too, unless "
            "the operator adds Content Credentials to PNG files, which bear random identifiers. "
            "Images are sent while they are made: an answer that ends without the end of its encoding (chunked) was "
            "cut off, and holds no archive."
        ),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GenerateRequest"}}},
        },
    }
    codes = (
        *INFERENCE,
        *("model_required", "malformed_json", "unsupported_media_type", "unknown_label"),
        "fingerprints_unavailable",
    )
    return _path("/v1/generate", "post", operation, _images(), *codes)


def _paint() -> dict[str, Any]:
    fields = SCHEMAS["GenerateRequest"]["properties"]
    operation = {
        "operationId": "paint",
        "summary": "Photographs on a mask of your own",
        "description": (
            "Of a model whose manifest has a `painter`. The answer is that of `generate`, without masks; its claims "
            "name the mask by its hash: without the mask, no image can be made again. Image i of a seed has the noise "
            "of image i of `generate`: on that image's mask it is that image."
        ),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["mask"],
                        "additionalProperties": False,
                        "properties": {
                            "mask": {
                                "type": "string",
                                "contentMediaType": "application/octet-stream",
                                "description": (
                                    "One PNG or TIFF file of the model's size, of 0 (background) and 255 or 1; "
                                    "neither empty nor full."
                                ),
                            },
                            **{name: fields[name] for name in PAINT_FIELDS},
                            "count": fields["count"] | {"default": 1},
                        },
                    }
                }
            },
        },
    }
    codes = (*INFERENCE, *DECODING, *MASKS, "malformed_multipart", "unsupported_media_type")
    return _path("/v1/paint", "post", operation, _images(), *codes, "model_required", "fingerprints_unavailable")


def _authenticity() -> dict[str, Any]:
    operation = {
        "operationId": "authenticity",
        "summary": "Is this image real?",
        "description": (
            "Without `model`, every model looks at the image, and the one whose kind of image it is answers: "
            "that with the highest typicality among those for which the image is not out of scope. Where it is out of "
            "scope for all, the one with the highest typicality says so. The time it takes grows with the models. "
            "A mark of origin is read first, and what it claims is made again where the model is served here."
        ),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "additionalProperties": False,
                        "properties": {
                            "image": {
                                "type": "string",
                                "contentMediaType": "application/octet-stream",
                                "description": f"One {', '.join(IMAGE_FORMATS)} or DICOM file.",
                            },
                            "model": {
                                "type": "string",
                                "description": "Left out: the model whose kind of image it is.",
                            },
                        },
                    }
                }
            },
        },
    }
    verdict = {"description": "The verdict.", "headers": REQUEST_ID_HEADER, "content": _json("Verdict")}
    codes = (*INFERENCE, *DECODING, "malformed_multipart", "unsupported_media_type")
    return _path("/v1/authenticity", "post", operation, verdict, *codes)


def _batch() -> dict[str, Any]:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    operation = {
        "operationId": "authenticityBatch",
        "summary": "Are these images real?",
        "description": (
            f"Up to {MAXIMUM_FILES} files: parts named `image`, or one ZIP named `archive`, stored or deflated and "
            "not encrypted, whose folders are passed over. A line of JSON for each, in their order, as soon as it is "
            "checked, as by `/v1/authenticity`; one that cannot be checked has its error. The last line counts them."
        ),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "image": {"type": "array", "items": file, "maxItems": MAXIMUM_FILES},
                            "archive": file | {"description": "A ZIP, in the place of all images."},
                            "model": {
                                "type": "string",
                                "description": "Left out: for each image the model whose kind of image it is.",
                            },
                        },
                    }
                }
            },
        },
    }
    lines = {
        "description": (
            "A line for each file, and a last one. The error of a file is "
            f"{', '.join(f'`{code}`' for code in FILE_CODES)}."
        ),
        "headers": REQUEST_ID_HEADER,
        "content": {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/BatchLine"}}},
    }
    # What would be wrong with one file alone is told in its line.
    read = [code for code in INFERENCE if code != "model_failure"]
    codes = (*read, "malformed_multipart", "unsupported_media_type", "broken_archive", "too_many_files")
    return _path("/v1/authenticity/batch", "post", operation, lines, *codes)


def _collections() -> dict[str, Any]:
    """The routes of collections."""
    one = "/v1/collections/{name}/{version}"
    listed = _get("/v1/collections", "listCollections", "Sets of generated images to take home", _json("Collections"))
    shown = _get(one, "showCollection", "One collection", _json("CollectionDescription"), *SHELVED)
    page = {"name": "page", "in": "query", "schema": {"type": "integer", "minimum": 0, "default": 0}}
    records = _path(
        f"{one}/records",
        "get",
        {"operationId": "listRecords", "summary": "What is in a collection, a shard a page", "parameters": [page]},
        {"description": "One page.", "headers": REQUEST_ID_HEADER, "content": _json("Records")},
        *SHELVED,
        *("unknown_file", "invalid_request"),
    )
    picture = _path(
        f"{one}/images/{{page}}/{{file}}",
        "get",
        {"operationId": "showPicture", "summary": "One image or mask of a page of records"},
        {"description": "A PNG file.", "headers": REQUEST_ID_HEADER | ETAG_HEADER, "content": _text("image/png")},
        *SHELVED,
        *("unknown_file", "invalid_request"),
    )
    file = _path(
        f"{one}/files/{{path}}",
        "get",
        {
            "operationId": "fetchFile",
            "summary": "A file of a collection, to be gone on with",
            "description": (
                "As `files` of the collection names it, slashes included. Answers `Range` (206), `If-Range` and "
                "`If-None-Match` (304); a download that takes longer than the service's time-out is cut off."
            ),
        },
        {"description": "The file.", "headers": REQUEST_ID_HEADER | ETAG_HEADER, "content": _text("*/*")},
        *SHELVED,
        *("unknown_file", "range_not_satisfiable"),
    )
    for known in (picture, file):
        for operation in known.values():
            operation["get"]["responses"]["304"] = {"description": "The client has it already."}
    file[f"{one}/files/{{path}}"]["get"]["responses"]["206"] = {"description": "A part of the file."}
    return listed | shown | records | picture | file


def _get(path: str, operation: str, summary: str, content: dict[str, Any], *codes: str) -> dict[str, Any]:
    success = {"description": summary, "headers": REQUEST_ID_HEADER, "content": content}
    return _path(path, "get", {"operationId": operation, "summary": summary}, success, *codes)


def _post(path: str, operation: str, summary: str, *codes: str) -> dict[str, Any]:
    """What reads no body and answers with what was reloaded."""
    success = {"description": "What changed.", "headers": REQUEST_ID_HEADER, "content": _json("Reload")}
    return _path(path, "post", {"operationId": operation, "summary": summary}, success, *codes)


def _path(
    path: str, method: str, operation: dict[str, Any], success: dict[str, Any], *codes: str
) -> dict[str, dict[str, Any]]:
    """One path of one method; the key it needs, and the refusals that come of it, are of `serving.access.gate`."""
    needs = next(rule.needs for rule in RULES if rule.path.replace(":path}", "}") == path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in PARAMETER.findall(path)
    ]
    if parameters or "parameters" in operation:
        operation = operation | {"parameters": parameters + operation.get("parameters", [])}
    if needs == OPEN:
        security: list[dict[str, list[str]]] = []
    else:
        scopes = [] if needs == ANY_KEY else [needs]
        # The empty one: a service that asks for no keys is described, too.
        security = [{"key": scopes}, {"keyHeader": scopes}, *([] if needs == ADMIN else [{}])]
        codes = (*codes, *KEYED, *(["forbidden"] if scopes else []))
    return {path: {method: operation | {"security": security, "responses": {"200": success} | _errors(*codes)}}}


def _errors(*codes: str) -> dict[str, Any]:
    """One response per status, naming the codes that it can carry."""
    by_status: dict[int, list[str]] = {}
    for code in (*ALWAYS, *codes):
        by_status.setdefault(HTTP_STATUSES[code], []).append(code)
    return {
        str(status): {
            "description": ", ".join(f"`{code}`" for code in carried),
            "headers": REQUEST_ID_HEADER | STATUS_HEADERS.get(status, {}),
            "content": _json("Error"),
        }
        for status, carried in sorted(by_status.items())
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _text(media_type: str) -> dict[str, Any]:
    return {media_type: {}}
