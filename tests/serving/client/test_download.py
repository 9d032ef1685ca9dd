"""Samples on disk, out of the real service and behind a proxy that fails on demand."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import VerisynthError
from contracts.imaging import decode
from contracts.manifest import read_release
from serving.client.client import Client
from serving.client.connection import ServiceError
from serving.client.download import IMAGES_PER_PART
from tests.flaky import Flaky, altered, busy, cut_off, cut_off_junk, cut_off_stream, other
from tests.services import Service

COUNT = IMAGES_PER_PART + 40


@pytest.fixture
def network(proxy: Flaky, monkeypatch: pytest.MonkeyPatch) -> Flaky:
    monkeypatch.setattr("serving.client.connection.sleep", lambda _: None)
    proxy.faults.clear()
    proxy.requests.clear()
    return proxy


@pytest.fixture
def client(network: Flaky) -> Iterator[Client]:
    with Client(network.url, retries=1) as connected:
        yield connected


def names(folder: Path) -> list[str]:
    """Everything in the folder but the lock, so that no incomplete file is overlooked."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("a.npz", None), ("a.zip", None), ("a.png", None), ("a.dicom.zip", None), ("a.zip", "dicom")],
)
def test_a_file_is_the_answer(
    client: Client, network: Flaky, tmp_path: Path, name: str, file_format: str | None
) -> None:
    saved = client.save(tmp_path / name, 5, file_format, model="labelled", seed=3)
    request = json.loads(network.requests[0]["body"])
    with service_client(network) as direct:
        assert (tmp_path / name).read_bytes() == direct.post("/v1/generate", json=request).content
    assert saved.file_format == request["format"] == (file_format or {"a.dicom.zip": "dicom"}.get(name, name[2:]))
    assert (saved.model, saved.seed, saved.count) == ("labelled", 3, 5)
    assert names(tmp_path) == [name]


def service_client(network: Flaky) -> httpx.Client:
    return httpx.Client(base_url=network.url, timeout=30)


def test_a_folder_of_arrays(client: Client, tmp_path: Path) -> None:
    done: list[int] = []
    saved = client.save(tmp_path / "new" / "samples", COUNT, model="labelled", seed=3, progress=done.append)
    folder = tmp_path / "new" / "samples"
    parts = [f"000000-{IMAGES_PER_PART - 1:06d}.npz", f"{IMAGES_PER_PART:06d}-{COUNT - 1:06d}.npz"]
    assert names(folder) == [*parts, "samples.json"]
    whole = client.generate(COUNT, model="labelled", seed=3)
    for name, expected in (("images", whole.images), ("labels", whole.labels), ("masks", whole.masks)):
        assert np.array_equal(np.concatenate([np.load(folder / part)[name] for part in parts]), expected)  # type: ignore[arg-type]
    contents = json.loads((folder / "samples.json").read_text())
    assert contents["synthetic"] is True
    assert (contents["version"], contents["seed"], contents["count"]) == (whole.version, 3, COUNT)
    assert saved.version == whole.version
    assert sum(done) == COUNT


def test_a_folder_of_images_with_their_masks_and_manifests(client: Client, tmp_path: Path) -> None:
    client.save(tmp_path, COUNT, "zip", model="labelled", seed=3)
    whole = client.generate(COUNT, model="labelled", seed=3)
    assert whole.masks is not None
    for index in (0, IMAGES_PER_PART - 1, IMAGES_PER_PART, COUNT - 1):
        assert np.array_equal(decode((tmp_path / f"{index:06d}.png").read_bytes()).pixels, whole.images[index])
        mask = decode((tmp_path / f"{index:06d}-mask.png").read_bytes()).pixels[..., 0]
        assert np.array_equal(mask, whole.masks[index])
    manifests = [json.loads(path.read_bytes()) for path in sorted(tmp_path.glob("manifest-*.json"))]
    assert [manifest["start"] for manifest in manifests] == [0, IMAGES_PER_PART]
    assert len(names(tmp_path)) == 2 * COUNT + 2 + 1


def test_a_folder_of_dicom_files_is_one_series(client: Client, tmp_path: Path) -> None:
    client.save(tmp_path, COUNT, "dicom", model="waves", seed=3)
    files = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("*.dcm"))]
    assert [file.InstanceNumber for file in files] == list(range(1, COUNT + 1))
    assert len({file.SeriesInstanceUID for file in files}) == 1
    assert len({file.SOPInstanceUID for file in files}) == COUNT


@pytest.mark.parametrize("file_format", ["npz", "zip"])
def test_a_folder_that_was_begun_is_gone_on_with(
    client: Client, network: Flaky, tmp_path: Path, file_format: str
) -> None:
    # The first part passes; the second is cut off, twice.
    network.faults = [altered(), cut_off, cut_off]
    with pytest.raises(ServiceError, match="no answer"):
        client.save(tmp_path, COUNT, file_format, model="labelled")
    left = set(names(tmp_path))
    assert "samples.json" in left
    assert not any("incomplete" in name for name in left)
    network.requests.clear()
    # Neither seed nor model are said again.
    saved = client.save(tmp_path, COUNT, file_format)
    assert [json.loads(request["body"])["start"] for request in network.requests] == [IMAGES_PER_PART]
    client.save(tmp_path / "whole", COUNT, file_format, model="labelled", seed=saved.seed)
    assert left < set(names(tmp_path))
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    network.requests.clear()
    client.save(tmp_path, COUNT, file_format)
    assert network.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"model": "waves"},
        {"truncation": 0.5},
        {"label": "benign"},
        {"count": 3},
        {"file_format": "zip"},
        {"start": 1},
    ],
)
def test_a_folder_is_gone_on_with_by_the_same_request_only(
    client: Client, tmp_path: Path, changes: dict[str, Any]
) -> None:
    request = {"count": 2, "model": "labelled", "seed": 3, "file_format": "npz"}
    client.save(tmp_path, **request)
    name, value = next(iter(changes.items()))
    with pytest.raises(VerisynthError, match=f"begun with {name} .*, and {value!r} is asked for"):
        client.save(tmp_path, **request | changes)


def test_another_version_does_not_go_on(client: Client, network: Flaky, tmp_path: Path) -> None:
    network.faults = [altered(x_verisynth_version="0" * 12)]
    with pytest.raises(VerisynthError, match="begin anew"):
        client.save(tmp_path, COUNT, model="waves")
    assert len(names(tmp_path)) == 2


def test_what_else_is_in_a_folder_is_left_alone(client: Client, network: Flaky, tmp_path: Path) -> None:
    (tmp_path / "000000.png").write_bytes(b"a patient")
    with pytest.raises(VerisynthError, match=r"holds files and no samples.json"):
        client.save(tmp_path, 1, "zip", model="waves")
    (tmp_path / "samples.json").write_text("{}")
    with pytest.raises(VerisynthError, match="cannot be read"):
        client.save(tmp_path, 1, "zip", model="waves")
    assert (tmp_path / "000000.png").read_bytes() == b"a patient"
    assert network.requests == []


def test_two_do_not_save_into_one_folder(client: Client, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(VerisynthError, match="another process"):
        client.save(tmp_path, 1, model="waves")


def test_a_refused_request_leaves_no_folder(client: Client, tmp_path: Path) -> None:
    for name in ("new", "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(ServiceError, match="nothing"):
            client.save(tmp_path / name, 1, model="nothing")
    assert names(tmp_path) == ["there"]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("a.npz", {"count": 1025}, "at most 1024"),
        ("a.npz", {"count": 10**15}, "at most 1024"),
        ("a.npz", {"count": 0}, "at least 1"),
        ("a.npz", {"file_format": "zip"}, "the format is zip"),
        ("a.png", {"file_format": "npz"}, "the format is npz"),
        ("folder", {"file_format": "png"}, "png is one picture"),
        ("folder", {"file_format": "bmp"}, "'bmp'; it must be one of dicom, npz, zip, png"),
        ("none/a.npz", {}, "there is no folder"),
    ],
)
def test_destinations_that_cannot_be(
    client: Client, network: Flaky, tmp_path: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(VerisynthError, match=message):
        client.save(tmp_path / name, **{"count": 1, "model": "waves"} | fields)
    assert network.requests == []


@pytest.mark.parametrize("fault", [busy(422, "unknown_label"), cut_off])
def test_a_file_that_failed_is_not_there(client: Client, network: Flaky, tmp_path: Path, fault: Any) -> None:
    (tmp_path / "a.npz").write_bytes(b"before")
    network.faults = [fault] * 2
    with pytest.raises(ServiceError):
        client.save(tmp_path / "a.npz", 3, model="waves")
    assert names(tmp_path) == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"before"


@pytest.mark.parametrize("fault", [cut_off, cut_off_junk, cut_off_stream])
def test_a_cut_off_file_is_written_anew(client: Client, network: Flaky, tmp_path: Path, fault: Any) -> None:
    network.faults = [fault]
    client.save(tmp_path / "a.npz", 30, model="waves", seed=1)
    client.save(tmp_path / "b.npz", 30, model="waves", seed=1)
    assert len(network.requests) == 3
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_another_server_leaves_nothing(client: Client, network: Flaky, tmp_path: Path) -> None:
    network.faults = [other(b"<html>")] * 2
    for name in ("a.npz", "folder"):
        with pytest.raises(ServiceError, match="is it the address of the service"):
            client.save(tmp_path / name, 3, model="waves")
    assert names(tmp_path) == []


def test_a_folder_that_takes_no_files_is_an_error_of_the_disk(client: Client) -> None:
    with pytest.raises(OSError, match=r"a.npz|incomplete"):
        client.save("/proc/a.npz", 3, model="waves")


ORIGIN = {"X-Verisynth-Model": "waves", "X-Verisynth-Version": "0" * 12}


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name, data in files.items():
            written.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../000000.png", "/000000.png", "000000.exe", "a/000000.png", "000001.png"])
def test_strange_archives_are_not_unpacked(client: Client, network: Flaky, tmp_path: Path, name: str) -> None:
    network.faults = [other(archive({name: b"x", "manifest.json": b"{}"}), **ORIGIN)]
    with pytest.raises(ServiceError, match="archive cannot be read"):
        client.save(tmp_path / "folder", 1, "zip", model="waves")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["samples.json"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_archives_are_unpacked_or_an_error(
    client: Client, network: Flaky, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    body = bytearray(archive({"000000.png": b"pixels", "manifest.json": b"{}"}))
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("unpacked")
    network.faults = [other(bytes(body), **ORIGIN)]
    try:
        client.save(folder, 1, "zip", model="waves")
    except ServiceError:
        assert set(names(folder)) <= {"samples.json", "000000.png"}
    else:
        assert names(folder) == ["000000.png", "manifest-000000-000000.json", "samples.json"]


def test_versions_are_those_of_the_release(client: Client, service: Service, tmp_path: Path) -> None:
    saved = client.save(tmp_path / "a.npz", 1, model="waves")
    assert saved.version == read_release(service.models / "waves").version
