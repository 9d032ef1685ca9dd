"""Collections on disk: which are served, and that nothing beside them is."""

import json
import logging
from pathlib import Path

import pytest

from contracts.collection import CHECKSUMS, PROVENANCE
from serving.collections import Shelf
from serving.refusals import Refusal
from tests.collections import write_small_collection
from tests.releases import write_small_release


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    release = write_small_release(tmp_path / "models" / "labelled", labels=("benign", "malignant"), masks=True)
    return write_small_collection(tmp_path / "collections", release)


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    return Shelf(folder.parents[1])


def names(shelf: Shelf) -> list[str]:
    return [one.version for one in shelf.all()]


def test_only_whole_collections_are_on_the_shelf(shelf: Shelf, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert names(shelf) == [folder.name]
    assert names(Shelf(folder / "nothing")) == []
    (folder.parent / "begun").mkdir()
    (folder.parent / ".hidden").mkdir()
    (folder.parent / "file").touch()
    assert names(shelf) == [folder.name]
    assert caplog.text == ""
    (folder / "shards" / "00001.zip").unlink()
    with caplog.at_level(logging.ERROR):
        assert names(shelf) == []
    assert "00001.zip" in caplog.text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (CHECKSUMS, "no checksums"),
        (CHECKSUMS, "z" * 64 + "  a"),
        (PROVENANCE, "{"),
        (PROVENANCE, "[]"),
        (PROVENANCE, "{}"),
    ],
)
def test_a_collection_of_another_form_spoils_no_other(shelf: Shelf, folder: Path, file: str, text: str) -> None:
    other = folder.parent / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).symlink_to(path)
    (other / file).unlink()
    (other / file).write_text(text, encoding="utf-8")
    assert names(shelf) == [folder.name]
    with pytest.raises(Refusal) as refused:
        shelf.find(folder.parent.name, "other")
    assert refused.value.code == "unknown_collection"


@pytest.mark.parametrize("name", ["..", ".", "", "labelled/..", "labelled\0", "nothing"])
def test_a_name_is_no_path(shelf: Shelf, name: str) -> None:
    for names_ in ((name, name), ("labelled", name)):
        with pytest.raises(Refusal) as refused:
            shelf.find(*names_)
        assert refused.value.code == "unknown_collection"


def test_only_listed_files_inside_are_handed_out(shelf: Shelf, folder: Path) -> None:
    (folder / "secret.txt").write_text("secret", encoding="utf-8")
    (folder.parent / "outside.txt").write_text("outside", encoding="utf-8")
    (folder / "link.txt").symlink_to(folder.parent / "outside.txt")
    with (folder / CHECKSUMS).open("a", encoding="utf-8") as lines:
        lines.write(f"{'0' * 64}  link.txt\n{'0' * 64}  ../outside.txt\n")
    collection = shelf.find("labelled", folder.name)
    assert collection.file(CHECKSUMS) == folder / CHECKSUMS
    for path in (
        "secret.txt",
        "link.txt",
        "../outside.txt",
        "shards/../records.csv",
        str(folder / CHECKSUMS),
        "shards",
    ):
        with pytest.raises(Refusal) as refused:
            collection.file(path)
        assert refused.value.code == "unknown_file", path


def test_a_page_is_a_shard(shelf: Shelf, folder: Path) -> None:
    collection = shelf.find("labelled", folder.name)
    pages = [collection.records(page) for page in range(collection.pages)]
    assert [len(page) for page in pages] == [12, 12, 6]
    assert [record["index"] for page in pages for record in page] == list(range(30))
    assert pages[0][1]["label"] == "malignant"
    with pytest.raises(Refusal, match="page is 3; the pages are 0 to 2"):
        collection.records(3)
    made = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    assert collection.summary()["images_kept"] == made["images_kept"] == 30
