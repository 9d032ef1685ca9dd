"""The faults of `make soak`, each once and briefly: no answer is lost."""

import pytest

from tests import soak


@pytest.mark.parametrize("part", ["kill", "stop", "disk", "crash", "reload"])
def test_no_answer_is_lost(part: str) -> None:
    (row,) = soak.PARTS[part](1, 1)
    assert row.answered > 0
    assert row.lost == 0
    # Who is told to end answers what it has in hand; who has no room for a line says so.
    assert row.broken == 0 or part in ("kill", "crash")
    assert (row.refused > 0) == (part == "disk")


def test_a_wrong_answer_is_counted_as_lost() -> None:
    load = soak.Load(service=None, clients=0)  # type: ignore[arg-type]
    load._note("models", lambda: soak.httpx.Response(500), lambda _: True)
    load._note("models", lambda: soak.httpx.Response(200), lambda _: False)
    load._note("models", lambda: soak.httpx.Response(200), lambda _: True)
    load._note("models", lambda: soak.httpx.Response(503), lambda _: True)
    row = load.row("nothing", 1)
    assert (row.requests, row.answered, row.refused, row.lost) == (4, 1, 1, 2)
