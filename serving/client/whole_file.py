"""A file that is there whole or not at all, whatever happens while it is written."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it takes the name `path`, in the place of what bore it, only when the block ends well."""
    incomplete = path.with_name(f".{uuid.uuid4().hex}.incomplete")
    try:
        with incomplete.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        incomplete.replace(path)
    finally:
        incomplete.unlink(missing_ok=True)
