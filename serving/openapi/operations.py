"""Every route: what it takes, what it answers, and every way in which it refuses."""

import re
from typing import Any

from contracts.imaging import FORMATS as IMAGE_FORMATS
from serving.access.gate import ADMIN, ANY_KEY, OPEN, RULES
from serving.batches import MAXIMUM_FILES
from serving.formats import FORMATS
from serving.openapi.schemas import DECODING, FILE_CODES, SCHEMAS
from serving.refusals import STATUSES as HTTP_STATUSES
from serving.requests import PAINT_FIELDS

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

MASKS = ("not_a_mask", "empty_mask", "mask_size", "no_painter")


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

ORIGIN_HEADERS = {
    "X-Verisynth-Model": {"description": "The model that drew the images.", "schema": {"type": "string"}},
    "X-Verisynth-Version": {"description": "Its version.", "schema": {"type": "string"}},
    "X-Verisynth-Seed": {
        "description": "The seed; with the same model version and request it gives the same images.",
        "schema": {"type": "integer"},
    },
}


def paths() -> dict[str, Any]:
    """The `paths` of the document."""
    return (
        _generate()
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
        | _get("/metrics", "metrics", "Prometheus metrics", _text("text/plain"))
    )


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
