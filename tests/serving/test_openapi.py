import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from prometheus_client import CollectorRegistry

from contracts.imaging import encode_png
from monitoring.metrics import Metrics
from serving.access.gate import ADMIN, OPEN, RULES
from serving.access.keys import SCOPES
from serving.openapi import document
from serving.refusals import STATUSES, default_code
from serving.routes import application
from serving.settings import Settings
from serving.worker import Worker
from tests.releases import real_images
from tests.services import ROOT


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "post"):
                yield path, method, operation


def described_path(path: str) -> str:
    """OpenAPI has no word for a parameter with slashes in it."""
    return path.replace(":path}", "}")


def component(name: str) -> dict[str, Any]:
    return document() | {"$ref": f"#/components/schemas/{name}"}


def test_the_document_is_valid() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)


def test_every_route_is_described() -> None:
    served_by = application(Worker(Settings(), Metrics(CollectorRegistry())))
    served = {
        (described_path(route.path), method)
        for route in served_by.routes
        for method in getattr(route, "methods", None) or ()
    }
    described = {(path, method.upper()) for path, method, _ in operations()}
    assert described - served == {("/livez", "GET"), ("/readyz", "GET")}
    assert {(path, method) for path, method in served if method != "HEAD"} <= described


def test_what_needs_a_key_says_so_and_how_it_refuses() -> None:
    needs = {described_path(rule.path): rule.needs for rule in RULES}
    for path, _, operation in operations():
        responses = operation["responses"]
        if needs[path] == OPEN:
            assert operation["security"] == []
            assert not {"401", "403", "429"} & responses.keys()
            continue
        scopes = [needs[path]] if needs[path] in SCOPES else []
        nobody = [] if needs[path] == ADMIN else [{}]
        assert operation["security"] == [{"key": scopes}, {"keyHeader": scopes}, *nobody]
        assert "WWW-Authenticate" in responses["401"]["headers"]
        assert "Retry-After" in responses["429"]["headers"]
        assert "Retry-After" in responses["503"]["headers"]
        assert ("403" in responses) == bool(scopes)


def test_every_refusal_is_described_somewhere() -> None:
    described = " ".join(
        response["description"] for _, _, operation in operations() for response in operation["responses"].values()
    )
    # A path that does not exist is in no operation.
    assert [code for code in STATUSES if f"`{code}`" not in described] == ["not_found"]


def test_every_refusal_can_occur() -> None:
    raising = [
        "contracts/imaging.py",
        "contracts/dicom.py",
        *(
            f"serving/{name}.py"
            for name in ("requests", "uploads", "batches", "catalogue", "worker", "edge", "collections", "access/gate")
        ),
        *(f"serving/endpoints/{name}.py" for name in ("generation", "painting", "collections", "admin")),
    ]
    source = " ".join((ROOT / path).read_text(encoding="utf-8") for path in raising)
    by_status = {default_code(status) for status in (400, 404, 405, 416)}
    assert [code for code in STATUSES if f'"{code}"' not in source and code not in by_status] == []


def test_the_service_gives_the_same_document(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json() == json.loads(json.dumps(document()))


def test_answers_keep_to_the_document(client: httpx.Client) -> None:
    image = encode_png(real_images(1)[0])
    upload: dict[str, Any] = {"files": {"image": ("image.png", image)}, "data": {"model": "waves"}}
    for schema, answer in {
        "Models": client.get("/v1/models"),
        "Model": client.get("/v1/models/waves"),
        "Verdict": client.post("/v1/authenticity", **upload),
        "Error": client.get("/v1/models/nothing"),
    }.items():
        jsonschema.validate(answer.json(), component(schema))


@pytest.mark.parametrize("path", ["/", "/docs", "/web/page.js", "/web/markdown.js", "/web/page.css", "/web/docs.js"])
def test_pages_name_no_other_host(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_the_documentation_is_whole_without_a_network(client: httpx.Client) -> None:
    page = client.get("/docs").text
    for asset in ("/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js", "/web/docs.js"):
        assert asset in page
        assert client.get(asset).status_code == 200
