"""Dispatchers of the application's own, and the dispatcher by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs import PlainContainer, RequestMap
from cqrs.dispatcher.models import RequestDispatchResult
from cqrs.dispatcher.streaming import StreamingRequestDispatcher
from cqrs.exceptions import StreamUsageError
from cqrs.requests.bootstrap import bootstrap_streaming


class Doubling(StreamingRequestDispatcher):
    """Gives each result of the handler twice, with the events the first time."""

    async def dispatch(self, request: Any) -> Any:
        async with aclosing(super().dispatch(request)) as results:
            async for result in results:
                yield result
                yield RequestDispatchResult(result.response, [])


async def test_an_overridden_dispatch_is_used(streams: Any) -> None:
    """In both modes its results are what the consumer has, each after its events."""
    mediator = streams.mediator(streams.numbers(), dispatcher_type=Doubling)
    assert [x async for x in mediator.stream(streams.Count(upto=2))] == [0, 0, 1, 1]
    assert streams.log == [("event", 0), ("event", 1), "closed"]
    async with streams.no_task_left(), mediator.stream(streams.Count(upto=2), max_buffer_size=1) as results:
        assert [x async for x in results] == [0, 0, 1, 1]


@pytest.mark.parametrize("way_out", ["aclose", "abandon", "pipelined"])
async def test_an_overridden_dispatch_is_closed(streams: Any, way_out: str) -> None:
    """Left early, the dispatcher and its handler are closed, clean-up included."""
    mediator = streams.mediator(streams.numbers(), dispatcher_type=Doubling)
    async with mediator, streams.no_task_left():
        if way_out == "pipelined":
            async with mediator.stream(streams.Count()) as results:
                await anext(results)
        else:
            stream = mediator.stream(streams.Count())
            await anext(stream)
            if way_out == "aclose":
                await stream.aclose()
            del stream
        await streams.spin()
        assert streams.log[-1] == "closed"


async def test_an_overridden_dispatch_without_a_binding(streams: Any) -> None:
    """A dispatcher may answer requests that nothing is bound to, and needs no handler for them."""

    class Own(StreamingRequestDispatcher):
        async def dispatch(self, request: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            yield RequestDispatchResult("own", [streams.Seen(what="own")])

    mediator = streams.mediator(streams.numbers(), dispatcher_type=Own)
    assert [x async for x in mediator.stream(streams.Count())] == ["own"]
    assert streams.log == [("event", "own")]


async def test_a_failing_event_closes_an_overridden_dispatch(streams: Any) -> None:
    """The result is not handed out, and the dispatcher is closed in the consumer's task."""

    async def fail(event: Any) -> None:
        raise ValueError(event.what)

    mediator = streams.mediator(streams.numbers(), dispatcher_type=Doubling, on_event=fail)
    with pytest.raises(ValueError, match="0"):
        await anext(mediator.stream(streams.Count()))
    assert streams.log == ["closed"]


async def test_the_dispatcher_gives_results_with_their_events(streams: Any) -> None:
    """Used by itself, it gives the events of each result and handles none."""
    requests = RequestMap()
    requests.bind(streams.Count, streams.numbers())
    dispatcher = StreamingRequestDispatcher(requests, PlainContainer())
    async with aclosing(dispatcher.dispatch(streams.Count())) as results:
        given = [(result.response, [event.what for event in result.events]) async for result in results]
    assert given == [(0, [0]), (1, [1]), (2, [2])]
    assert streams.log == ["closed"]


async def test_the_dispatcher_closed_early(streams: Any) -> None:
    """Closing its generator closes the handler in the same task."""
    requests = RequestMap()
    requests.bind(streams.Count, streams.numbers())
    async with aclosing(StreamingRequestDispatcher(requests, PlainContainer()).dispatch(streams.Count())) as results:
        await anext(results)
    assert streams.log == ["closed"]


async def test_the_dispatcher_refuses_handlers_that_send(streams: Any) -> None:
    """They need a task of their own, which a mediator provides."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        raise AssertionError

    requests = RequestMap()
    requests.bind(streams.Count, streams.sending(handle))
    with pytest.raises(StreamUsageError, match="mediator"):
        await anext(StreamingRequestDispatcher(requests, PlainContainer()).dispatch(streams.Count()))


async def test_a_bootstrapped_mediator_streams(streams: Any) -> None:
    """bootstrap_streaming() gives a mediator with all of this, documented handlers included."""
    from cqrs import EventHandler

    handled: list[Any] = []

    class OnSeen(EventHandler[streams.Seen]):  # type: ignore[name-defined]
        async def handle(self, event: Any) -> None:
            handled.append(event.what)

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        handler.record("only")
        yield 1

    mediator = bootstrap_streaming(
        commands_mapper=lambda requests: requests.bind(streams.Count, streams.yielding(handle)),
        domain_events_mapper=lambda events: events.bind(streams.Seen, OnSeen),
        concurrent_event_handle_enable=True,
        max_concurrent_event_handlers=3,
    )
    async with mediator:
        assert [x async for x in mediator.stream(streams.Count())] == [1]
        async with mediator.stream(streams.Count()) as results:
            assert [x async for x in results] == [1]
    assert handled == ["only", "only"]
