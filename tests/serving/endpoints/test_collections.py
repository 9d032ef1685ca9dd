"""Collections over HTTP: listed, shown page by page, and downloaded in parts."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import pytest
from PIL import Image

from contracts.manifest import read_release
from serving.access.keys import create_key
from serving.openapi import document
from serving.refusals import STATUSES
from serving.runtime import Model
from tests.services import Service, serve

SHARD = "files/shards/00000.zip"


@pytest.fixture
def reader(library: Service) -> Iterator[httpx.Client]:
    with library.client() as connected:
        yield connected


@pytest.fixture
def base(collection_folder: Path) -> str:
    return f"/v1/collections/{collection_folder.parent.name}/{collection_folder.name}"


def code_of(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert STATUSES[error["code"]] == answer.status_code
    return str(error["code"])


def test_answers_keep_to_the_document(reader: httpx.Client, base: str) -> None:
    for schema, path in (
        ("Collections", "/v1/collections"),
        ("CollectionDescription", base),
        ("Records", f"{base}/records"),
    ):
        jsonschema.validate(reader.get(path).json(), document() | {"$ref": f"#/components/schemas/{schema}"})


def test_collections_are_listed_and_described(reader: httpx.Client, collection_folder: Path, base: str) -> None:
    (listed,) = reader.get("/v1/collections").json()["collections"]
    assert (listed["name"], listed["version"], listed["images_kept"], listed["pages"]) == (
        "labelled",
        collection_folder.name,
        30,
        3,
    )
    shown = reader.get(base).json()
    assert shown.items() >= listed.items()
    assert shown["croissant"] == json.loads((collection_folder / "croissant.json").read_text(encoding="utf-8"))
    assert shown["card"] == (collection_folder / "README.md").read_text(encoding="utf-8")
    found = {
        path.relative_to(collection_folder).as_posix(): path.read_bytes()
        for path in collection_folder.rglob("*")
        if path.is_file()
    }
    assert {file["path"]: file["sha256"] for file in shown["files"]} == {
        path: hashlib.sha256(data).hexdigest() for path, data in found.items()
    }
    assert sum(file["bytes"] for file in shown["files"]) == listed["bytes"] == sum(map(len, found.values()))


def test_records_link_to_their_pictures(reader: httpx.Client, base: str, library: Service) -> None:
    drawn = Model.load(library.models / "labelled").generate(5, 0, 30)
    assert drawn.masks is not None
    for page in range(3):
        answer = reader.get(f"{base}/records", params={"page": page}).json()
        assert (answer["page"], answer["pages"]) == (page, 3)
        for record in answer["records"][:2]:
            picture = reader.get(record["image_url"])
            assert picture.headers["Content-Type"] == "image/png"
            pixels = np.asarray(Image.open(io.BytesIO(picture.content)))
            np.testing.assert_array_equal(pixels, drawn.images[record["index"]])
            mask = np.asarray(Image.open(io.BytesIO(reader.get(record["mask_url"]).content)))
            np.testing.assert_array_equal(mask, drawn.masks[record["index"]])
            known = reader.get(record["image_url"], headers={"If-None-Match": picture.headers["ETag"]})
            assert (known.status_code, known.content) == (304, b"")


def test_a_file_comes_whole_in_parts_or_not_again(reader: httpx.Client, collection_folder: Path, base: str) -> None:
    data = (collection_folder / "shards" / "00000.zip").read_bytes()
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    url = f"{base}/{SHARD}"
    whole = reader.get(url)
    assert (whole.status_code, whole.content, whole.headers["ETag"]) == (200, data, etag)
    head = reader.head(url)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(data)))
    part = reader.get(url, headers={"Range": "bytes=100-", "If-Range": etag})
    assert (part.status_code, part.content) == (206, data[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(data) - 1}/{len(data)}"
    changed = reader.get(url, headers={"Range": "bytes=100-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, data)
    for known in (etag, f'"x", W/{etag}', "*"):
        again = reader.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    behind = reader.get(url, headers={"Range": f"bytes={len(data)}-"})
    assert code_of(behind) == "range_not_satisfiable"
    assert behind.headers["Content-Range"] == f"bytes */{len(data)}"
    assert code_of(reader.get(url, headers={"Range": "lines=1-"})) == "bad_request"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/collections/labelled/nothing", "unknown_collection"),
        ("/v1/collections/%2e%2e/models", "unknown_collection"),
        ("{base}/files/nothing", "unknown_file"),
        ("{base}/files/../../../../models/labelled/manifest.json", "unknown_file"),
        ("{base}/files/%2e%2e/%2e%2e/%2e%2e/models/labelled/manifest.json", "unknown_file"),
        ("{base}/files/..%2f..%2f..%2fmodels%2flabelled%2fmanifest.json", "unknown_file"),
        ("{base}/files/%00", "unknown_file"),
        ("{base}/files//etc/passwd", "unknown_file"),
        ("{base}/records?page=3", "invalid_request"),
        ("{base}/records?page=-1", "invalid_request"),
        ("{base}/records?page=1e3", "invalid_request"),
        ("{base}/images/9/labelled-0000000.png", "unknown_file"),
        ("{base}/images/0/nothing.png", "unknown_file"),
        ("{base}/images/x/labelled-0000000.png", "invalid_request"),
    ],
)
def test_it_refuses_by_name(library: Service, base: str, path: str, code: str) -> None:
    # As it is written: the client would resolve dots.
    import socket

    host, port = library.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        request = f"GET {path.format(base=base)} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")[2]
    assert json.loads(answer)["error"]["code"] == code


def test_a_key_that_may_only_check_gets_no_images(collection_folder: Path, base: str, tmp_path: Path) -> None:
    root, keys = collection_folder.parents[2], tmp_path / "keys.json"
    check, generate = create_key(keys, ["check"]), create_key(keys, ["generate"])
    settings = {"VERISYNTH_COLLECTIONS_FOLDER": str(root / "collections"), "VERISYNTH_KEYS_FILE": str(keys)}
    with serve(tmp_path / "home", root / "models", VERISYNTH_WORKERS="1", **settings) as running:
        for path in ("/v1/collections", base, f"{base}/records", f"{base}/{SHARD}"):
            with running.client(check) as checking, running.client(generate) as generating, running.client() as nobody:
                assert code_of(checking.get(path)) == "forbidden"
                assert code_of(nobody.get(path)) == "unauthorized"
                assert generating.get(path).status_code == 200


def test_without_the_folder_there_are_none(client: httpx.Client, service: Service) -> None:
    assert read_release(service.models / "waves")
    assert client.get("/v1/collections").json() == {"collections": []}
