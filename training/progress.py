"""Progress bars on the terminal; in a log file, a line now and then."""

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int | None, description: str, unit: str, initial: int = 0, shown: bool = True) -> Any:
    """A tqdm bar: what is being done, how much of it, and the time left; large units (bytes) are scaled."""
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        unit_scale=unit == "B",
        initial=initial,
        disable=not shown,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 20,
    )
