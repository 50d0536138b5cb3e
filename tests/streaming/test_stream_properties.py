"""What holds for every handler and every consumer, whatever they do."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs import (
    DomainEvent,
    EventHandler,
    EventMap,
    PlainContainer,
    Request,
    RequestMap,
    SendStreamRequestHandler,
    StreamingRequestHandler,
    StreamingRequestMediator,
)
from cqrs.middlewares.base import MiddlewareChain

BACKENDS = [name for name in ("asyncio", "trio") if importlib.util.find_spec(name)]

ACTIONS = st.lists(st.sampled_from(["yield", "yield", "yield", "await", "record", "raise"]), max_size=10)
WAYS_OUT = st.sampled_from(["end", "break", "aclose", "raise", "cancel inside", "cancel outside"])
SIZES = st.sampled_from([0, 1, 3, math.inf])


class HandlerError(Exception):
    pass


class ConsumerError(Exception):
    pass


class Run(Request):
    pass


class Recorded(DomainEvent, frozen=True):
    number: int


@dataclass
class Script:
    """What a handler does, and what a consumer does with it."""

    actions: list[str]
    clean_up_awaits: int
    taken_at_most: int
    way_out: str
    size: float
    sends: bool
    mode: str
    middlewares: int
    made: list[int] = field(default_factory=list)
    recorded_before: dict[int, list[int]] = field(default_factory=dict)
    recorded: list[int] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    begun: int = 0
    finished: int = 0
    has_failed: bool = False
    has_reached_end: bool = False

    async def give(self, handler: Any) -> AsyncIterator[int]:
        self.begun += 1
        try:
            for action in self.actions:
                if action == "await":
                    await anyio.lowlevel.checkpoint()
                elif action == "record":
                    self.recorded.append(len(self.recorded))
                    handler.events.append(Recorded(number=self.recorded[-1]))
                elif action == "raise":
                    self.has_failed = True
                    raise HandlerError
                else:
                    self.made.append(len(self.made))
                    self.recorded_before[self.made[-1]] = list(self.recorded)
                    yield self.made[-1]
            self.has_reached_end = True
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(self.clean_up_awaits):
                    await anyio.lowlevel.checkpoint()
            self.finished += 1

    def check_item(self, item: int) -> None:
        assert item == len(self.got), "results come in order"
        assert item in self.made
        assert set(self.recorded_before[item]) <= set(self.handled), "events are handled before their result"
        self.got.append(item)


def _mediator(script: Script) -> StreamingRequestMediator:
    class Yields(StreamingRequestHandler[Run, int]):
        def __init__(self) -> None:
            self.kept: list[Any] = []

        @property
        def events(self) -> list[Any]:
            return self.kept

        def clear_events(self) -> None:
            self.kept.clear()

        async def handle(self, request: Run) -> AsyncIterator[int]:
            async with aclosing(script.give(self)) as items:  # type: ignore[type-var]
                async for item in items:
                    yield item

    class Sends(SendStreamRequestHandler[Run, int]):
        def __init__(self) -> None:
            self.kept: list[Any] = []

        @property
        def events(self) -> list[Any]:
            return self.kept

        async def handle(self, request: Run, results: Any) -> None:
            async with aclosing(script.give(self)) as items:  # type: ignore[type-var]
                async for item in items:
                    await results.send(item)

    class OnRecorded(EventHandler[Recorded]):
        async def handle(self, event: Recorded) -> None:
            await anyio.lowlevel.checkpoint()
            script.handled.append(event.number)

    class Passes:
        async def __call__(self, request: Any, handle: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            try:
                return await handle(request)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()

    requests, events, chain = RequestMap(), EventMap(), MiddlewareChain()
    requests.bind(Run, Sends if script.sends else Yields)
    events.bind(Recorded, OnRecorded)
    chain.set([Passes() for _ in range(script.middlewares)])
    return StreamingRequestMediator(requests, PlainContainer(), event_map=events, middleware_chain=chain)


async def _take(script: Script, box: list[Any], scope: anyio.CancelScope) -> None:
    if script.taken_at_most == 0 and script.way_out != "end":
        await _leave(script, box, scope)
        return
    async for item in box[0]:
        script.check_item(item)
        await anyio.lowlevel.checkpoint()
        if script.way_out != "end" and len(script.got) == script.taken_at_most:
            await _leave(script, box, scope)
            return
    if not script.has_failed:
        assert script.has_reached_end
        assert script.got == script.made
        assert script.handled == script.recorded


async def _leave(script: Script, box: list[Any], scope: anyio.CancelScope) -> None:
    if script.way_out == "aclose":
        await box[0].aclose()
        assert script.finished == script.begun
    elif script.way_out == "raise":
        raise ConsumerError
    elif script.way_out == "cancel inside":
        scope.cancel()
        await anext(box[0])
    elif script.way_out == "cancel outside":
        scope.cancel()
        await anyio.lowlevel.checkpoint()


def _kinds(error: BaseException) -> list[type[BaseException]]:
    # Only the types: a kept error keeps the frames of its traceback, and with them the stream.
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return [kind for part in parts for kind in _kinds(part)] or [type(error)]


async def _consume(script: Script) -> None:
    mediator = _mediator(script)
    errors: list[type[BaseException]] = []
    async with AsyncExitStack() as entered:
        if script.mode != "pipelined" and (script.sends or script.mode == "entered"):
            await entered.enter_async_context(mediator)
        with anyio.CancelScope() as scope:
            box = [mediator.stream(Run(), max_buffer_size=script.size)]  # not a name in the frames of a traceback
            try:
                if script.mode == "pipelined":
                    async with box[0]:
                        await _take(script, box, scope)
                elif script.mode == "entered":
                    await _take(script, box, scope)
                else:
                    async with aclosing(box[0]):
                        await _take(script, box, scope)
            except (StopAsyncIteration, ConsumerError, HandlerError) as error:
                errors = _kinds(error)
            except Exception as error:
                errors = _kinds(error)
                assert len(errors) == 2
            if script.mode != "entered":
                assert script.finished == script.begun, "the handler has ended where its consumer has"
        box.clear()
    assert set(errors) <= {StopAsyncIteration, ConsumerError, HandlerError}
    if script.way_out == "raise" and len(script.got) == script.taken_at_most and not script.has_failed:
        assert errors == [ConsumerError]


async def _check(script: Script) -> None:
    with anyio.fail_after(10):
        before = {task.id for task in anyio.get_running_tasks()}
        await _consume(script)
        left = [task for task in anyio.get_running_tasks() if task.id not in before]
    assert left == []
    assert script.begun == script.finished <= 1, "its clean-up ran once, and completed"
    assert script.got == script.made[: len(script.got)], "results are a prefix of what was made"
    assert script.handled == script.recorded[: len(script.handled)], "each event is handled once, in order"
    ahead = 0 if script.mode != "pipelined" and not script.sends else script.size + 1
    assert len(script.made) <= len(script.got) + ahead + 1


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=200)
@given(
    actions=ACTIONS,
    clean_up_awaits=st.integers(0, 3),
    taken_at_most=st.integers(0, 4),
    way_out=WAYS_OUT,
    size=SIZES,
    sends=st.booleans(),
    mode=st.sampled_from(["pull", "pipelined", "entered"]),
    middlewares=st.integers(0, 2),
)
def test_any_handler_and_any_consumer(backend: str, **script: Any) -> None:
    """Results are in order and a prefix of what was made, their events were handled before, the handler has
    ended once where its consumer has (or the mediator, for a stream that was abandoned), and no task is left."""
    anyio.run(_check, Script(**script), backend=backend)
