"""How figures are written in the report's tables."""

from sb3_llm.benchmarks.suite.statistics import Estimate

Cell = str | None


def heading(*names: str) -> list[str]:
    """:return: the first two lines of a table in Markdown."""
    return [row(*names), "|" + "---|" * len(names)]


def row(*cells: Cell) -> str:
    """:return: a further line; None is left empty."""
    return "| " + " | ".join(cell or "" for cell in cells) + " |"


def with_interval(estimate: Estimate | None) -> Cell:
    """:return: a share and its interval."""
    if estimate is None:
        return None
    return f"{share(estimate.value)} ({share(estimate.low)}-{share(estimate.high)})"


def without_interval(estimate: Estimate) -> str:
    """:return: a share alone: one seed has no interval."""
    return share(estimate.value)


def share(value: float) -> str:
    """:return: to two digits, without a zero before the point."""
    return f"{value:.2f}".removeprefix("0") if value < 1 else f"{value:.2f}"


def number(value: float | None, digits: int = 2) -> str:
    """:return: with so many digits after the point."""
    return "" if value is None else f"{value:.{digits}f}"


def times(value: float) -> str:
    """:return: a ratio, to two digits or whole."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
