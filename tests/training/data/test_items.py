import os
from pathlib import Path

import pytest

from contracts.errors import ImageError, VerisynthError
from training.data import items
from training.data.items import files_below, name_of, read_bytes


def test_files_are_found_in_order_through_links_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "z.png").touch()
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    for name in ("b/2.png", "b/10.png", "a.png"):
        (root / name).touch()
    (root / "linked").symlink_to(elsewhere)
    (root / "b" / "circle").symlink_to(root)
    names = [name_of(path, root) for path in files_below(root)]
    assert names == ["a.png", "b/10.png", "b/2.png", "linked/z.png"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerisynthError, match="nowhere is no folder"):
        files_below(tmp_path / "nowhere")


def test_names_that_are_no_utf8_can_be_written(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    assert name_of(odd, tmp_path) == "\\xff.png"


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as refused:
        read_bytes(path)
    return refused.value.code


def test_what_is_no_readable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    assert refusal(tmp_path / "pipe.png") == "not_a_file"
    assert refusal(tmp_path / "link.png") == "not_a_file"
    (tmp_path / "large.png").write_bytes(b"0" * 11)
    monkeypatch.setattr(items, "MAXIMUM_FILE_BYTES", 10)
    assert refusal(tmp_path / "large.png") == "image_too_large"
