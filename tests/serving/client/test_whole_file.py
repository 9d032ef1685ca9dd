import stat
from pathlib import Path

import pytest

from serving.client.whole_file import whole_file


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(b"before")
    with whole_file(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.npz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_is_not_whole_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write_half() -> None:
        with whole_file(tmp_path / "samples.npz") as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_it_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with whole_file(tmp_path / "whole") as file:
        file.write(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "whole")}
    assert len(modes) == 1


def test_names_may_be_as_long_as_the_system_takes_them(tmp_path: Path) -> None:
    with whole_file(tmp_path / ("n" * 255)) as file:
        file.write(b"")
    assert len(list(tmp_path.iterdir())) == 1
