"""What clients may do to a real service that mean it no good, or whose network is bad."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from contracts.imaging import encode_png
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

IMAGE = encode_png(real_images(1)[0])
MEBIBYTE = 1024**2
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
SETTINGS = {
    "VERISYNTH_WORKERS": "1",
    "VERISYNTH_MAXIMUM_REQUESTS": "2",
    "VERISYNTH_MAXIMUM_UPLOAD_BYTES": str(MEBIBYTE),
    "VERISYNTH_MAXIMUM_BUFFERED_BYTES": str(4 * MEBIBYTE),
    "VERISYNTH_BODY_TIMEOUT_SECONDS": "3",
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = tmp_path_factory.mktemp("models")
    write_small_release(models / "waves")
    with serve(tmp_path_factory.mktemp("home"), models, **SETTINGS) as running:
        yield running


@contextlib.contextmanager
def connected(service: Service, count: int = 1) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
        yield [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]


def head(
    length: int | None, path: str = "/v1/authenticity", media_type: str = "multipart/form-data; boundary=x"
) -> bytes:
    """The head of a request; without a length, of a chunked one."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\n{size}\r\n\r\n".encode()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the service hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def check(service: Service) -> int:
    with service.client() as client:
        return client.post("/v1/authenticity", files={"image": ("x.png", IMAGE)}).status_code


def resident_bytes(service: Service) -> int:
    """Of the supervisor and its workers together."""
    supervisor = psutil.Process(service.process.pid)
    return sum(process.memory_info().rss for process in (supervisor, *supervisor.children(recursive=True)))


def test_who_sends_slowly_keeps_nobody_waiting_and_is_cut_off(strict: Service) -> None:
    # Ten times as many as there are places.
    with connected(strict, 20) as connections:
        for connection in connections:
            connection.sendall(head(1000) + b"--x\r\n")
        assert check(strict) == 200
        for _ in range(3):
            for connection in connections:
                connection.sendall(b"-")
            assert check(strict) == 200
        answers = [answer(connection) for connection in connections]
    assert all(text.startswith(b"HTTP/1.1 408 ") for text in answers)
    assert all(b'"body_too_slow"' in text and b"connection: close" in text.lower() for text in answers)
    assert check(strict) == 200


def test_half_a_request_and_a_hang_up_leave_nothing_behind(strict: Service) -> None:
    for text in (head(1000) + b"--x", head(1000), head(1000)[:30], b"", b"\0" * 100, head(None) + b"5\r\nab"):
        with connected(strict, 30) as connections:
            for connection in connections:
                connection.sendall(text)
            assert check(strict) == 200
    assert check(strict) == 200


def test_a_gigabyte_in_chunks_is_refused_while_it_arrives(strict: Service) -> None:
    check(strict)
    before = resident_bytes(strict)
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with connected(strict) as (connection,):
        connection.sendall(head(None) + b"%x\r\n%s\r\n" % (len(PART), PART))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 1024 * MEBIBYTE:
                connection.sendall(chunk)
                sent += 0x10000
                if sent == 2 * MEBIBYTE:
                    text = connection.recv(65536)
    assert text.startswith(b"HTTP/1.1 413 ")
    assert sent < 1024 * MEBIBYTE
    assert resident_bytes(strict) - before < 64 * MEBIBYTE
    assert check(strict) == 200


@pytest.mark.parametrize("path", ["/v1/authenticity", "/v1/generate"])
def test_a_client_that_only_sends_still_finds_the_refusal(strict: Service, path: str) -> None:
    media_type = "application/json" if path == "/v1/generate" else "multipart/form-data; boundary=x"
    for body in (b"x" * 3 * MEBIBYTE, (b"x" * 65536 for _ in range(48))):
        with strict.client() as client:
            refused = client.post(path, content=body, headers={"Content-Type": media_type})
        assert refused.status_code in (400, 413)
        assert refused.json()["error"]["code"] in ("body_too_large", "malformed_multipart")


def test_many_uploads_at_once_stay_within_memory(strict: Service) -> None:
    with connected(strict, 12) as connections:
        for connection in connections:
            connection.sendall(head(MEBIBYTE - 1) + PART + b"x" * (MEBIBYTE - 1000))
        answers = [answer(connection) for connection in connections]
    refused = [text for text in answers if text.startswith(b"HTTP/1.1 503 ")]
    assert len(refused) >= 8
    assert all(b'"overloaded"' in text and b"retry-after" in text.lower() for text in refused)
    assert all(text.startswith(b"HTTP/1.1 408 ") for text in answers if text not in refused)
    assert check(strict) == 200


@pytest.mark.parametrize(
    "part",
    [
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n',
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n',
        b"--x\r\n\r\n\r\n",
        b"--x\r\n" + b"a: b\r\n" * 40,
    ],
)
def test_a_hundred_thousand_parts_are_refused(strict: Service, part: bytes) -> None:
    check(strict)
    before = resident_bytes(strict)
    with strict.client() as client:
        refused = client.post(
            "/v1/authenticity",
            content=(part * 1000 for _ in range(100)),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
    assert refused.json()["error"]["code"] in ("malformed_multipart", "invalid_request", "body_too_large")
    assert resident_bytes(strict) - before < 64 * MEBIBYTE


class Witness:
    """A server that counts who connects to it."""

    def __init__(self) -> None:
        self.seen = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/image.png"
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.seen += 1

    def connect(self) -> None:
        socket.create_connection(self._socket.getsockname()).close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def witness() -> Iterator[Witness]:
    watching = Witness()
    yield watching
    watching.close()


XML = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "{}">]><svg><image href="{}"/>&b;</svg>'


@pytest.mark.parametrize(
    "request_",
    [
        lambda url: {"files": {"image": (None, url)}},
        lambda url: {"files": {"image": ("a.png", url.encode())}},
        lambda url: {"files": {"image": (url, IMAGE)}, "data": {"model": url}},
        lambda url: {"files": {"image": ("a.svg", XML.format(url, url).encode(), "image/svg+xml")}},
        lambda url: {"files": {"image": ("a.png", IMAGE, url)}},
        lambda url: {"data": {"image": url}},
        lambda url: {"json": {"image": url, "url": url, "model": url}},
        lambda url: {"files": {"image": ("a.png", IMAGE)}, "headers": {"Referer": url, "X-Forwarded-Host": url}},
    ],
)
def test_no_request_makes_the_service_connect_anywhere(
    strict: Service, witness: Witness, request_: Callable[[str], Any]
) -> None:
    with strict.client() as client:
        for path in ("/v1/authenticity", "/v1/generate"):
            assert client.post(path, **request_(witness.url)).status_code < 500
        client.get(f"/web/{witness.url}")
    assert witness.seen == 0
    witness.connect()
    deadline = time.monotonic() + 30
    while witness.seen == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert witness.seen == 1  # it would have seen
