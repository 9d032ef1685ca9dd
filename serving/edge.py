"""The middleware in front of every route, BentoML's own included.

It gives each request an id and a deadline, refuses bodies that grow too large while they arrive, turns every
error into one JSON envelope, adds the security headers, and counts and logs what was answered.
"""

import json
import logging
import re
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitoring.metrics import Metrics
from serving.refusals import CODE_HEADER, DEFAULT_MESSAGES, Refusal, default_code
from serving.settings import Settings

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
RETRY_AFTER_SECONDS = 5
# What nginx made usual for a client that hung up: nobody is left to be answered.
CLIENT_CLOSED_REQUEST = 499
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

UNLOGGED_ROUTES = ("/livez", "/readyz", "/metrics")

# In the place of BentoML's own access log, whose logger is set up to be seen.
logger = logging.getLogger("bentoml.access")


class Edge:
    """ASGI middleware; wraps the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        body = _LimitedBody(receive, self.settings.maximum_upload_bytes)
        answer = _Answer(_request_id(scope), body, send)
        try:
            body.check_announced(Headers(scope=scope))
            with anyio.fail_after(self.settings.timeout_seconds):
                await self.app(scope, body.receive, answer.send)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except ClientDisconnect:
            answer.status = answer.status or CLIENT_CLOSED_REQUEST
        except TimeoutError:
            await answer.refuse(Refusal("timeout", f"no answer within {self.settings.timeout_seconds} seconds"))
        except Exception:
            logger.exception("request %s failed", answer.request_id)
            await answer.refuse(Refusal("internal_error", DEFAULT_MESSAGES["internal_error"]))
        self._count(scope, answer, perf_counter() - started)

    def _count(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(route, str(answer.status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        if answer.code:
            self.metrics.rejected_requests.labels(answer.code).inc()
        if route in UNLOGGED_ROUTES and not answer.code:
            return
        logger.info(
            "%s %s %d %s %.1f ms %s",
            scope["method"],
            route,
            answer.status,
            answer.code or "-",
            seconds * 1000,
            answer.request_id,
        )


@dataclass
class _LimitedBody:
    """A request's body, refused as soon as it is known to be larger than `maximum_bytes`."""

    source: Receive
    maximum_bytes: int
    received_bytes: int = 0
    hung_up: bool = False

    def check_announced(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.maximum_bytes:
            raise self._refusal()

    async def receive(self) -> Message:
        message = await self.source()
        self.hung_up = message["type"] == "http.disconnect"
        self.received_bytes += len(message.get("body", b""))
        if self.received_bytes > self.maximum_bytes:
            raise self._refusal()
        return message

    def _refusal(self) -> Refusal:
        return Refusal("body_too_large", f"the body is larger than the {self.maximum_bytes} bytes that are taken")


class _Answer:
    """One response on its way out: errors are held back until they can be sent as an envelope."""

    def __init__(self, request_id: str, body: _LimitedBody, send: Send) -> None:
        self.request_id = request_id
        self._body = body
        self.code = ""
        self.status = 0
        self._send = send
        self._held: MutableMapping[str, Any] | None = None
        self._text = bytearray()

    async def send(self, message: Message) -> None:
        """Pass a message on; a response with an error status is rewritten."""
        if self._body.hung_up and not self.status:
            # Starlette makes a 500 of a client that hung up.
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status >= 400:
                self._held = message
            else:
                self._decorate(message)
                await self._send(message)
        elif self._held is None:
            await self._send(message)
        else:
            self._text += message.get("body", b"")
            if not message.get("more_body", False):
                start, self._held = self._held, None
                await self._send_envelope(start, self._text.decode("utf-8", "replace"))

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, unless an answer is already under way: then the client sees it cut off."""
        if self.status and self._held is None:
            return
        self._held = None
        self.status = refusal.status_code
        headers = [(name.lower().encode(), value.encode()) for name, value in (refusal.headers or {}).items()]
        start = {"type": "http.response.start", "status": refusal.status_code, "headers": headers}
        await self._send_envelope(start, refusal.detail)

    async def _send_envelope(self, start: MutableMapping[str, Any], text: str) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        self.code = headers.get(CODE_HEADER) or default_code(self.status)
        message = text.strip() if CODE_HEADER in headers else DEFAULT_MESSAGES.get(self.code, text.strip())
        error = {"code": self.code, "message": message, "request_id": self.request_id}
        body = json.dumps({"error": error}).encode()
        del headers[CODE_HEADER]
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(body))
        if self.status == 503:
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        if self.code == "body_too_large":
            # What is still on its way is not read.
            headers["Connection"] = "close"
        rewritten = {"type": "http.response.start", "status": self.status, "headers": headers.raw}
        self._decorate(rewritten)
        await self._send(rewritten)
        await self._send({"type": "http.response.body", "body": body})

    def _decorate(self, start: MutableMapping[str, Any]) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["X-Request-ID"] = self.request_id
        for name, value in SECURITY_HEADERS.items():
            headers[name] = value
        start["headers"] = headers.raw


def _request_id(scope: Scope) -> str:
    """The client's own `X-Request-ID` where it is harmless, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
