"""The service's OpenAPI 3.1 document, kept by hand: every route and every status that can occur."""

from typing import Any

from serving.openapi.operations import paths
from serving.openapi.schemas import SCHEMAS

VERSION = "1.0.0"

SECURITY_SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "vs_<id>_<secret>",
        "description": "A key of the operator. A service that only its own machine reaches may ask for none.",
    },
    "keyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
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
        "paths": paths(),
        "components": {"schemas": SCHEMAS, "securitySchemes": SECURITY_SCHEMES},
    }
