"""Scans of folders against the real service; reports that are cut off, changed and strange."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import VerisynthError
from contracts.imaging import encode_png
from serving.client.client import Client
from serving.client.connection import ServiceError
from serving.client.scan import COLUMNS, Report, Row, counted, images_below, prepare, run
from tests.flaky import busy, flaky
from tests.images import dicom, encoded, speckle
from tests.releases import real_images
from tests.services import Service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, retries=0) as connected:
        yield connected


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Nine files that are images by name or content, one of them broken, and others that are none."""
    folder = tmp_path / "archive"
    (folder / "b" / "c").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    real = Image.fromarray(real_images(1)[0])
    (folder / "a.PNG").write_bytes(encoded(real, "PNG"))
    (folder / "b" / "photo.jpg").write_bytes(encoded(real, "JPEG"))
    (folder / "b" / "c" / "slide.tiff").write_bytes(encoded(real, "TIFF"))
    (folder / "b" / "IM000001").write_bytes(dicom(speckle(1, channels=1)[..., 0].astype(np.uint16) * 16))
    (folder / "b" / "c" / "slide.webp").write_bytes(encoded(real, "WEBP", lossless=True))
    (folder / "b" / "c" / "unnamed").write_bytes(encoded(real, "WEBP"))
    (folder / "b" / "renamed.txt").write_bytes(encoded(real, "PNG"))
    bright = np.full((32, 32, 3), 250, np.uint8)
    bright[:4] = 0
    (folder / "bright.png").write_bytes(encode_png(bright))
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden" / "a.png").write_bytes(encoded(real, "PNG"))
    (folder / ".a.png").write_bytes(encoded(real, "PNG"))
    os.mkfifo(folder / "pipe.png")
    return folder


IMAGES = [
    *("a.PNG", "b/IM000001", "b/c/slide.tiff", "b/c/slide.webp", "b/c/unnamed", "b/photo.jpg", "b/renamed.txt"),
    *("bright.png", "broken.png"),
]


def scanned(client: Client, folder: Path, path: Path, model: str | None = "waves") -> tuple[list[Row], list[str]]:
    """All rows of a scan, and the paths that were checked for it."""
    with Report.opened(path) as report:
        found = prepare(folder, report, model)
        checked = [row.path for row in run(found, client, model)]
        return list(report.rows.values()), checked


def test_images_are_found_by_name_and_by_content(archive: Path) -> None:
    found = [path.relative_to(archive).as_posix() for path in images_below(archive)]
    assert sorted(found) == sorted(IMAGES)
    assert found == [path.relative_to(archive).as_posix() for path in images_below(archive)]


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
def test_a_report_has_a_row_for_every_image(client: Client, archive: Path, tmp_path: Path, name: str) -> None:
    rows, _ = scanned(client, archive, tmp_path / name)
    by_path = {row.path: row for row in rows}
    assert sorted(by_path) == sorted(f"./{path}" for path in IMAGES)
    expected = client.check(archive / "a.PNG", "waves")
    row = by_path["./a.PNG"]
    assert (row.verdict, row.model, row.sha256) == ("real", "waves", expected.sha256)
    assert float(row.synthetic_probability) == expected.synthetic_probability
    assert by_path["./bright.png"].verdict == "synthetic"
    assert (by_path["./broken.png"].error, by_path["./broken.png"].outcome) == ("not_an_image", "unchecked")
    assert by_path["./broken.png"].request_id
    assert counted(rows) == {"real": 6, "synthetic": 1, "uncertain": 1, "out_of_scope": 0, "unchecked": 1}
    # What others read it with.
    with (tmp_path / name).open(newline="") as file:
        read = list(csv.DictReader(file)) if name.endswith("csv") else [json.loads(line) for line in file]
    assert read == [asdict(row) for row in rows]


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
def test_only_what_changed_is_checked_again(client: Client, archive: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    before, checked = scanned(client, archive, path)
    assert len(checked) == len(IMAGES)
    assert scanned(client, archive, path) == (before, [])
    (archive / "bright.png").write_bytes((archive / "a.PNG").read_bytes())
    os.utime(archive / "b" / "photo.jpg", ns=(1, 1))
    (archive / "new.png").write_bytes((archive / "a.PNG").read_bytes())
    (archive / "a.PNG").unlink()
    rows, checked = scanned(client, archive, path)
    assert sorted(checked) == ["./b/photo.jpg", "./bright.png", "./new.png"]
    # One row for each, that of the file that is gone included.
    assert sorted(row.path for row in rows) == sorted([*(row.path for row in before), "./new.png"])
    assert {row.path: row.verdict for row in rows}["./bright.png"] == "real"


def test_verdicts_of_another_model_are_not_the_ones_asked_for(client: Client, archive: Path, tmp_path: Path) -> None:
    scanned(client, archive, tmp_path / "report.csv", model="waves")
    rows, checked = scanned(client, archive, tmp_path / "report.csv", model="labelled")
    # What is no image is none for any model.
    assert sorted(checked) == sorted(f"./{path}" for path in IMAGES if path != "broken.png")
    assert {row.model for row in rows} == {"labelled", ""}
    assert scanned(client, archive, tmp_path / "report.csv", model=None)[1] == []


def test_what_the_service_broke_on_is_checked_again(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "bright.png").write_bytes(encode_png(np.full((32, 32, 3), 230, np.uint8)))
    rows, _ = scanned(client, folder, tmp_path / "report.csv", model="erratic")
    assert rows[0].error == "model_failure"
    assert scanned(client, folder, tmp_path / "report.csv", model="erratic")[1] == ["./bright.png"]


def test_an_upload_that_was_too_slow_stops_no_scan_and_is_checked_again(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name, image in zip(("a.png", "b.png"), real_images(2), strict=True):
        (folder / name).write_bytes(encode_png(image))
    with flaky(service.url) as network, Client(network.url, retries=0) as client:
        network.faults = [busy(408, "body_too_slow")]
        rows, _ = scanned(client, folder, tmp_path / "report.csv")
        assert sorted(row.error for row in rows) == ["", "body_too_slow"]
        rows, checked = scanned(client, folder, tmp_path / "report.csv")
    assert (len(checked), {row.error for row in rows}) == (1, {""})


def test_a_stopped_scan_goes_on(client: Client, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    with Report.opened(path) as report:
        rows = run(prepare(archive, report, "waves"), client, "waves", concurrency=1)
        first = [next(rows), next(rows)]
        rows.close()
    with path.open("ab") as file:
        file.write(b"./b/c/slide.tiff,12")
    all_rows, checked = scanned(client, archive, path)
    assert all_rows[:2] == first
    assert len(checked) == len(IMAGES) - 2


def test_a_scan_ends_where_every_check_would_fail(client: Client, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as refused:
        scanned(client, archive, tmp_path / "report.csv", model="nothing")
    assert refused.value.code == "unknown_model"
    assert (tmp_path / "report.csv").read_bytes() == ",".join(COLUMNS).encode() + b"\r\n"


def test_files_that_cannot_be_read_are_rows(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(300 * 1024**2)
    rows, _ = scanned(client, folder, tmp_path / "report.csv")
    assert {row.path: row.error for row in rows} == {"./gone.png": "unreadable", "./huge.png": "unreadable"}
    assert "more than any service takes" in rows[1].message
    with pytest.raises(VerisynthError, match="nowhere cannot be read"):
        scanned(client, tmp_path / "nowhere", tmp_path / "report.csv")


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
def test_names_of_any_bytes_are_kept(client: Client, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    names = [b"=1+1.png", b'comma, quote".png', b"line\nbreak\r.png", b"\xff\xfe.png", "ä.png".encode()]
    for file in names:
        (folder / os.fsdecode(file)).write_bytes(b"no image")
    rows, checked = scanned(client, folder, tmp_path / name)
    assert sorted(os.fsencode(row.path) for row in rows) == sorted(b"./" + file for file in names)
    assert len(checked) == len(names)
    assert scanned(client, folder, tmp_path / name) == (rows, [])


def test_two_scans_do_not_write_one_report(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    with Report.opened(path), pytest.raises(VerisynthError, match="another scan"), Report.opened(path):
        pass


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.csv", "name,age\nJane,42\n"),
        ("report.csv", ",".join(COLUMNS) + "\n./a.png,1\n./b.png,1\n"),
        ("report.csv", ",".join(COLUMNS) + '\n./a".png,1"x"\n'),
        ("report.jsonl", '{"path": "./a.png"}\n'),
        ("report.jsonl", "[]\n"),
        ("report.jsonl", "./a.png\n"),
        ("report.jsonl", json.dumps(dict.fromkeys(COLUMNS, 1)) + "\n"),
    ],
)
def test_what_is_no_report_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(VerisynthError, match="is no report of a scan"), Report.opened(tmp_path / name):
        pass
    assert (tmp_path / name).read_text() == text


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ROWS = st.lists(st.builds(Row, **dict.fromkeys(COLUMNS, TEXT)), max_size=4, unique_by=lambda row: row.path)


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
@given(rows=ROWS, data=st.data())
def test_a_report_that_is_cut_anywhere_keeps_the_whole_rows(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[Row], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("reports") / name
    ends = []
    with Report.opened(path) as report:
        report.keep({})
        for row in rows:
            report.add(row)
            ends.append(path.stat().st_size)
    with Report.opened(path) as report:
        assert list(report.rows.values()) == rows
    cut = data.draw(st.integers(0, path.stat().st_size))
    os.truncate(path, cut)
    with Report.opened(path) as report:
        assert list(report.rows.values()) == rows[: sum(end <= cut for end in ends)]
        report.keep(report.rows)
        further = replace(rows[0], path="further") if rows else Row("further", "", "")
        report.add(further)
    with Report.opened(path) as report:
        assert report.rows["further"] == further


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
@given(junk=st.binary(max_size=60))
def test_any_file_is_a_report_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("reports") / name
    path.write_bytes((",".join(COLUMNS) + "\n").encode() * (name == "report.csv") + junk)
    try:
        Report(path)
    except VerisynthError as refused:
        assert str(path) in str(refused)  # noqa: PT017


def test_columns_are_the_fields() -> None:
    assert tuple(field.name for field in fields(Row)) == COLUMNS
