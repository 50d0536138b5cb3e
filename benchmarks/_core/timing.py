"""The clock: the best of many short repeats."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Call = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Clock:
    """Times a call.

    :param repeat_seconds: how long one repeat lasts, at least.
    :param budget_seconds: how long all repeats together last, about.
    :param min_repeats: how many repeats there are even when the budget is spent.
    """

    repeat_seconds: float = 0.003
    budget_seconds: float = 0.5
    min_repeats: int = 3

    async def seconds(self, call: Call, argument: object, operations: int = 1) -> float:
        """Seconds an operation, where ``await call(argument)`` does ``operations`` of them."""
        with without_gc():
            number = await self._calls_in_a_repeat(call, argument)
            return await self._best(call, argument, number) / (number * operations)

    async def _calls_in_a_repeat(self, call: Call, argument: object) -> int:
        number = 1
        while await _elapsed(call, argument, number) < self.repeat_seconds:
            number *= 2
        return number

    async def _best(self, call: Call, argument: object, number: int) -> float:
        end = time.perf_counter() + self.budget_seconds
        repeats = [await _elapsed(call, argument, number) for _ in range(self.min_repeats)]
        while time.perf_counter() < end:
            repeats.append(await _elapsed(call, argument, number))
        return min(repeats)


async def _elapsed(call: Call, argument: object, number: int) -> float:
    numbers = range(number)
    start = time.perf_counter()
    for _ in numbers:
        await call(argument)
    return time.perf_counter() - start


@contextmanager
def without_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
