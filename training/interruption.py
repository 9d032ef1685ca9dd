"""Ctrl-C and SIGTERM as a wish that a loop grants at the next good moment, so that what it saves is whole."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interruption:
    """Whether somebody asked to stop."""

    requested: bool = False


@contextmanager
def deferred() -> Iterator[Interruption]:
    """Within the block SIGINT and SIGTERM only set `requested`; a second one stops at once."""
    wish = Interruption()

    def handle(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if wish.requested:
            raise KeyboardInterrupt
        wish.requested = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
