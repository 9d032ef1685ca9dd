"""The edge around an application of a few lines; `test_service.py` has it in front of the real one."""

import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from monitoring.metrics import Metrics
from serving.access.gate import OPEN, Gate, Rule
from serving.edge import PIECE_BYTES, Edge
from serving.refusals import STATUSES, Refusal
from serving.settings import Settings


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def slow(_: Request) -> Response:
    await anyio.sleep(60)
    return PlainTextResponse("late")


async def broken(_: Request) -> Response:
    raise ZeroDivisionError("secret")


async def refused(request: Request) -> Response:
    raise Refusal(request.query_params["code"], "because\ud800")


async def unready(_: Request) -> Response:
    raise HTTPException(503, "no model")


async def cut_off(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ZeroDivisionError

    return StreamingResponse(parts())


class Client:
    """Calls an ASGI application without a server."""

    def __init__(self, application: Edge) -> None:
        self.transport = httpx.ASGITransport(application, raise_app_exceptions=False)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://edge") as client:
                return await client.request(method, path, **options)

        return anyio.run(ask)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def client(metrics: Metrics) -> Client:
    endpoints = [echo, slow, broken, refused, unready, cut_off]
    application = Starlette(routes=[Route(f"/{call.__name__}", call, methods=["POST"]) for call in endpoints])
    settings = Settings(timeout_seconds=1, maximum_upload_bytes=10).resolved(cores=1)
    gate = Gate(settings, [Rule(f"/{call.__name__}", OPEN) for call in endpoints])
    gate.load(["127.0.0.1"])
    return Client(Edge(application, settings, metrics, gate))


def rejections(metrics: Metrics, reason: str) -> float:
    return metrics.registry.get_sample_value("verisynth_rejected_requests_total", {"reason": reason}) or 0


def test_a_good_request_passes(client: Client) -> None:
    answer = client.post("/echo", content=b"0123456789", headers={"X-Request-ID": "mine-1"})
    assert (answer.status_code, answer.text) == (200, "0123456789")
    assert answer.headers["x-request-id"] == "mine-1"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>"])
def test_a_strange_request_id_is_replaced(client: Client, given: str) -> None:
    answer = client.post("/echo", headers={"X-Request-ID": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_large_body_is_refused_by_its_announced_length(client: Client, metrics: Metrics) -> None:
    answer = client.post("/echo", content=b"x" * 11)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"
    assert rejections(metrics, "body_too_large") == 1


def test_a_large_body_is_refused_while_it_arrives(client: Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"xxxx"

    answer = client.post("/echo", content=parts())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("code", STATUSES)
def test_every_refusal_has_one_envelope(client: Client, metrics: Metrics, code: str) -> None:
    answer = client.post("/refused", params={"code": code})
    assert answer.status_code == STATUSES[code]
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"].startswith("because")
    assert error["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (STATUSES[code] == 503 and code != "model_refused")
    assert "x-verisynth-code" not in answer.headers
    assert rejections(metrics, code) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/echo", 405, "method_not_allowed"),
        ("POST", "/unready", 503, "not_ready"),
        ("POST", "/slow", 504, "timeout"),
        ("POST", "/broken", 500, "internal_error"),
    ],
)
def test_errors_of_others_get_the_envelope(
    client: Client, metrics: Metrics, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret" not in answer.text
    assert rejections(metrics, code) == 1


def test_a_client_that_hangs_up_is_no_error_of_ours(
    client: Client, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/echo", "query_string": b"", "headers": []}
    with caplog.at_level(logging.INFO):
        anyio.run(client.transport.app, scope, receive, send)
    assert sent == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    labels = {"route": "/echo", "status": "499"}
    assert metrics.registry.get_sample_value("verisynth_requests_total", labels) == 1
    assert rejections(metrics, "internal_error") == 0


def test_requests_are_counted_by_route_never_by_path(client: Client, metrics: Metrics) -> None:
    for path in ("/a", "/b", "/c"):
        client.request("GET", path)
    client.post("/echo")
    counted = {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "verisynth_requests_total"
    }
    assert counted == {("unmatched", "404"): 3, ("/echo", "200"): 1}


def test_an_answer_that_breaks_off_is_counted_and_not_mended(client: Client, metrics: Metrics) -> None:
    with pytest.raises(AssertionError):  # how httpx says that an answer was not whole
        client.post("/cut_off")
    labels = {"route": "/cut_off", "status": "200"}
    assert metrics.registry.get_sample_value("verisynth_requests_total", labels) == 1


# --- bodies that come slowly, or not at all -----------------------------------------------------


def edge(**limits: int) -> Client:
    settings = Settings(**limits).resolved(cores=1)  # type: ignore[arg-type]
    gate = Gate(settings, [Rule("/echo", OPEN), Rule("/large", OPEN)])
    gate.load(["127.0.0.1"])
    routes = [Route(f"/{call.__name__}", call, methods=["POST"]) for call in (echo, large)]
    return Client(Edge(Starlette(routes=routes), settings, Metrics(CollectorRegistry()), gate))


async def large(_: Request) -> Response:
    return Response(bytes(3 * PIECE_BYTES + 1))


def asked(client: Client, path: str, *body: Message) -> list[Message]:
    """What an application sends, piece by piece, to a client that sends this and then nothing more."""
    return conversation(client, path, *body)[0]


def conversation(client: Client, path: str, *body: Message) -> tuple[list[Message], list[Message]]:
    """What is sent, and what of the body is never read."""
    coming, sent = list(body), list[Message]()

    async def receive() -> Message:
        if not coming:
            await anyio.sleep_forever()
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    anyio.run(client.transport.app, scope, receive, send)
    return sent, coming


def part(body: bytes, more_body: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}


def code_of(sent: list[Message]) -> str:
    return str(json.loads(sent[1]["body"])["error"]["code"])


def test_a_body_that_stalls_is_refused_and_its_sender_left() -> None:
    sent = asked(edge(body_timeout_seconds=1), "/echo", part(b"some"))
    assert (sent[0]["status"], code_of(sent)) == (408, "body_too_slow")
    assert (b"connection", b"close") in sent[0]["headers"]
    # The refusal is out before the sender is listened to a little longer.
    assert [message.get("more_body", False) for message in sent[1:]] == [True, False]


def test_a_refused_sender_is_listened_to_a_little_longer() -> None:
    body = [part(b"01234567"), part(b"89abcdef"), part(b"more"), part(b"last", more_body=False)]
    sent, unread = conversation(edge(maximum_upload_bytes=10), "/echo", *body)
    assert (sent[0]["status"], code_of(sent)) == (413, "body_too_large")
    assert unread == []


def test_a_deadline_for_the_body_is_none_for_the_work() -> None:
    sent = asked(edge(body_timeout_seconds=1), "/large", part(b"all", more_body=False))
    assert sent[0]["status"] == 200
    assert [len(message["body"]) for message in sent[1:]] == [PIECE_BYTES] * 3 + [1]
    assert [message["more_body"] for message in sent[1:]] == [True] * 3 + [False]


def test_bodies_share_one_bound_and_give_back_what_they_held() -> None:
    client = edge(maximum_upload_bytes=10, maximum_buffered_bytes=15)

    async def scenario() -> None:
        arrived, finish = anyio.Event(), anyio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"01234567"
            arrived.set()
            await finish.wait()
            yield b"89"

        async with httpx.AsyncClient(transport=client.transport, base_url="http://edge") as connected:
            answers = []

            async def ask() -> None:
                answers.append((await connected.post("/echo", content=slow())).text)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await arrived.wait()
                assert (await connected.post("/echo", content=b"0123456")).status_code == 200
                refused = await connected.post("/echo", content=b"01234567")
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
                assert refused.headers["retry-after"]
                finish.set()
            assert answers == ["0123456789"]
            for _ in range(5):
                assert (await connected.post("/echo", content=b"0123456789")).status_code == 200

    anyio.run(scenario)


def test_a_refused_body_that_is_all_there_keeps_the_connection() -> None:
    client = edge()
    assert "connection" not in client.post("/nowhere", content=b"all there").headers


def test_what_a_rule_does_not_name_is_not_even_asked(client: Client, metrics: Metrics) -> None:
    assert client.post("/refused/", params={"code": "timeout"}).json()["error"]["code"] == "not_found"
    labels = {"route": "unmatched", "status": "404"}
    assert metrics.registry.get_sample_value("verisynth_requests_total", labels) == 1
