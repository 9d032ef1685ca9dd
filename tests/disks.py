"""A disk that can be filled, for tests."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system that can be filled; where the tests may not mount one, they are skipped."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room on the disk; deleting the returned file makes room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as opened:
        try:
            while opened.write(b"x" * 512):
                pass
        except OSError:
            return ballast
    raise AssertionError
