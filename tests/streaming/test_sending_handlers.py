"""Handlers that send their results from a coroutine, with a task group of their own if they want one."""

# ruff: noqa: PERF401  # what is tested is where in a block an error leaves

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs import PlainContainer, SendStreamRequestHandler, StreamingRequestHandler
from cqrs.exceptions import StreamUsageError


@pytest.fixture(params=[SendStreamRequestHandler, StreamingRequestHandler])
def kind(request: pytest.FixtureRequest) -> Any:
    """Both base classes take ``async def handle(self, request, results)``."""
    return request.param


async def _numbers(handler: Any, request: Any, results: Any) -> None:
    for number in range(request.upto):
        handler.record(number)
        await results.send(number)


async def test_results_are_sent_with_their_events(streams: Any, kind: Any) -> None:
    """The events of a result are handled before it is sent; those after the last one too."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        await _numbers(handler, request, results)
        handler.record("late")

    async with streams.mediator(streams.sending(handle, kind)).stream(streams.Count()) as results:
        async for number in results:
            assert streams.log[number] == ("event", number)
    assert streams.log == [("event", 0), ("event", 1), ("event", 2), ("event", "late")]


async def test_children_send_concurrently(streams: Any, kind: Any) -> None:
    """A handler may hold a task group whose tasks send; break ends them all."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        async def child(first: int) -> None:
            try:
                for number in range(first, first + request.upto):
                    handler.record(number)
                    await results.send(number)
            finally:
                streams.log.append("child ended")

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(child, number * 100)

    mediator = streams.mediator(streams.sending(handle, kind))
    taken: list[int] = []
    async with streams.no_task_left(), mediator.stream(streams.Count(upto=5), max_buffer_size=3) as results:
        async for number in results:
            assert ("event", number) in streams.log
            taken.append(number)
    assert sorted(taken) == [hundred * 100 + number for hundred in range(4) for number in range(5)]
    streams.log.clear()
    async with streams.no_task_left(), mediator.stream(streams.Count(upto=5)) as results:
        async for _ in results:
            break
    assert streams.log.count("child ended") == 4


async def test_an_item_waits_for_its_events_in_another_tasks_hands(streams: Any) -> None:
    """Events that one child recorded and another one is publishing are done before the first one's item is out."""
    slow, recorded = anyio.Event(), anyio.Event()

    async def on_event(event: Any) -> None:
        await slow.wait()
        streams.log.append(("event", event.what))

    async def handle(handler: Any, request: Any, results: Any) -> None:
        async def first() -> None:
            handler.record("first's")
            recorded.set()
            await streams.spin()  # the second takes the first's event along
            await results.send("first")

        async def second() -> None:
            await recorded.wait()
            handler.record("second's")
            await results.send("second")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)

    mediator = streams.mediator(streams.sending(handle), on_event=on_event)
    async with mediator.stream(streams.Count(), max_buffer_size=5) as results, anyio.create_task_group() as tasks:

        async def consume() -> None:
            async for result in results:
                streams.log.append(result)

        tasks.start_soon(consume)
        await streams.spin()
        await streams.spin()
        assert streams.log == []
        slow.set()
    assert set(streams.log[:2]) == {("event", "first's"), ("event", "second's")}
    assert set(streams.log[2:]) == {"first", "second"}


async def test_the_error_of_a_child_reaches_the_consumer(streams: Any) -> None:
    """A handler's group comes as the group that it raised."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        async def fail() -> None:
            raise ValueError("child")

        await results.send(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            await anyio.sleep_forever()

    async with streams.mediator(streams.sending(handle)).stream(streams.Count()) as results:
        assert await anext(results) == 1
        with pytest.raises(Exception) as caught:
            await anext(results)
    assert [str(error) for error in caught.value.exceptions] == ["child"]  # type: ignore[attr-defined]


async def test_a_handler_may_treat_results_as_a_stream_of_its_own(streams: Any) -> None:
    """Leaving ``async with results``, or sending an end, ends nothing: the stream ends when the handler returns."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        async with results:
            await results.send(1)
            await results.send_eof()
        await results.send(2)

    async with streams.mediator(streams.sending(handle)).stream(streams.Count()) as results:
        assert [x async for x in results] == [1, 2]


async def test_backpressure_in_the_pipelined_block(streams: Any) -> None:
    """Sending waits while the buffer is full."""
    sent = 0

    async def handle(handler: Any, request: Any, results: Any) -> None:
        nonlocal sent
        for number in range(10):
            await results.send(number)
            sent += 1

    async with streams.mediator(streams.sending(handle)).stream(streams.Count(), max_buffer_size=2) as results:
        for taken in range(5):
            await streams.spin()
            assert sent == taken + 2
            assert await anext(results) == taken


async def test_without_an_entered_mediator_a_bare_loop_is_refused(streams: Any, kind: Any) -> None:
    """The error names both ways out, runs nothing, and leaves the stream to be consumed the right way."""
    mediator = streams.mediator(streams.sending(_numbers, kind))
    stream = mediator.stream(streams.Count())
    with pytest.raises(
        StreamUsageError, match=r"async with mediator\.stream\(request\) as results.*enter the mediator"
    ):
        await anext(stream)
    assert streams.log == []
    async with stream as results:
        assert [x async for x in results] == [0, 1, 2]


async def test_in_an_entered_mediator_a_bare_loop_works(streams: Any, kind: Any) -> None:
    """All results come in order, with their events; nothing is left when the loop ends."""
    mediator = streams.mediator(streams.sending(_numbers, kind))
    async with mediator, streams.no_task_left():
        stream = mediator.stream(streams.Count(), max_buffer_size=1)
        async for number in stream:
            assert ("event", number) in streams.log
            streams.log.append(number)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert [entry for entry in streams.log if isinstance(entry, int)] == [0, 1, 2]


async def test_abandoned_in_an_entered_mediator_it_is_cancelled(streams: Any, kind: Any) -> None:
    """Left by break, the handler is cancelled at once, and its clean-up completes."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            streams.log.append("ended")

    mediator = streams.mediator(streams.sending(handle, kind))
    async with mediator, streams.no_task_left():
        async for _ in mediator.stream(streams.Count()):
            break
        await streams.spin()
        assert streams.log == ["ended"]


async def test_cancelled_in_a_bare_loop_it_is_cancelled(streams: Any, way: str) -> None:
    """A consumer that is cancelled while it waits leaves no handler behind."""
    reached = anyio.Event()

    async def handle(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            reached.set()
            await anyio.sleep_forever()
        finally:
            streams.log.append("ended")

    mediator = streams.mediator(streams.sending(handle))

    async def consume() -> None:
        async for _ in mediator.stream(streams.Count()):
            pass

    async with mediator, streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == ["ended"]


async def test_aclose_of_a_bare_loop_waits_for_the_handler(streams: Any) -> None:
    """``aclose()`` cancels the handler, also in a cancelled scope, and waits for its clean-up."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            streams.log.append("ended")

    mediator = streams.mediator(streams.sending(handle))
    async with mediator, streams.no_task_left():
        stream = mediator.stream(streams.Count())
        await anext(stream)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert streams.log == ["ended"]
        with pytest.raises(StreamUsageError):
            await anext(stream)


async def test_what_clean_up_raises_comes_out_of_aclose(streams: Any) -> None:
    """As with a handler that yields, aclose raises what nobody has seen."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await results.send(2)
        finally:
            raise OSError("torn")

    mediator = streams.mediator(streams.sending(handle))
    async with mediator, streams.no_task_left():
        stream = mediator.stream(streams.Count())
        await anext(stream)
        with pytest.raises(OSError, match="torn"):
            await stream.aclose()
        await stream.aclose()


async def test_a_failure_in_a_bare_loop(streams: Any) -> None:
    """It comes in place of the next result, and the mediator lives on."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        await results.send(1)
        raise ValueError("no second")

    mediator = streams.mediator(streams.sending(handle))
    async with mediator, streams.no_task_left():
        for _ in range(2):
            stream = mediator.stream(streams.Count(), max_buffer_size=5)
            assert await anext(stream) == 1
            with pytest.raises(ValueError, match="no second"):
                await anext(stream)


async def test_several_bare_consumers_share_a_stream(streams: Any) -> None:
    """In an entered mediator, tasks can read one sending handler together."""
    mediator = streams.mediator(streams.sending(_numbers))
    taken: list[int] = []

    async def consume(stream: Any) -> None:
        async for number in stream:
            taken.append(number)

    async with mediator, streams.no_task_left():
        stream = mediator.stream(streams.Count(upto=20))
        taken.append(await anext(stream))
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(consume, stream)
    assert sorted(taken) == list(range(20))


async def test_a_send_that_the_handler_gives_up(streams: Any) -> None:
    """A handler that bounds its sending, and goes on, is not disturbed by the attempt."""

    async def handle(handler: Any, request: Any, results: Any) -> None:
        with anyio.move_on_after(0.01) as scope:
            await results.send("dropped")
        assert scope.cancelled_caught
        await results.send("kept")

    async with streams.mediator(streams.sending(handle)).stream(streams.Count()) as results:
        await anyio.sleep(0.05)
        assert [x async for x in results] == ["kept"]


async def test_a_singleton_handler_serves_streams_one_after_the_other(streams: Any) -> None:
    """A handler that the container hands out again publishes each event once."""
    from cqrs import Lifetime

    handler = streams.sending(_numbers)
    container = PlainContainer()
    container.register(handler, lifetime=Lifetime.SINGLETON)
    mediator = streams.mediator(handler, container=container)
    for _ in range(2):
        async with mediator.stream(streams.Count(upto=2)) as results:
            assert [x async for x in results] == [0, 1]
    assert streams.log == [("event", 0), ("event", 1)] * 2
