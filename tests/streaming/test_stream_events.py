"""Which events of a streaming handler are published."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

import cqrs
from cqrs.requests.bootstrap import bootstrap_streaming


class Tick(cqrs.DomainEvent):
    """The same each time."""


TICK = Tick()
ticks: list[Tick] = []


class Count(cqrs.Request[int]):
    """Counts to three."""


class Clearing(cqrs.StreamingRequestHandler[Count, int]):
    """Records one and the same event for each result, and clears its list as it is told."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> list[cqrs.IEvent]:
        return self._events.copy()

    def clear_events(self) -> None:
        self._events.clear()

    async def handle(self, request: Count) -> AsyncIterator[int]:
        for number in range(3):
            self._events.append(TICK)
            yield number


class NotClearing(Clearing):
    """Keeps its list."""

    def clear_events(self) -> None: ...


class OnTick(cqrs.EventHandler[Tick]):
    """Counts the ticks."""

    async def handle(self, event: Tick) -> None:
        ticks.append(event)


async def test_an_event_that_is_recorded_again_is_published_again() -> None:
    """One object recorded for each of three results is three events, whether the list is cleared or not."""
    for handler in (Clearing, NotClearing):
        ticks.clear()
        mediator = bootstrap_streaming(
            commands_mapper=lambda mapper, handler=handler: mapper.bind(Count, handler),  # type: ignore[misc]
            domain_events_mapper=lambda mapper: mapper.bind(Tick, OnTick),
        )
        assert [number async for number in mediator.stream(Count())] == [0, 1, 2]
        assert len(ticks) == 3


class TaskGroupBreaker:
    """A circuit breaker that calls in a task group of its own."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    async def call(self, identifier: Any, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        answers: list[Any] = []

        async def run() -> None:
            answers.append(await func(*args, **kwargs))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
        self.outcomes.append("success")
        return answers[0]

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        return False


async def test_a_breaker_may_call_in_a_task_group() -> None:
    """What leaves its call while the stream goes on is found in the group that its task group makes."""
    breaker = TaskGroupBreaker()
    bound = cqrs.RequestHandlerFallback(Clearing, NotClearing, circuit_breaker=breaker)
    mediator = bootstrap_streaming(commands_mapper=lambda mapper: mapper.bind(Count, bound))
    assert [number async for number in mediator.stream(Count())] == [0, 1, 2]
    assert breaker.outcomes == ["success"]
