"""The service's OpenAPI 3.1 document, kept by hand: every route and every status that can occur."""

from typing import Any

from contracts.imaging import FORMATS as IMAGE_FORMATS
from contracts.manifest import VERDICTS
from serving.formats import FORMATS
from serving.refusals import STATUSES
from serving.requests import MAXIMUM_COUNT, MAXIMUM_SEED
from serving.runtime import BALANCES

VERSION = "1.0.0"

# What any route can answer, and what every route that reads a body and runs a model can.
ALWAYS = ("bad_request", "method_not_allowed", "body_too_large", "internal_error", "timeout")
INFERENCE = (
    "unknown_model",
    "invalid_request",
    "not_ready",
    "overloaded",
    "model_refused",
    "model_failure",
)
DECODING = (
    "not_an_image",
    "broken_image",
    "unsupported_pixels",
    "several_frames",
    "image_too_small",
    "image_too_large",
)

GENERATE_EXAMPLE = {"model": "ihc", "count": 16, "seed": 7, "format": "npz"}

NAME_PARAMETER = {
    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
}

ORIGIN_HEADERS = {
    "X-Verisynth-Model": {"description": "The model that drew the images.", "schema": {"type": "string"}},
    "X-Verisynth-Version": {"description": "Its version.", "schema": {"type": "string"}},
    "X-Verisynth-Seed": {
        "description": "The seed; with the same model version and request it gives the same images.",
        "schema": {"type": "integer"},
    },
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
                    "code": {"type": "string", "enum": sorted(STATUSES)},
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
            "verdict": {"type": "string", "enum": list(VERDICTS)},
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
                        "required": ["kind", "tiles", "heatmap"],
                        "properties": {
                            "kind": {"type": "string"},
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
                    "provenance": {
                        "type": "null",
                        "description": "No mark of origin is read yet. A missing mark never means real.",
                    },
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
                "description": "Release folders that are not served, and why.",
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
        "paths": {
            "/v1/generate": {"post": _generate()},
            "/v1/authenticity": {"post": _authenticity()},
            "/v1/models": {"get": _get("listModels", "The models served", _json("Models"))},
            "/v1/models/{name}": {
                "get": _get("showModel", "One model", _json("Model"), "unknown_model", "not_ready", "model_refused")
                | NAME_PARAMETER
            },
            "/v1/models/{name}/card": {
                "get": _get(
                    "showCard",
                    "What a model is, is for and is worth, as Markdown",
                    _text("text/markdown"),
                    *("unknown_model", "not_ready", "model_refused"),
                )
                | NAME_PARAMETER
            },
            "/": {"get": _get("page", "The page for people", _text("text/html"))},
            "/docs": {"get": _get("documentation", "This document, to read and try", _text("text/html"))},
            "/openapi.json": {"get": _get("openapi", "This document", _text("application/json"))},
            "/livez": {"get": _get("live", "Whether the process lives", _text("text/plain"))},
            "/readyz": {"get": _get("ready", "Whether a model is served", _text("text/plain"), "not_ready")},
            "/metrics": {"get": _get("metrics", "Prometheus metrics", _text("text/plain"))},
        },
        "components": {"schemas": SCHEMAS},
    }


def _generate() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    return {
        "operationId": "generate",
        "summary": "Synthetic images",
        "description": (
            "`npz`: arrays `images` uint8 [N, H, W, C], and `masks`, `labels` where the model has them. "
            "`zip`: PNG files and their origin in `manifest.json`. `png`: one grid to look at. "
            "`dicom`: a ZIP of DICOM files marked as synthetic, without masks. "
            "The same request to the same model version gives the same bytes."
        ),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GenerateRequest"}}},
        },
        "responses": {
            "200": {
                "description": "The images.",
                "headers": ORIGIN_HEADERS,
                "content": {form.media_type: binary for form in FORMATS.values()},
            }
        }
        | _errors(*INFERENCE, "model_required", "malformed_json", "unsupported_media_type", "unknown_label"),
    }


def _authenticity() -> dict[str, Any]:
    return {
        "operationId": "authenticity",
        "summary": "Is this image real?",
        "description": (
            "Without `model`, every model looks at the image, and the one whose kind of image it is answers: "
            "that with the highest typicality among those for which the image is not out of scope. Where it is out of "
            "scope for all, the one with the highest typicality says so. The time it takes grows with the models."
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
        "responses": {"200": {"description": "The verdict.", "content": _json("Verdict")}}
        | _errors(*INFERENCE, *DECODING, "malformed_multipart", "unsupported_media_type"),
    }


def _get(operation: str, summary: str, content: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}} | _errors(*codes),
    }


def _errors(*codes: str) -> dict[str, Any]:
    """One response per status, naming the codes that it can carry."""
    by_status: dict[int, list[str]] = {}
    for code in (*ALWAYS, *codes):
        by_status.setdefault(STATUSES[code], []).append(code)
    return {
        str(status): {"description": ", ".join(f"`{code}`" for code in carried), "content": _json("Error")}
        for status, carried in sorted(by_status.items())
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _text(media_type: str) -> dict[str, Any]:
    return {media_type: {}}
