"""Messages and handlers that do nothing, so that what is left is the library's own cost.

Everything is written in the way that all contenders document, and messages are of their default kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import anyio.lowlevel

import cqrs

MOST_EVENTS = 4_000


class Answer(cqrs.Response):
    number: int


class Ask(cqrs.Request):
    number: int


class Publish(cqrs.Request):
    events: int


class Count(cqrs.Request):
    items: int


class Ticked(cqrs.DomainEvent):
    number: int


ANSWER = Answer(number=1)
EVENTS = [Ticked(number=number) for number in range(MOST_EVENTS)]


class AskHandler(cqrs.RequestHandler[Ask, Answer]):
    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return ()

    async def handle(self, request: Ask) -> Answer:
        return ANSWER


class BuildingHandler(AskHandler):
    async def handle(self, request: Ask) -> Answer:
        return Answer(number=request.number)


class PublishHandler(cqrs.RequestHandler[Publish, Answer]):
    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: Publish) -> Answer:
        self._events.extend(EVENTS[: request.events])
        return ANSWER


class CountHandler(cqrs.StreamingRequestHandler[Count, Answer]):
    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return ()

    def clear_events(self) -> None:
        pass

    async def handle(self, request: Count) -> AsyncIterator[Answer]:
        for _ in range(request.items):
            yield ANSWER


class TickedHandler(cqrs.EventHandler[Ticked]):
    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return ()

    async def handle(self, event: Ticked) -> None:
        pass


class CountingHandler(TickedHandler):
    handled = 0

    async def handle(self, event: Ticked) -> None:
        CountingHandler.handled += 1


class YieldingHandler(TickedHandler):
    async def handle(self, event: Ticked) -> None:
        await asyncio.sleep(0)


class CheckpointHandler(TickedHandler):
    async def handle(self, event: Ticked) -> None:
        await anyio.lowlevel.checkpoint()
