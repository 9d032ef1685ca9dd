"""Many files in one request, to a real service; each is what `/v1/authenticity` says of it."""

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import jsonschema
import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry

from contracts.imaging import encode_png
from monitoring.metrics import Metrics
from serving.access.audit import verify
from serving.access.gate import Gate
from serving.batches import LONGEST_NAME, MAXIMUM_FILES
from serving.edge import Edge
from serving.endpoints.batch import MEDIA_TYPE
from serving.openapi import document
from serving.routes import application
from serving.settings import Settings
from serving.worker import Worker
from tests.asgi import Conversation
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

PATH = "/v1/authenticity/batch"
MEBIBYTE = 1024**2
IMAGES = [encode_png(image) for image in real_images(4)]
SETTINGS = {
    "VERISYNTH_WORKERS": "1",
    "VERISYNTH_THREADS": "2",
    "VERISYNTH_MAXIMUM_UPLOAD_BYTES": str(MEBIBYTE),
    "VERISYNTH_MAXIMUM_BATCH_BYTES": str(8 * MEBIBYTE),
    "VERISYNTH_MAXIMUM_PIXELS": "4000000",
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = tmp_path_factory.mktemp("models")
    write_small_release(models / "waves")
    write_small_release(models / "labelled", channels=1, labels=("benign", "malignant"), tile_side=32)
    with serve(tmp_path_factory.mktemp("home"), models, **SETTINGS) as running:
        yield running


@pytest.fixture
def client(target: Service) -> Iterator[httpx.Client]:
    with target.client() as connected:
        yield connected


def zipped(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def asked(client: httpx.Client, *images: tuple[str, bytes], model: str | None = "waves") -> httpx.Response:
    fields = {} if model is None else {"model": model}
    return client.post(PATH, files=[("image", image) for image in images], data=fields)


def asked_archive(client: httpx.Client, archive: bytes, model: str | None = "waves") -> httpx.Response:
    return client.post(PATH, files={"archive": ("a.zip", archive)}, data={} if model is None else {"model": model})


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    """Those of the files; the last one counts them."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "content-length" not in answer.headers
    *found, last = [json.loads(line) for line in answer.text.splitlines()]
    errors = sum("error" in line for line in found)
    assert last == {"files": len(found), "checked": len(found) - errors, "errors": errors}
    assert [line["index"] for line in found] == list(range(len(found)))
    return found


def code(answer: httpx.Response) -> str:
    assert answer.status_code >= 400, answer.text
    return str(answer.json()["error"]["code"])


@pytest.mark.parametrize("model", ["waves", "labelled", None])
def test_a_line_is_what_a_single_check_answers(client: httpx.Client, model: str | None) -> None:
    images = [(f"{number}.png", data) for number, data in enumerate(IMAGES)]
    found = lines(asked(client, *images, model=model))
    for line, (name, data) in zip(found, images, strict=True):
        form = {} if model is None else {"model": model}
        single = client.post("/v1/authenticity", files={"image": (name, data)}, data=form).json()
        assert line == {"index": line["index"], "name": name} | single
    assert lines(asked_archive(client, zipped(images), model)) == found
    schema = document() | {"$ref": "#/components/schemas/BatchLine"}
    for line in (*found, {"files": 4, "checked": 4, "errors": 0}):
        jsonschema.validate(line, schema)


def test_one_bad_file_spoils_none_of_the_others(client: httpx.Client) -> None:
    images = [
        ("good", IMAGES[0]),
        ("cut", IMAGES[1][: len(IMAGES[1]) // 2]),
        ("text", b"no image"),
        ("empty", b""),
        ("huge", b"\0" * (MEBIBYTE + 1)),
        ("small", encode_png(np.zeros((8, 8, 1), np.uint8))),
        ("good", IMAGES[2]),
    ]
    wanted = [None, "broken_image", "not_an_image", "invalid_request", "file_too_large", "image_too_small", None]
    for found in (lines(asked(client, *images)), lines(asked_archive(client, zipped(images)))):
        assert [line.get("error", {}).get("code") for line in found] == wanted
        assert [line["name"] for line in found] == [name for name, _ in images]
        schema = document() | {"$ref": "#/components/schemas/BatchLine"}
        for line in found:
            jsonschema.validate(line, schema)


def test_names_are_echoed_escaped_and_cut(client: httpx.Client) -> None:
    names = ["a/../../b.png", "ä\u2028\n.png", "x" * 1000 + ".png"]
    answer = asked_archive(client, zipped([(name, IMAGES[0]) for name in names]))
    assert answer.text.isascii()
    found = [line["name"] for line in lines(answer)]
    assert found == [*names[:2], names[2][-LONGEST_NAME:]]


def test_folders_are_passed_over_and_duplicates_are_files(client: httpx.Client) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = zipped([("folder/", b""), ("folder/a.png", IMAGES[0]), ("folder/a.png", IMAGES[1])])
    first, second = lines(asked_archive(client, archive))
    assert first["name"] == second["name"] == "folder/a.png"
    assert first["image"]["sha256"] != second["image"]["sha256"]


# --- archives that mean no good -----------------------------------------------------------------


def changed(archive: bytes, central: int, local: int, value: bytes) -> bytes:
    """With other bytes in the heads of the first entry, so far behind their signatures."""
    data = bytearray(archive)
    for signature, offset in ((b"PK\x01\x02", central), (b"PK\x03\x04", local)):
        position = data.index(signature) + offset
        data[position : position + len(value)] = value
    return bytes(data)


def test_entries_that_cannot_be_read_are_lines(client: httpx.Client) -> None:
    images = [("a.png", IMAGES[0]), ("b.png", IMAGES[1])]
    archive = zipped(images, zipfile.ZIP_STORED)
    encrypted = changed(archive, 8, 6, b"\x01\0")
    unknown = changed(archive, 10, 8, struct.pack("<H", 93))
    wrong_checksum = changed(archive, 16, 14, b"\0\0\0\0")
    understated = changed(zipped(images), 24, 22, struct.pack("<I", 100))
    lzma = zipped(images, zipfile.ZIP_LZMA)
    for broken in (encrypted, unknown, wrong_checksum, understated):
        found = lines(asked_archive(client, broken))
        assert [line.get("error", {}).get("code") for line in found] == ["broken_entry", None]
    assert [line["error"]["code"] for line in lines(asked_archive(client, lzma))] == ["broken_entry"] * 2


def test_bombs_are_refused_before_they_are_unpacked(client: httpx.Client, target: Service) -> None:
    zeros = b"\0" * MEBIBYTE
    bomb = zipped([(str(number), zeros) for number in range(40)])
    assert len(bomb) < MEBIBYTE
    assert code(asked_archive(client, bomb)) == "body_too_large"
    large = zipped([("large", zeros + b"\0"), ("a.png", IMAGES[0])])
    assert [line.get("error", {}).get("code") for line in lines(asked_archive(client, large))] == [
        "file_too_large",
        None,
    ]
    # All entries are one and the same stretch.
    single = zipped([("a.png", IMAGES[0])], zipfile.ZIP_STORED)
    table = single[single.index(b"PK\x01\x02") : single.index(b"PK\x05\x06")]
    offset = single.index(b"PK\x01\x02")
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 500, 500, 500 * len(table), offset, 0)
    assert code(asked_archive(client, single[:offset] + 500 * table + end)) == "broken_archive"


def test_a_table_of_contents_is_bounded(client: httpx.Client, target: Service) -> None:
    many = zipped([(str(number), b"") for number in range(MAXIMUM_FILES + 1)])
    assert code(asked_archive(client, many)) == "too_many_files"
    # Seven megabytes of it, which would be a hundred thousand objects.
    before = resident_bytes(target)
    head = zipped([("x" * 20, b"")])
    offset = head.index(b"PK\x01\x02")
    table = head[offset : head.index(b"PK\x05\x06")] * 100_000
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 65535, 65535, len(table), offset, 0)
    assert code(asked_archive(client, head[:offset] + table + end)) == "too_many_files"
    assert resident_bytes(target) - before < 32 * MEBIBYTE


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"junk" * 1000, IMAGES[0]])
def test_what_is_no_archive_is_refused(client: httpx.Client, data: bytes) -> None:
    # An empty archive is one, and holds no file.
    assert code(asked_archive(client, data)) in ("broken_archive", "invalid_request")


# --- forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ({"files": {"other": b"x"}}, "invalid_request"),
        ({"files": {"image": (None, "http://127.0.0.1/x.png")}}, "invalid_request"),
        ({"files": {"image": ("a", IMAGES[0]), "model": ("m", b"waves")}}, "invalid_request"),
        ({"files": {"image": ("a", IMAGES[0]), "archive": ("b", zipped([]))}}, "invalid_request"),
        ({"files": {"archive": ("b", zipped([]))}}, "invalid_request"),
        ({"files": {"image": ("a", IMAGES[0])}, "data": {"model": "nothing"}}, "unknown_model"),
        ({"files": {"image": ("a", IMAGES[0])}, "data": {"model": ["waves", "waves"]}}, "invalid_request"),
        ({"files": {"image": ("a", IMAGES[0])}, "data": {"model": "x" * 2000}}, "invalid_request"),
        ({"files": [("image", ("a", b"x"))] * (MAXIMUM_FILES + 1)}, "too_many_files"),
        ({"content": IMAGES[0], "headers": {"Content-Type": "image/png"}}, "unsupported_media_type"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, "malformed_multipart"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "malformed_multipart"),
        ({"content": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "invalid_request"),
        ({"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "malformed_multipart"),
        ({"content": b"\0" * (8 * MEBIBYTE + 1)}, "body_too_large"),
    ],
)
def test_forms_that_are_refused(client: httpx.Client, parts: dict[str, Any], wanted: str) -> None:
    assert code(client.post(PATH, **parts)) == wanted


def test_a_form_that_was_cut_is_refused(client: httpx.Client) -> None:
    request = httpx.Request("POST", "http://a", files=[("image", ("a", IMAGES[0])), ("image", ("b", IMAGES[1]))])
    body = request.read()
    headers = {"Content-Type": request.headers["content-type"]}
    for length in (len(body) - 4, len(body) - 100, len(body) // 2):
        assert code(client.post(PATH, content=body[:length], headers=headers)) == "malformed_multipart"


# --- memory, disk, descriptors ------------------------------------------------------------------


def resident_bytes(service: Service) -> int:
    children = psutil.Process(service.process.pid).children(recursive=True)
    return max(process.memory_info().rss for process in children)


def open_files(service: Service) -> int:
    children = psutil.Process(service.process.pid).children(recursive=True)
    return sum(len(list(Path(f"/proc/{process.pid}/fd").iterdir())) for process in children)


def test_the_largest_batches_take_little_memory_and_leave_nothing(client: httpx.Client, target: Service) -> None:
    lines(asked(client, ("a", IMAGES[0])))
    memory, files = resident_bytes(target), open_files(target)
    noise = np.random.default_rng(0)
    images = [(f"{number}", IMAGES[number % 4] + noise.bytes(4000)) for number in range(MAXIMUM_FILES)]
    assert all("error" not in line for line in lines(asked(client, *images)))
    archive = zipped(images, zipfile.ZIP_STORED)
    assert len(archive) > 4 * MEBIBYTE
    assert len(lines(asked_archive(client, archive))) == MAXIMUM_FILES
    assert resident_bytes(target) - memory < 48 * MEBIBYTE
    assert open_files(target) <= files


# --- in process: the audit log, and clients that leave ------------------------------------------


def conversation(files: list[tuple[str, bytes]], **options: Any) -> Conversation:
    request = httpx.Request("POST", "http://a", files=[("image", file) for file in files])
    return Conversation(PATH, request.read(), request.headers["content-type"], **options)


def edge(models: Path, **settings: Any) -> Edge:
    resolved = Settings(models_folder=models, threads=1, **settings).resolved(cores=1)
    metrics = Metrics(CollectorRegistry())
    worker = Worker(resolved, metrics)
    worker.load()
    gate = Gate(resolved)
    gate.load(["127.0.0.1"])
    return Edge(application(worker), resolved, metrics, gate)


def test_every_file_is_in_the_audit_log_before_its_line_is_sent(tmp_path: Path) -> None:
    write_small_release(tmp_path / "models" / "waves")
    log = tmp_path / "audit.jsonl"

    def on_piece(answer: Conversation) -> None:
        sent = answer.content.count(b'"index"')
        assert sum('"event": "file"' in line for line in log.read_text().splitlines()) >= sent

    files = [("secret-name.png", IMAGES[0]), ("b.png", b"no image")]
    answered = anyio.run(conversation(files, on_piece=on_piece).ask, edge(tmp_path / "models", audit_file=log))
    assert answered.complete
    verify([log])
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert "secret-name" not in log.read_text()
    checked, request, broken = told
    assert (request["event"], request["count"], request["route"]) == ("request", 2, PATH)
    assert (checked["event"], checked["status"], checked["verdict"], checked["model"]) == ("file", 200, "real", "waves")
    assert (broken["event"], broken["status"], broken["code"]) == ("file", 422, "not_an_image")
    assert all(line["sha256"] for line in (checked, broken))
    assert len({line["request_id"] for line in told}) == 1


def test_a_client_that_leaves_a_batch_ends_it(tmp_path: Path) -> None:
    write_small_release(tmp_path / "models" / "waves")
    log = tmp_path / "audit.jsonl"
    service = edge(tmp_path / "models", audit_file=log, maximum_requests=1)
    files = [(str(number), IMAGES[number % 4]) for number in range(40)]
    answered = anyio.run(conversation(files, pieces=3, leaves=True).ask, service)
    assert not answered.complete
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line["event"] == "file" for line in told) < 10
    assert (told[-1]["event"], told[-1]["code"], told[-1]["status"]) == ("cut", "client_closed", 499)
    assert anyio.run(conversation(files[:1]).ask, service).complete


def test_bodies_on_disk_are_bounded_over_all_requests(tmp_path: Path) -> None:
    write_small_release(tmp_path / "models" / "waves")
    service = edge(
        tmp_path / "models", maximum_batch_bytes=1000, maximum_upload_bytes=1000, maximum_buffered_bytes=1000
    )

    async def scenario() -> None:
        transport = httpx.ASGITransport(service)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://a") as client,
            anyio.create_task_group() as tasks,
        ):
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

            async def hold() -> Any:
                yield head + b"x" * (990 - len(head))
                await anyio.sleep_forever()

            for _ in range(4):
                tasks.start_soon(lambda: client.post(PATH, content=hold(), headers=headers))
            await anyio.wait_all_tasks_blocked()
            refused = await client.post(PATH, content=head + b"x" * 100, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            # Bodies in memory are counted by themselves.
            single = await client.post("/v1/authenticity", files={"image": ("a", b"x")})
            assert single.json()["error"]["code"] == "not_an_image"
            tasks.cancel_scope.cancel()

    anyio.run(scenario)
