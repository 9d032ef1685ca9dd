"""The border between a stage and the person at the terminal: errors they can mend arrive as one line.

with border("prepare", name):
    prepare(name)
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.errors import VerisynthError


@contextmanager
def border(
    stage: str,
    cell: str | None = None,
    go_on: str = "`make repro`, `dvc repro` or the same command; finished stages are kept",
) -> Iterator[None]:
    """End the process in words where the work inside cannot go on.

    A `VerisynthError` is printed as `stage@cell: message` and exits 1. Ctrl-C says how to
    `go_on` and exits 130. Anything else is our mistake and keeps its traceback.
    """
    target = f"{stage}@{cell}" if cell else stage
    try:
        yield
    except VerisynthError as error:
        print(f"{target}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"\n{target}: {stop.args[0] if stop.args else 'stopped'}; go on with {go_on}", file=sys.stderr)
        sys.exit(130)
