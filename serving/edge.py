"""The middleware in front of every route, BentoML's own included.

It gives each request an id, asks the gate whether it may come in, refuses bodies that grow too large or come too slowly
while they arrive, turns every error into one JSON envelope, adds the security headers, tells the audit log what is
answered before it is, and counts and logs it.

A deadline runs from one sign of progress to the next: a piece of the body that came, a piece of the answer that the
client took. Work ends there, and where the client hangs up. An answer that had begun by then is cut off, never mended.
"""

import contextlib
import functools
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitoring.metrics import Metrics
from serving.access.audit import CUT, FILE, REQUEST, Answered, AuditLog, Work, work_of
from serving.access.gate import ANONYMOUS, Gate, Rule
from serving.refusals import CODE_HEADER, DEFAULT_MESSAGES, LASTING_CODES, STATUSES, CutOff, Refusal, default_code
from serving.settings import Settings

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
RETRY_AFTER_SECONDS = 5
# How long a refused client that is still sending is listened to: one that never reads while it sends would find its
# connection broken, and not why.
LINGER_SECONDS = 2
LINGER_BYTES = 256 * 1024**2
# What nginx made usual for a client that hung up: nobody is left to be answered.
CLIENT_CLOSED_REQUEST = 499
CLIENT_CLOSED = "client_closed"
# Bodies that go to disk: so many of the largest at once, over all requests of a worker.
SPOOLED_BATCHES = 4
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

UNLOGGED_ROUTES = ("/livez", "/readyz", "/metrics")
AUDITED_PREFIX = "/v1/"
UNMATCHED = "unmatched"
# An answer goes out in pieces, so that a client that does not read leaves most of it where the deadline ends it.
PIECE_BYTES = 256 * 1024

# In the place of BentoML's own access log, whose logger is set up to be seen.
logger = logging.getLogger("bentoml.access")


class Edge:
    """ASGI middleware; wraps the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, gate: Gate) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.gate = gate
        self.audit = None if settings.audit_file is None else AuditLog(settings.audit_file)
        self._in_memory = _Holdings(settings.maximum_buffered_bytes)
        self._on_disk = _Holdings(SPOOLED_BATCHES * settings.maximum_batch_bytes)
        # A series that begins with its first answer shows no increase, and so no alert.
        for reason in (CLIENT_CLOSED, *(code for code, status in STATUSES.items() if status >= 500)):
            metrics.cut_answers.labels(reason)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        rule = self.gate.rule_of(scope["path"])
        body = self._body(receive, rule)
        answer = _Answer(_request_id(scope), body, send)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_with_the_client, body, answer, tasks.cancel_scope)
                # It deals with every error: one that came out would come out of the task group as a group.
                await self._ask(scope, rule, body, answer)
                tasks.cancel_scope.cancel()
        finally:
            body.release()
        if answer.begun and not answer.complete:
            await self._cut(answer)
        elif body.hung_up and not answer.complete:
            answer.status = CLIENT_CLOSED_REQUEST
        self._count(scope, rule, answer, perf_counter() - started)

    def _body(self, receive: Receive, rule: Rule | None) -> "_LimitedBody":
        if rule is not None and rule.spooled:
            return _LimitedBody(receive, self._on_disk, self.settings.maximum_batch_bytes, self.settings)
        return _LimitedBody(receive, self._in_memory, self.settings.maximum_upload_bytes, self.settings)

    async def _ask(self, scope: Scope, rule: Rule | None, body: "_LimitedBody", answer: "_Answer") -> None:
        """The application's answer, or a refusal in its place."""
        seconds = self.settings.timeout_seconds
        try:
            with anyio.fail_after(seconds) as patience:

                def go_on() -> None:
                    patience.deadline = anyio.current_time() + seconds

                body.progress = answer.progress = go_on
                await self._let_in(scope, rule, answer)
                body.check_announced(Headers(scope=scope))
                await self.app(scope, body.receive, answer.send)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except CutOff as cut:
            answer.cut = cut.code
        except (ClientDisconnect, _RefusedError):
            pass
        except TimeoutError:
            await answer.refuse(Refusal("timeout", f"no answer within {seconds} seconds"))
        except Exception:
            logger.exception("request %s failed", answer.request_id)
            await answer.refuse(Refusal("internal_error", DEFAULT_MESSAGES["internal_error"]))

    async def _cut(self, answer: "_Answer") -> None:
        """Count and record an answer that had begun and was not finished."""
        if not answer.cut:
            answer.status, answer.cut = CLIENT_CLOSED_REQUEST, CLIENT_CLOSED
        self.metrics.cut_answers.labels(answer.cut).inc()
        if answer.record_cut is not None:
            # There is nobody left who could be refused.
            with contextlib.suppress(Refusal):
                await answer.record_cut(answer.status, answer.cut)

    async def _let_in(self, scope: Scope, rule: Rule | None, answer: "_Answer") -> None:
        key = ANONYMOUS
        route = UNMATCHED if rule is None else rule.path

        async def tell(event: str, status: int, code: str | None, work: Work) -> None:
            await self._tell(Answered(answer.request_id, key, route, status, code or None, work, event))

        audited = self.audit is not None and scope["path"].startswith(AUDITED_PREFIX)
        if audited:
            work = work_of(scope)
            answer.record = lambda status, code: tell(REQUEST, status, code, work)
            answer.record_cut = lambda status, code: tell(CUT, status, code, work)
            scope["state"]["recorder"] = functools.partial(tell, FILE)
        if rule is None:
            raise Refusal("not_found", DEFAULT_MESSAGES["not_found"])
        caller = self.gate.identify(scope, rule)
        key = caller.name
        self.gate.admit(caller, rule)
        if audited:
            await self._check_audit(answer)

    async def _check_audit(self, answer: "_Answer") -> None:
        """After a failure, see whether the log can be written again before any work is done."""
        assert self.audit is not None
        if not (self.audit.failing and self.settings.audit_required):
            return
        try:
            await anyio.to_thread.run_sync(self.audit.resume)
        except OSError as error:
            # This request is counted as missing in the log already.
            answer.record = None
            raise self._audit_failure(error) from error

    async def _tell(self, answered: Answered) -> None:
        assert self.audit is not None
        try:
            # Whatever the deadline, a line is either written or known to be missing.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.audit.append, answered)
        except OSError as error:
            failure = self._audit_failure(error)
            if self.settings.audit_required:
                raise failure from error

    def _audit_failure(self, error: OSError) -> Refusal:
        self.metrics.audit_failures.inc()
        logger.error("the audit log cannot be written: %s", error)
        return Refusal("audit_failure", "what is answered cannot be recorded, so it is not; tell the operator")

    def _count(self, scope: Scope, rule: Rule | None, answer: "_Answer", seconds: float) -> None:
        # Refused before it was routed, a request counts for the route it asked for.
        route = getattr(scope.get("route"), "path", UNMATCHED if rule is None else rule.path)
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
            answer.code or answer.cut or "-",
            seconds * 1000,
            answer.request_id,
        )


async def _end_with_the_client(body: "_LimitedBody", answer: "_Answer", work: anyio.CancelScope) -> None:
    """End the work for an answer where the client hangs up before it has all of it."""
    await body.hang_up()
    if not answer.complete:
        work.cancel()


@dataclass
class _Holdings:
    """The bytes of bodies that are held in one place, memory or disk, over all requests of a worker."""

    maximum_bytes: int
    held_bytes: int = 0


@dataclass
class _LimitedBody:
    """A request's body, refused as soon as it is known to be too large, or to come too slowly."""

    source: Receive
    holdings: _Holdings
    maximum_bytes: int
    settings: Settings
    progress: Callable[[], None] = lambda: None
    started: float = field(default_factory=anyio.current_time)
    received_bytes: int = 0
    complete: bool = False
    hung_up: bool = False
    arrived: anyio.Event = field(default_factory=anyio.Event)

    def check_announced(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.maximum_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        if self.complete:
            # What follows the body is the client's hanging up, which may come as late as it likes.
            return await self._next()
        seconds = self._seconds()
        try:
            with anyio.fail_after(self.started + seconds - anyio.current_time()):
                message = await self._next()
        except TimeoutError as error:
            raise Refusal(
                "body_too_slow", f"the body did not arrive within {seconds} seconds; send it faster"
            ) from error
        self.progress()
        self._hold(len(message.get("body", b"")))
        return message

    async def hang_up(self) -> None:
        """Wait until all of the body is there, and then until the client hangs up."""
        await self.arrived.wait()
        while not self.hung_up:
            await self._next()

    async def ended(self, within_seconds: float = 0) -> bool:
        """Read what the client is still sending, and forget it, so long and so much; whether that was all of it."""
        forgotten = 0
        with anyio.move_on_after(within_seconds):
            while not (self.complete or self.hung_up or forgotten > LINGER_BYTES):
                forgotten += len((await self._next()).get("body", b""))
        return self.complete or self.hung_up

    def release(self) -> None:
        self.holdings.held_bytes -= self.received_bytes
        self.received_bytes = 0

    async def _next(self) -> Message:
        message = await self.source()
        self.hung_up = message["type"] == "http.disconnect"
        if not (self.hung_up or message.get("more_body", False)):
            self.complete = True
            self.arrived.set()
        return message

    def _seconds(self) -> int:
        """How long the body may take: a batch as much time for each stretch of it as the largest upload has."""
        return self.settings.body_timeout_seconds * (1 + self.received_bytes // self.settings.maximum_upload_bytes)

    def _hold(self, count: int) -> None:
        self.received_bytes += count
        self.holdings.held_bytes += count
        if self.received_bytes > self.maximum_bytes:
            raise self._too_large()
        if self.holdings.held_bytes > self.holdings.maximum_bytes:
            raise Refusal("overloaded", "too many uploads are arriving at once; try again")

    def _too_large(self) -> Refusal:
        return Refusal("body_too_large", f"the body is larger than the {self.maximum_bytes} bytes that are taken")


class _RefusedError(Exception):
    """The application need not go on: its answer may not go out, and the refusal has."""


class _Answer:
    """One response on its way out: errors are held back until they can be sent as an envelope, and all that is
    recorded is recorded first."""

    def __init__(self, request_id: str, body: _LimitedBody, send: Send) -> None:
        self.request_id = request_id
        self.record: Callable[[int, str], Awaitable[None]] | None = None
        self.record_cut: Callable[[int, str], Awaitable[None]] | None = None
        self.progress: Callable[[], None] = lambda: None
        self.code = ""
        self.cut = ""
        """Why what had begun was not finished."""
        self.status = 0
        self.begun = False
        self.complete = False
        self._body = body
        self._refused = False
        self._send = send
        self._held: MutableMapping[str, Any] | None = None
        self._text = bytearray()

    async def send(self, message: Message) -> None:
        """Pass a message on; a response with an error status is rewritten."""
        if self._refused or (self._body.hung_up and not self.status):
            # Answered in the application's place; or Starlette makes a 500 of a client that hung up.
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status >= 400:
                self._held = message
            elif not await self._recorded():
                raise _RefusedError
            else:
                self._decorate(message)
                self.begun = True
                await self._send(message)
        elif self._held is None:
            await self._send_in_pieces(message)
        else:
            self._text += message.get("body", b"")
            if not message.get("more_body", False):
                start, self._held = self._held, None
                await self._send_envelope(start, self._text.decode("utf-8", "replace"))

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, unless an answer is already under way: then the client sees it cut off."""
        if self.begun:
            self.cut = refusal.code
        if self.begun or self._refused:
            return
        self._held = None
        self.status = refusal.status_code
        headers = [(name.lower().encode(), value.encode()) for name, value in (refusal.headers or {}).items()]
        start = {"type": "http.response.start", "status": refusal.status_code, "headers": headers}
        await self._send_envelope(start, refusal.detail)

    async def _recorded(self) -> bool:
        """Whether the answer may go out; where it may not, the refusal has."""
        if self.record is None:
            return True
        record, self.record = self.record, None
        try:
            await record(self.status, self.code)
        except Refusal as refusal:
            self.status = 0
            await self.refuse(refusal)
            return False
        return True

    async def _send_envelope(self, start: MutableMapping[str, Any], text: str) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        self.code = headers.get(CODE_HEADER) or default_code(self.status)
        if not await self._recorded():
            return
        self._refused = True
        message = text.strip() if CODE_HEADER in headers else DEFAULT_MESSAGES.get(self.code, text.strip())
        error = {"code": self.code, "message": message, "request_id": self.request_id}
        body = json.dumps({"error": error}).encode()
        del headers[CODE_HEADER]
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(body))
        if self.status == 503 and self.code not in LASTING_CODES:
            headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
        await self._send_and_close({"type": "http.response.start", "status": self.status}, headers, body)

    async def _send_in_pieces(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        for start in range(0, len(body), PIECE_BYTES):
            rest = more or start + PIECE_BYTES < len(body)
            await self._send_piece(body[start : start + PIECE_BYTES], rest)
        if not body:
            await self._send_piece(body, more)

    async def _send_piece(self, piece: bytes, more: bool) -> None:
        # With its last piece the client may hang up.
        self.complete = not more
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})
        self.progress()

    async def _send_and_close(self, start: dict[str, Any], headers: MutableHeaders, body: bytes) -> None:
        """Send all of an answer; where the client has not sent all of its body, listen a little and hang up."""
        sending = self.code == "body_too_large" or not await self._body.ended()
        if sending:
            headers["Connection"] = "close"
        start["headers"] = headers.raw
        self._decorate(start)
        self.complete = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": sending})
        if sending:
            await self._body.ended(within_seconds=LINGER_SECONDS)
            await self._send({"type": "http.response.body", "body": b""})

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
