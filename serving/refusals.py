"""Every way in which the service says no: one code, one HTTP status, one sentence.

The codes are the `code` of the error envelope, the `reason` of `verisynth_rejected_requests_total`
and the error table of the OpenAPI document.

A refusal travels through the ASGI layers as plain text with its code in a header, like the errors of
Starlette and BentoML (which have none); `serving.edge` makes the JSON envelope of both.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

CODE_HEADER = "x-verisynth-code"

STATUSES = {
    "bad_request": 400,
    "malformed_json": 400,
    "malformed_multipart": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_collection": 404,
    "unknown_file": 404,
    "method_not_allowed": 405,
    "body_too_slow": 408,
    "rollback_refused": 409,
    "body_too_large": 413,
    "image_too_large": 413,
    "file_too_large": 413,
    "too_many_files": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "invalid_request": 422,
    "model_required": 422,
    "unknown_label": 422,
    "not_an_image": 422,
    "broken_image": 422,
    "image_too_small": 422,
    "several_frames": 422,
    "unsupported_pixels": 422,
    "not_a_mask": 422,
    "empty_mask": 422,
    "mask_size": 422,
    "no_painter": 422,
    "broken_archive": 422,
    "broken_entry": 422,
    "rate_limited": 429,
    "internal_error": 500,
    "not_ready": 503,
    "overloaded": 503,
    "model_refused": 503,
    "model_failure": 503,
    "fingerprints_unavailable": 503,
    "audit_failure": 503,
    "timeout": 504,
}

# Waiting does not mend them.
LASTING_CODES = ("model_refused",)

DEFAULT_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    416: "range_not_satisfiable",
    503: "not_ready",
    504: "timeout",
}

# Said in the place of a library's own words.
DEFAULT_MESSAGES = {
    "not_found": "there is nothing at this path; /docs lists the routes",
    "method_not_allowed": "this path does not take this method; /docs lists the routes",
    "range_not_satisfiable": "the range lies behind the end of the file; Content-Range tells its length",
    "internal_error": "an unexpected error; tell the operator the request id",
}


class Refusal(HTTPException):
    """A request that is not answered; `code` is one of `STATUSES`, `message` says what to do.

    `headers` go out with it.
    """

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        # A client's lone surrogates must not make the answer unwritable.
        writable = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(STATUSES[code], writable, {CODE_HEADER: code, **(headers or {})})
        self.code = code


class CutOff(Exception):  # noqa: N818
    """An answer that had begun and is not finished: the client must see that it is not whole. `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def default_code(status: int) -> str:
    """The code of an error that a library raised with no more than an HTTP status."""
    return DEFAULT_CODES.get(status, "bad_request" if status < 500 else "internal_error")
