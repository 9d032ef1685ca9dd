"""Who may do what: the table in process, and keys against a real service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.routing import Mount

from contracts.imaging import encode_png
from monitoring.metrics import Metrics
from serving.access.gate import ADMIN, ANONYMOUS, ANY_KEY, OPEN, RULES, Gate, Rule
from serving.access.keys import SCOPES, create_key, revoke_key
from serving.refusals import Refusal
from serving.routes import application
from serving.settings import Settings
from serving.worker import Worker
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

CHECK: dict[str, Any] = {"files": {"image": ("x.png", encode_png(real_images(1)[0]))}}


def gate(keys_file: Path | None = None, **settings: Any) -> Gate:
    made = Gate(Settings(keys_file=keys_file, **settings).resolved(cores=1))
    made.load(["127.0.0.1"])
    return made


def scope(key: str | None = None, client: str = "10.0.0.1", **headers: str) -> dict[str, Any]:
    named = {"authorization": f"Bearer {key}"} if key else {}
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in (named | headers).items()]
    return {"type": "http", "headers": raw, "client": (client, 1)}


def code(made: Gate, path: str, asking: dict[str, Any]) -> str:
    """How the gate refuses, or who it lets in."""
    rule = made.rule_of(path)
    assert rule is not None
    try:
        caller = made.identify(asking, rule)
        made.admit(caller, rule)
    except Refusal as refusal:
        return refusal.code
    return caller.name


# --- the table ----------------------------------------------------------------------------------


def test_every_route_has_a_rule_of_its_own() -> None:
    served_by = application(Worker(Settings(), Metrics(CollectorRegistry())))
    paths = {f"{route.path}/{{path:path}}" if isinstance(route, Mount) else route.path for route in served_by.routes}
    bentoml = {"/livez", "/readyz", "/static_content/{path:path}"}
    assert paths | bentoml == {rule.path for rule in RULES}
    made = gate()
    for rule in RULES:
        assert made.rule_of(rule.path.replace("{path:path}", "a/b").replace("{name}", "a")) == rule


def test_what_is_open_is_named_here_too() -> None:
    assert {rule.path for rule in RULES if rule.needs == OPEN} == {
        *("/", "/web/{path:path}", "/docs", "/static_content/{path:path}", "/openapi.json"),
        *("/livez", "/readyz", "/metrics"),
    }
    assert {rule.needs for rule in RULES} == {OPEN, ANY_KEY, *SCOPES}


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/healthz",
            "/docs.json",
            "/schema.json",
            "/index.html",
            "/v1",
            "/v1/",
            "/v2/generate",
            "/v1/generate/",
            "/web",
        ),
        *("//v1/generate", "/v1//generate", "/V1/generate", "/v1/models/a/b", "/v1/generate\n", "", "v1/generate"),
    ],
)
def test_a_path_without_a_rule_is_closed(path: str) -> None:
    assert gate().rule_of(path) is None


# --- the gate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "opened"),
    [
        (["generate"], {"/v1/generate"}),
        (["check"], {"/v1/authenticity"}),
        (["admin"], {"/v1/admin/reload"}),
        (["generate", "check"], {"/v1/generate", "/v1/authenticity"}),
    ],
)
def test_a_scope_opens_its_routes_and_no_other(tmp_path: Path, scopes: list[str], opened: set[str]) -> None:
    key = create_key(tmp_path / "keys.json", scopes, name="mine")
    made = gate(tmp_path / "keys.json")
    for path in ("/v1/generate", "/v1/authenticity", "/v1/admin/reload"):
        assert code(made, path, scope(key)) == ("mine" if path in opened else "forbidden")
        assert code(made, path, scope()) == "unauthorized"
    for path in ("/v1/models", "/v1/models/waves", "/v1/models/waves/card"):
        assert code(made, path, scope(key)) == "mine"
        assert code(made, path, scope()) == "unauthorized"
    for path in ("/", "/metrics", "/readyz", "/web/page.js"):
        assert code(made, path, scope()) == ANONYMOUS


def test_a_key_comes_in_either_header(tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.json", ["check"], name="mine")
    made = gate(tmp_path / "keys.json")
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key} "},
        {"x_api_key": key},
        {"authorization": "Basic cHJveHk6", "x_api_key": key},
        {"authorization": "Bearer a.proxys.token", "x_api_key": key},
        {"authorization": f"Bearer {key}", "x_api_key": "another"},
    ):
        assert code(made, "/v1/models", scope(**headers)) == "mine"
    for headers in (
        {"authorization": key},
        {"authorization": f"Basic {key}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer vs_mine_wrong", "x_api_key": key},
        {"authorization": "Bearer a.proxys.token"},
        {"x_api_key": f"Bearer {key}"},
        {"x_api_key": "ü"},
    ):
        assert code(made, "/v1/models", scope(**headers)) == "unauthorized"


def test_an_expired_key_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, ["check"])
    file.write_text(file.read_text().replace('"created"', '"expires": "2020-01-01", "created"'))
    made = gate(file)
    rule = made.rule_of("/v1/models")
    assert rule is not None
    with pytest.raises(Refusal, match="has expired") as refused:
        made.identify(scope(key), rule)
    assert refused.value.code == "unauthorized"


def test_without_keys_all_is_open_but_admin() -> None:
    made = gate()
    assert code(made, "/v1/generate", scope()) == ANONYMOUS
    assert code(made, "/v1/admin/reload", scope()) == "unauthorized"


def test_before_it_knows_where_it_listens_nothing_is_open() -> None:
    made = Gate(Settings().resolved(cores=1))
    assert code(made, "/v1/generate", scope()) == "not_ready"
    assert code(made, "/livez", scope()) == ANONYMOUS


def test_limits_are_per_key_and_a_keys_own_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    plain, other = create_key(file, ["check"], name="plain"), create_key(file, ["check"], name="other")
    few = create_key(file, ["check"], name="few", requests_per_minute=1)
    made = gate(file, requests_per_minute=3)
    path = "/v1/authenticity"
    assert [code(made, path, scope(plain)) for _ in range(4)] == ["plain"] * 3 + ["rate_limited"]
    assert code(made, path, scope(other)) == "other"
    assert [code(made, path, scope(few)) for _ in range(2)] == ["few", "rate_limited"]
    # What a key may not do costs it nothing.
    assert code(made, "/v1/generate", scope(other)) == "forbidden"


def test_limits_are_divided_among_the_workers() -> None:
    made = gate(requests_per_minute=6, workers=3)
    assert [code(made, "/v1/models", scope()) for _ in range(3)] == [ANONYMOUS] * 2 + ["rate_limited"]


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("made up", "made up too", True),
    ],
)
def test_without_keys_limits_are_per_address(first: str, second: str, shared: bool) -> None:
    made = gate(requests_per_minute=1)
    assert code(made, "/v1/models", scope(client=first)) == ANONYMOUS
    assert code(made, "/v1/models", scope(client=second)) == ("rate_limited" if shared else ANONYMOUS)


def test_a_refused_client_is_told_how_long_to_wait() -> None:
    made = gate(requests_per_minute=2)
    rule = Rule("/v1/models", ANY_KEY)
    caller = made.identify(scope(), rule)
    made.admit(caller, rule)
    made.admit(caller, rule)
    with pytest.raises(Refusal) as refused:
        made.admit(caller, rule)
    assert refused.value.headers is not None
    assert 29 <= int(refused.value.headers["Retry-After"]) <= 30


# --- over HTTP ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def keyed(keys_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = tmp_path_factory.mktemp("models")
    write_small_release(models / "waves")
    create_key(keys_file, ["admin"], name="chief")
    settings = {"VERISYNTH_WORKERS": "2", "VERISYNTH_KEYS_FILE": str(keys_file)}
    with serve(tmp_path_factory.mktemp("home"), models, **settings) as running:
        yield running


def until(client: httpx.Client, status: int) -> None:
    """Ask until both workers have had the time to look at the file again."""
    import time

    deadline = time.monotonic() + 30
    right = 0
    while right < 20 and time.monotonic() < deadline:
        right = right + 1 if client.get("/v1/models", headers={"Connection": "close"}).status_code == status else 0
        time.sleep(0.02)
    assert right == 20


def test_keys_over_http(keyed: Service, keys_file: Path) -> None:
    check, generate = create_key(keys_file, ["check"]), create_key(keys_file, ["generate"], name="maker")
    with keyed.client(check) as checking, keyed.client(generate) as generating, keyed.client() as nobody:
        until(generating, 200)
        assert checking.post("/v1/authenticity", **CHECK).status_code == 200
        assert generating.post("/v1/generate", json={"count": 1}).status_code == 200
        for client, path, options in (
            (checking, "/v1/generate", {"json": {"count": 1}}),
            (generating, "/v1/authenticity", CHECK),
            (checking, "/v1/admin/reload", {}),
        ):
            refused = client.post(path, **options)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        for path, options in (("/v1/generate", {"json": {"count": 1}}), ("/v1/authenticity", CHECK)):
            refused = nobody.post(path, **options)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/docs", "/openapi.json", "/web/page.js", "/livez", "/readyz", "/metrics"):
            assert nobody.get(path).status_code == 200, path
        revoke_key(keys_file, "maker")
        until(generating, 401)


def test_a_refused_upload_is_answered_before_it_is_sent(keyed: Service) -> None:
    # The body is announced and never comes: whoever waited for it would not answer.
    import socket

    with socket.create_connection(("127.0.0.1", int(keyed.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(b"POST /v1/authenticity HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_limits_over_http_go_by_the_address_that_a_proxy_on_this_machine_names(tmp_path: Path, keyed: Service) -> None:
    settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_REQUESTS_PER_MINUTE": "2"}
    with serve(tmp_path, keyed.models, **settings) as service, service.client() as client:
        for address in ("10.0.0.1", "10.0.0.2"):
            named = {"X-Forwarded-For": address}
            assert [client.get("/v1/models", headers=named).status_code for _ in range(3)] == [200, 200, 429]
        refused = client.get("/v1/models", headers=named)
        assert refused.json()["error"]["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert client.get("/readyz", headers=named).status_code == 200


def test_what_bentoml_adds_is_closed(keyed: Service) -> None:
    with keyed.client() as client:
        for path in ("/healthz", "/docs.json", "/schema.json"):
            refused = client.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")


def test_a_key_is_in_no_answer_and_in_no_log(keyed: Service, keys_file: Path) -> None:
    key = create_key(keys_file, ["check"])
    for presented in (key, key[:-1] + "_"):
        with keyed.client(presented) as client:
            for path in ("/v1/models", "/v1/nothing", "/v1/generate"):
                assert key.rpartition("_")[2][:10] not in client.get(path).text
    assert key[-20:-1] not in keyed.log.read_text()


def test_admin_is_the_name_of_a_scope() -> None:
    assert ADMIN in SCOPES
