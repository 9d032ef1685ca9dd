"""Collections fetched from the real service: whole, in parts, and never with other bytes than were promised."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.collection import CHECKSUMS
from contracts.errors import VerisynthError
from serving.client.client import Client
from serving.client.connection import ServiceError
from tests.flaky import Flaky, altered, busy, cut_off, flaky, hang_up, other
from tests.services import Service

PASS = altered()


@pytest.fixture
def network(library: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr("serving.client.connection.sleep", lambda _: None)
    with flaky(library.url) as running:
        yield running


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def downloads(network: Flaky) -> list[tuple[str, str | None]]:
    """File and range of every download that was asked for."""
    asked = [(one["path"].partition("/files/")[2], one["headers"].get("range")) for one in network.requests]
    return [(path, wanted) for path, wanted in asked if path]


def test_a_collection_is_listed_and_fetched_whole(network: Flaky, collection_folder: Path, tmp_path: Path) -> None:
    told: list[int] = []
    with Client(network.url) as client:
        (listed,) = client.collections()
        assert client.fetch_collection("labelled", tmp_path / "a", progress=told.append) == listed
        assert (listed.name, listed.version, listed.images) == ("labelled", collection_folder.name, 30)
        assert contents(tmp_path / "a") == contents(collection_folder)
        assert sum(told) == listed.bytes
        assert downloads(network)[-1][0] == CHECKSUMS
        network.requests.clear()
        client.fetch_collection("labelled", tmp_path / "a", version=listed.version)
        assert downloads(network) == []


def test_a_download_that_is_cut_off_goes_on_where_it_ended(
    network: Flaky, collection_folder: Path, tmp_path: Path
) -> None:
    told: list[int] = []
    with Client(network.url, retries=1) as client:
        listed = client.collections()[0]
        # More cuts than tries: what brings something is no failure.
        network.faults = [PASS, PASS, *[cut_off] * 4]
        client.fetch_collection("labelled", tmp_path, progress=told.append)
    first = downloads(network)[0][0]
    ranges = [wanted for path, wanted in downloads(network) if path == first]
    assert len(ranges) == 5
    assert ranges[0] is None
    assert ranges[1] == f"bytes={len((collection_folder / first).read_bytes()) // 2}-"
    assert contents(tmp_path) == contents(collection_folder)
    assert sum(told) == listed.bytes


def test_what_was_stopped_goes_on_later(network: Flaky, collection_folder: Path, tmp_path: Path) -> None:
    network.faults = [PASS, PASS, cut_off, hang_up]
    with Client(network.url, retries=0) as client:
        with pytest.raises(ServiceError) as stopped:
            client.fetch_collection("labelled", tmp_path)
        assert stopped.value.code == "unreachable"
        (part,) = tmp_path.rglob("*.part")
        size = part.stat().st_size
        assert size > 0
        network.requests.clear()
        client.fetch_collection("labelled", tmp_path)
    assert downloads(network)[0][1] == f"bytes={size}-"
    assert contents(tmp_path) == contents(collection_folder)


def test_other_bytes_than_promised_are_no_file(network: Flaky, collection_folder: Path, tmp_path: Path) -> None:
    network.faults = [PASS, PASS, other(b"junk" * 3)]
    with Client(network.url, retries=0) as client:
        with pytest.raises(ServiceError, match="has the sha256") as refused:
            client.fetch_collection("labelled", tmp_path)
        assert refused.value.code == "unexpected_answer"
        assert contents(tmp_path) == {}
        network.faults = [PASS, PASS, busy()]
        with pytest.raises(ServiceError, match="a fault"):
            client.fetch_collection("labelled", tmp_path)
        client.fetch_collection("labelled", tmp_path)
    assert contents(tmp_path) == contents(collection_folder)


def test_an_altered_file_is_fetched_again(library: Service, collection_folder: Path, tmp_path: Path) -> None:
    with Client(library.url) as client:
        client.fetch_collection("labelled", tmp_path)
        (tmp_path / "records.csv").write_text("altered", encoding="utf-8")
        client.fetch_collection("labelled", tmp_path)
        assert contents(tmp_path) == contents(collection_folder)
        (tmp_path / CHECKSUMS).write_text("another", encoding="utf-8")
        with pytest.raises(VerisynthError, match="holds another collection"):
            client.fetch_collection("labelled", tmp_path)


def test_what_is_not_there_is_told_with_what_is(library: Service, collection_folder: Path, tmp_path: Path) -> None:
    with Client(library.url) as client:
        for name, version in (("nothing", None), ("labelled", "nothing")):
            with pytest.raises(VerisynthError, match=f"0 collections .* labelled {collection_folder.name}"):
                client.fetch_collection(name, tmp_path, version)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "C:x", "a\\..\\x"])
def test_a_service_cannot_write_outside_the_folder(network: Flaky, tmp_path: Path, path: str) -> None:
    files = [{"path": name, "bytes": 1, "sha256": "0" * 64} for name in (CHECKSUMS, path)]
    network.faults = [PASS, other(json.dumps({"files": files}).encode())]
    with Client(network.url) as client, pytest.raises(ServiceError) as refused:
        client.fetch_collection("labelled", tmp_path / "folder")
    assert refused.value.code == "unexpected_answer"
    assert not (tmp_path / "folder").exists()
