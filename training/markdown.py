"""Numbers and tables in Markdown, as the reports and the documentation hold them."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells under a header."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def interval(estimate: dict[str, float]) -> str:
    """The `value` of an estimate with the bounds `low` and `high` of its interval."""
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
