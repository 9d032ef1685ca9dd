"""A measured figure beside its bound, and how two things are timed in the same run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.services import ROOT

ROUNDS = 15
MODELS = ROOT / "models"


@dataclass(frozen=True)
class Result:
    """One figure beside the bound it must keep."""

    name: str
    value: float
    bound: str
    kept: bool


def at_least(name: str, value: float, bound: float) -> Result:
    return Result(name, round(value, 3), f">= {bound}", value >= bound)


def at_most(name: str, value: float, bound: float) -> Result:
    return Result(name, round(value, 3), f"<= {bound}", value <= bound)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of two actions measured in turns, after one warm-up each."""
    one(), other()
    pairs = [(seconds(one), seconds(other)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
