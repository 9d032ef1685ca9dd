"""A proxy that fails on demand, in front of a real service: what networks do to a client, without waiting for it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass
class Flaky:
    """`faults` are used up one per request, in order; after them every request passes."""

    url: str
    faults: list[Callable[[BaseHTTPRequestHandler, httpx.Response], None]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Method, path, headers (names in lower case), body and connection of every request, as they came."""


def busy(status: int = 503, code: str = "overloaded", retry_after: str | None = "0") -> Any:
    """An answer in the service's envelope instead of the service's own."""

    def fault(handler: BaseHTTPRequestHandler, _: httpx.Response) -> None:
        body = json.dumps({"error": {"code": code, "message": "a fault", "request_id": "fault"}}).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def cut_off(handler: BaseHTTPRequestHandler, answer: httpx.Response) -> None:
    """Half of the true answer, then nothing."""
    _send(handler, answer, answer.content[: len(answer.content) // 2])
    handler.close_connection = True


def cut_off_stream(handler: BaseHTTPRequestHandler, answer: httpx.Response) -> None:
    """Half of the true answer in chunked encoding, without its end: how the service cuts off what it cannot finish."""
    handler.send_response(answer.status_code)
    for name, value in answer.headers.items():
        if name.startswith(("x-", "content-type")):
            handler.send_header(name, value)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    half = answer.content[: len(answer.content) // 2]
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
    handler.close_connection = True


def cut_off_junk(handler: BaseHTTPRequestHandler, answer: httpx.Response) -> None:
    """More bytes than the true answer has, all of them others, and not as many as were announced."""
    junk = httpx.Response(200, content=b"junk" * len(answer.content), headers=answer.headers)
    _send(handler, junk, junk.content[: len(junk.content) // 2])
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler, _: httpx.Response) -> None:
    """No answer at all."""
    handler.close_connection = True


def other(body: bytes, **headers: str) -> Any:
    """An answer of status 200 that is something else."""

    def fault(handler: BaseHTTPRequestHandler, _: httpx.Response) -> None:
        _send(handler, httpx.Response(200, content=body, headers=headers), body)

    return fault


def altered(**headers: str) -> Any:
    """The true answer with other headers; `_` in a name stands for `-`."""

    def fault(handler: BaseHTTPRequestHandler, answer: httpx.Response) -> None:
        answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        _send(handler, answer, answer.content)

    return fault


def _send(handler: BaseHTTPRequestHandler, answer: httpx.Response, body: bytes) -> None:
    handler.send_response(answer.status_code)
    for name, value in answer.headers.items():
        if name not in ("content-length", "connection", "transfer-encoding", "date", "server"):
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(answer.content)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def flaky(target: str) -> Iterator[Flaky]:
    """A proxy in front of `target` until the end of the block."""
    state = Flaky("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                state.requests.append(
                    {
                        "method": self.command,
                        "path": self.path,
                        "headers": headers,
                        "body": body,
                        "connection": self.client_address,
                    }
                )
                fault = state.faults.pop(0) if state.faults else None
            passed = {name: value for name, value in headers.items() if name not in ("host", "connection")}
            true = httpx.request(self.command, target + self.path, headers=passed, content=body, timeout=30)
            if fault is None:
                _send(self, true, true.content)
            else:
                fault(self, true)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
