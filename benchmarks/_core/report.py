"""Prints what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from _core import lines
from _core.environments import CONTENDERS, OURS, V4, V5
from _core.measure import Results
from _core.targets import quotient, targets

Row = Sequence[str]


def print_report(results: Results, tolerance: float) -> bool:
    """Print the tables and the verdicts.

    :return: whether every target that was measured is met.
    """
    print_table(["microseconds an operation", *(contender.name for contender in CONTENDERS)], _measured(results))
    print_table(["ours / theirs", V4.name, V5.name], _ratios(results))
    print_table(["what it costs, ours, microseconds", *lines.BACKENDS], _containers(results))
    verdicts = [target.met(results, tolerance) for target in targets()]
    print_table(["target", "limit", "measured", "verdict"], _judged(results, verdicts))
    print_table(["doubtful: the least value stands alone", "on", "who", "rounds, microseconds"], _doubtful(results))
    return False not in verdicts


def print_table(head: Row, rows: Sequence[Row]) -> None:
    """Print a table in Markdown; nothing when it has no row."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (head, rule, *rows):
        first, *others = zip(row, widths, strict=True)
        print("|", " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]), "|")
    print()


def _measured(results: Results) -> list[Row]:
    return [
        [line, *(_microseconds(results.get(contender, line)) for contender in CONTENDERS)]
        for line in _lines(results, "asyncio")
        if line not in lines.CONTAINERS
    ]


def _ratios(results: Results) -> list[Row]:
    return [
        [line, *(_number(quotient(results, (OURS, line), (other, line))) for other in (V4, V5))]
        for line in _lines(results, "asyncio")
        if _is_compared(results, line)
    ]


def _containers(results: Results) -> list[Row]:
    return [
        [line, *(_microseconds(results.get(OURS, line, backend)) for backend in lines.BACKENDS)]
        for line in _lines(results, lines.BACKENDS[0])
        if line in lines.CONTAINERS
    ]


def _judged(results: Results, verdicts: Sequence[bool | None]) -> list[Row]:
    words = {True: "met", False: "MISSED", None: "not measured"}
    return [
        [target.text, f"{target.limit:.3f}", _number(target.value(results)), words[verdict]]
        for target, verdict in zip(targets(), verdicts, strict=True)
    ]


def _doubtful(results: Results) -> list[Row]:
    return [
        [line, backend, contender.name, " ".join(map(_microseconds, values))]
        for (contender, backend, line), values in results.doubtful()
    ]


def _lines(results: Results, backend: str) -> list[str]:
    return list(dict.fromkeys(line for _, on, line in results.rounds if on == backend))


def _is_compared(results: Results, line: str) -> bool:
    """A line that times the handler alone says nothing of a contender."""
    measured = results.get(OURS, line) is not None and results.get(V4, line) is not None
    return measured and not line.startswith("await ")


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:,.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
