import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import VerisynthError
from tests.images import speckle
from training.data.medmnist import collect, download
from training.data.medmnist_sets import SETS, file_name, url
from training.data.params import MedmnistSource


def write_set(folder: Path, name: str, labels: dict[str, np.ndarray], **changed: np.ndarray) -> MedmnistSource:
    arrays: dict[str, np.ndarray] = {}
    for number, (key, numbers) in enumerate(labels.items()):
        arrays[f"{key}_images"] = speckle(number, len(numbers) * 28, 28, 1).reshape(-1, 28, 28)
        arrays[f"{key}_labels"] = numbers
    np.savez_compressed(folder / file_name(name, 28), **(arrays | changed))
    return MedmnistSource(name, str(folder))


BINARY = {key: np.arange(count, dtype=np.uint8)[:, None] % 2 for key, count in (("train", 5), ("val", 3), ("test", 4))}


def test_splits_and_labels_are_medmnists_own_and_held_out_ones_come_first(tmp_path: Path) -> None:
    source = write_set(tmp_path, "pneumoniamnist", BINARY)
    items = collect(source).items
    assert [item.split for item in items] == ["test"] * 4 + ["validation"] * 3 + ["train"] * 5
    assert [item.name for item in items[4:7]] == ["validation/0", "validation/1", "validation/2"]
    assert [item.label for item in items[:4]] == ["normal", "pneumonia"] * 2
    with np.load(tmp_path / "pneumoniamnist.npz") as arrays:
        for item, image in zip(items[7:], arrays["train_images"], strict=True):
            assert np.array_equal(item.read().image[..., 0], image)
        assert np.array_equal(items[8].read().image[..., 0], arrays["train_images"][1]), "going back works too"


def test_findings_of_the_multi_label_set_are_joined(tmp_path: Path) -> None:
    findings = np.zeros((3, 14), dtype=np.uint8)
    findings[1, 0] = findings[2, 0] = findings[2, 13] = 1
    source = write_set(tmp_path, "chestmnist", dict.fromkeys(("train", "val", "test"), findings))
    assert [item.label for item in collect(source).items[:3]] == ["no finding", "atelectasis", "atelectasis|hernia"]


def test_a_missing_file_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(VerisynthError, match=r"python -m training\.data\.medmnist bloodmnist .* --side 64"):
        collect(MedmnistSource("bloodmnist", str(tmp_path), side=64))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_images": np.zeros((3, 28, 28), dtype=np.float32)}, "val_images is float32"),
        ({"val_images": np.zeros((3, 28), dtype=np.uint8)}, "val_images is uint8"),
        ({"val_images": np.array([None])}, "val_images is object"),
        ({"val_labels": np.zeros((2, 1), dtype=np.uint8)}, "3 val_images, but 2 val_labels"),
        ({"val_labels": np.full((3, 1), 9, dtype=np.uint8)}, "labels are 0 to 1"),
    ],
)
def test_what_medmnist_would_not_write_is_refused(changed: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    source = write_set(tmp_path, "pneumoniamnist", BINARY, **changed)
    with pytest.raises(VerisynthError, match=message):
        collect(source)


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    source = write_set(tmp_path, "pneumoniamnist", BINARY)
    file = tmp_path / "pneumoniamnist.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VerisynthError, match="is broken"):
        collect(source)
    altered = bytearray(whole)
    altered[300:1500] = bytes(1200)
    file.write_bytes(altered)
    with pytest.raises(VerisynthError, match="fetch it again"):
        [item.read() for item in collect(source).items]
    np.savez(file, pictures=np.zeros(3))
    with pytest.raises(VerisynthError, match="no MedMNIST file"):
        collect(source)


def test_the_table_of_sets_is_well_formed() -> None:
    assert len(SETS) == 12
    assert url("pathmnist", 64).endswith("/files/pathmnist_64.npz?download=1")
    sums = [md5 for known in SETS.values() for md5 in known.md5.values()]
    assert len(set(sums)) == len(sums) == 48
    for known in SETS.values():
        assert set(known.md5) == {28, 64, 128, 224}
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in known.md5.values())
        assert known.channels in (1, 3)
        assert known.licence.startswith("CC BY")
        assert len(set(known.labels)) == len(known.labels) >= 2


CONTENT = np.random.default_rng(0).bytes(700_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Publisher:
    """A web server with one file. `ends_after`: bytes after which the next answer breaks off."""

    address: str = ""
    ends_after: int | None = None
    takes_ranges: bool = True
    asked_from: list[int] = field(default_factory=list)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if state.takes_ranges else 0
            state.asked_from.append(start)
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            end, state.ends_after = state.ends_after, None
            self.wfile.write(CONTENT[start:] if end is None else CONTENT[start:end])

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}/set.npz"
    yield state
    server.shutdown()
    server.server_close()


def test_download_is_checked_and_done_once(publisher: Publisher, tmp_path: Path) -> None:
    file = tmp_path / "new" / "set.npz"
    download(publisher.address, file, MD5)
    download(publisher.address, file, MD5)
    assert file.read_bytes() == CONTENT
    assert publisher.asked_from == [0]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("takes_ranges", [True, False])
def test_a_broken_off_download_goes_on(publisher: Publisher, takes_ranges: bool, tmp_path: Path) -> None:
    publisher.ends_after, publisher.takes_ranges = 300_000, takes_ranges
    file = tmp_path / "set.npz"
    with pytest.raises(VerisynthError, match=r"ended after 300000 of 700000 bytes.*what has arrived is kept"):
        download(publisher.address, file, MD5)
    assert not file.exists()
    download(publisher.address, file, MD5)
    assert file.read_bytes() == CONTENT
    assert publisher.asked_from == [0, 300_000 if takes_ranges else 0]


def test_a_download_stopped_before_its_check_is_finished(publisher: Publisher, tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    (tmp_path / "set.npz.part").write_bytes(CONTENT)
    download(publisher.address, file, MD5)
    assert file.read_bytes() == CONTENT


def test_wrong_content_leaves_nothing_and_overwrites_nothing(publisher: Publisher, tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    with pytest.raises(VerisynthError, match=f"md5 {MD5} instead of 0"):
        download(publisher.address, file, "0" * 32)
    assert list(tmp_path.iterdir()) == []
    file.write_bytes(b"mine")
    with pytest.raises(VerisynthError, match="move it away"):
        download(publisher.address, file, MD5)
    assert file.read_bytes() == b"mine"


def test_without_a_connection_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VerisynthError, match=r"cannot be fetched: .*another machine and put it at"):
        download("http://127.0.0.1:9/set.npz", tmp_path / "set.npz", MD5)
