"""What is asked of the library, as ratios of what was measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from _core import lines
from _core.environments import OURS, V4, V5, Contender
from _core.measure import Results

Entry = tuple[Contender, str]


@dataclass(frozen=True)
class Target:
    """A quotient of two measured values, or of their difference to a third, and its upper limit."""

    text: str
    value: Callable[[Results], float | None]
    limit: float

    def met(self, results: Results, tolerance: float) -> bool | None:
        """Whether it is met; None where it was not measured.

        :param tolerance: by which part of the limit the value may exceed it.
        """
        value = self.value(results)
        return None if value is None else value <= self.limit * (1 + tolerance)


def targets() -> list[Target]:
    return [
        _against(V4, lines.SEND_DI, 1 / 20),
        _against(V5, lines.SEND_DI, 1 / 4),
        Target(f"{lines.SEND_INSTANCE}: what it adds / {lines.DIRECT}", _added(lines.SEND_INSTANCE, lines.DIRECT), 4.0),
        _against(V4, lines.TEN_PLAIN, 1 / 3),
        _between(lines.TEN_YIELDING, lines.BARE_YIELDING, 1.5),
        _between(lines.TEN_CHECKPOINT, lines.BARE_CHECKPOINT, 1.5),
        *(_linear(limit) for limit in lines.LIMITS),
        _against(V4, lines.many(lines.MANY[-1], lines.LIMITS[0]), 1 / 8),
        _against(V4, lines.STREAM_BY_HAND, 1 / 2),
        _against(V4, lines.STREAM_DI, 1 / 2),
        _against(V4, lines.SAGA_DI, 1 / 3),
        _between(lines.IMPORT_CQRS, lines.IMPORT_FLOOR, 2.0),
    ]


def quotient(results: Results, over: Entry, under: Entry) -> float | None:
    """The ratio of two values, where both were measured."""
    dividend, divisor = results.get(*over), results.get(*under)
    return None if dividend is None or divisor is None else dividend / divisor


def _against(other: Contender, line: str, limit: float) -> Target:
    text = f"{line}: / {other.name}"
    return Target(text, lambda results: quotient(results, (OURS, line), (other, line)), limit)


def _between(line: str, base: str, limit: float) -> Target:
    return Target(f"{line}: / {base}", lambda results: quotient(results, (OURS, line), (OURS, base)), limit)


def _added(line: str, base: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        whole = quotient(results, (OURS, line), (OURS, base))
        return None if whole is None else whole - 1

    return value


def _linear(limit: int) -> Target:
    few, many = (lines.many(events, limit) for events in lines.MANY)
    times = lines.MANY[1] / lines.MANY[0]

    def value(results: Results) -> float | None:
        growth = quotient(results, (OURS, many), (OURS, few))
        return None if growth is None else growth / times

    return Target(f"{many}: time / ({times:g} x that of {lines.MANY[0]:,})", value, 1.3)
