"""Pull mode: the handler advances in the consumer's task, one result at a time."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs import EventFailurePolicy, Request, StreamingRequestHandler
from cqrs.exceptions import RequestHandlerDoesNotExist, RequestHandlerTypeError, StreamUsageError


async def test_results_come_in_order_each_after_its_events(streams: Any) -> None:
    """The events of a result are handled before it is handed out."""
    async for number in streams.mediator(streams.numbers()).stream(streams.Count()):
        streams.log.append(number)
    assert streams.log == [("event", 0), 0, ("event", 1), 1, ("event", 2), 2, "closed"]


async def test_events_after_the_last_result_are_published(streams: Any) -> None:
    """What a handler records after its last yield is handled before the loop ends."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        yield 1
        handler.record("late")

    assert [x async for x in streams.mediator(streams.yielding(handle)).stream(streams.Count())] == [1]
    assert streams.log == [("event", "late")]


async def test_events_of_a_stream_without_results_are_published(streams: Any) -> None:
    """A handler that yields nothing still publishes."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        handler.record("only")
        return
        yield

    assert [x async for x in streams.mediator(streams.yielding(handle)).stream(streams.Count())] == []
    assert streams.log == [("event", "only")]


async def test_the_handler_advances_in_the_consumers_task(streams: Any) -> None:
    """Handler, its clean-up included, and consumer are one task."""
    tasks: list[int] = []

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            while True:
                tasks.append(anyio.get_current_task().id)
                yield 1
        finally:
            tasks.append(anyio.get_current_task().id)

    stream = streams.mediator(streams.yielding(handle)).stream(streams.Count())
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    assert tasks == [anyio.get_current_task().id] * 3


async def test_backpressure(streams: Any) -> None:
    """The handler does not run while the consumer holds a result, however long that takes."""
    made: list[int] = []

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    taken = 0
    async for _ in streams.mediator(streams.yielding(handle)).stream(streams.Count()):
        taken += 1
        await streams.spin()
        assert len(made) == taken
    assert taken == 3


async def test_clear_events_is_called_after_each_result(streams: Any) -> None:
    """A handler is told that it may forget what was taken."""
    handlers: list[Any] = []

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        handlers.append(handler)
        for number in range(3):
            assert handler.recorded == []
            handler.record(number)
            yield number

    assert len([x async for x in streams.mediator(streams.yielding(handle)).stream(streams.Count())]) == 3
    assert handlers[0].cleared == 3
    assert handlers[0].recorded == []


async def test_a_handler_that_does_not_clear_publishes_each_event_once(streams: Any) -> None:
    """Without clear_events, nothing is published twice."""

    class Keeping(StreamingRequestHandler[streams.Count, int]):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.kept: list[Any] = []

        @property
        def events(self) -> Any:
            return self.kept

        async def handle(self, request: Any) -> AsyncIterator[int]:
            for number in range(request.upto):
                self.kept.append(streams.Seen(what=number))
                yield number

    assert [x async for x in streams.mediator(Keeping).stream(streams.Count())] == [0, 1, 2]
    assert streams.log == [("event", 0), ("event", 1), ("event", 2)]


async def test_a_handler_without_events(streams: Any) -> None:
    """Neither events nor clear_events needs to be overridden."""

    class Plain(StreamingRequestHandler[streams.Count, int]):  # type: ignore[name-defined]
        async def handle(self, request: Any) -> AsyncIterator[int]:
            yield 7

    mediator = streams.mediator(Plain)
    assert [x async for x in mediator.stream(streams.Count())] == [7]
    async with mediator.stream(streams.Count()) as results:
        assert [x async for x in results] == [7]


async def test_a_handlers_error_comes_in_place_of_the_next_result(streams: Any) -> None:
    """Results before the failure are handed out, with their events; then the error is raised."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        handler.record("first")
        yield 1
        handler.record("of what failed")
        raise ValueError("no second")

    stream = streams.mediator(streams.yielding(handle)).stream(streams.Count())
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="no second"):
        await anext(stream)
    assert streams.log == [("event", "first")]


@pytest.mark.parametrize("policy", [EventFailurePolicy.CANCEL, EventFailurePolicy.WAIT])
async def test_an_event_handlers_error_comes_instead_of_the_result(streams: Any, policy: Any) -> None:
    """The result of a failed event is not handed out, and the handler is closed in the consumer's task."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            handler.record(2)
            yield 2
        finally:
            await anyio.lowlevel.checkpoint()
            streams.log.append(anyio.get_current_task().id)

    async def fail(event: Any) -> None:
        raise ValueError(event.what)

    stream = streams.mediator(streams.yielding(handle), on_event=fail, event_failure_policy=policy).stream(
        streams.Count()
    )
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="2"):
        await anext(stream)
    assert streams.log == [anyio.get_current_task().id]


async def test_isolated_event_failures_do_not_end_the_stream(streams: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Under ISOLATE a stream goes on, and the failure is logged."""

    async def fail(event: Any) -> None:
        raise ValueError(event.what)

    mediator = streams.mediator(streams.numbers(), on_event=fail, event_failure_policy=EventFailurePolicy.ISOLATE)
    assert [x async for x in mediator.stream(streams.Count())] == [0, 1, 2]
    assert len([r for r in caplog.records if r.exc_info]) == 3


async def test_aclosing_closes_the_handler_before_the_block_is_left(streams: Any) -> None:
    """``async with aclosing(stream)`` waits for the handler's clean-up, which awaits."""
    async with aclosing(streams.mediator(streams.numbers()).stream(streams.Count())) as stream:
        async for _ in stream:
            break
        assert "closed" not in streams.log
    assert streams.log == [("event", 0), "closed"]


async def test_aclose_in_a_cancelled_scope_completes_the_clean_up(streams: Any) -> None:
    """Closing is shielded: the handler's finally awaits, also when its consumer is being cancelled."""
    stream = streams.mediator(streams.numbers()).stream(streams.Count())
    await anext(stream)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()
    assert streams.log == [("event", 0), "closed"]


async def test_aclose_is_bounded(streams: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler whose clean-up hangs is given up after the time that clean-up may take."""
    for module in ("cqrs.dispatcher.result_stream", "cqrs._stream_invocation"):
        monkeypatch.setattr(f"{module}.CLEANUP_TIMEOUT", 0.02)

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep_forever()

    stream = streams.mediator(streams.yielding(handle)).stream(streams.Count())
    await anext(stream)
    with anyio.fail_after(5):
        await stream.aclose()


async def test_what_clean_up_raises_comes_out_of_aclose(streams: Any) -> None:
    """An error in the handler's finally is the error of aclose."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("torn")

    stream = streams.mediator(streams.yielding(handle)).stream(streams.Count())
    await anext(stream)
    with pytest.raises(ValueError, match="torn"):
        await stream.aclose()
    await stream.aclose()


async def test_aclose_of_a_stream_that_was_not_begun(streams: Any) -> None:
    """A stream that nobody read has run nothing, and cannot be read after it was closed."""
    stream = streams.mediator(streams.numbers()).stream(streams.Count())
    await stream.aclose()
    await stream.aclose()
    assert streams.log == []
    with pytest.raises(StreamUsageError):
        await anext(stream)
    with pytest.raises(StreamUsageError):
        async with stream:
            raise AssertionError


async def test_a_stream_that_nobody_reads_costs_nothing(streams: Any) -> None:
    """It is forgotten without a warning."""
    streams.mediator(streams.numbers()).stream(streams.Count())
    gc.collect()
    assert streams.log == []


async def test_a_stream_is_consumed_once(streams: Any) -> None:
    """A second loop over a stream that has ended, been closed or been entered is refused, not empty."""
    mediator = streams.mediator(streams.numbers())
    ended = mediator.stream(streams.Count())
    assert [x async for x in ended] == [0, 1, 2]
    with pytest.raises(StreamUsageError):
        [x async for x in ended]
    with pytest.raises(StreamUsageError):
        async with ended:
            raise AssertionError
    closed = mediator.stream(streams.Count())
    await anext(closed)
    await closed.aclose()
    with pytest.raises(StreamUsageError):
        [x async for x in closed]
    entered = mediator.stream(streams.Count())
    async with entered:
        with pytest.raises(StreamUsageError):
            async with entered:
                raise AssertionError
    with pytest.raises(StreamUsageError):
        await anext(entered)


async def test_a_loop_may_go_on_where_another_one_left(streams: Any) -> None:
    """A stream is an iterator: what one loop has not taken, the next one takes."""
    stream = streams.mediator(streams.numbers()).stream(streams.Count())
    assert await anext(stream) == 0
    async for number in stream:
        assert number == 1
        break
    assert [x async for x in stream] == [2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_break_without_an_entered_mediator(streams: Any, nothing_unraisable: list[Any]) -> None:
    """Left by break, the loop's hooks end the handler: on asyncio its clean-up awaits and nothing is warned of.

    On trio the hooks run the clean-up up to its first await, and warn.
    """
    mediator = streams.mediator(streams.numbers())
    if streams.backend == "asyncio":
        async for _ in mediator.stream(streams.Count()):
            break
        await streams.settled()
        assert streams.log == [("event", 0), "closed"]
        return
    async for _ in mediator.stream(streams.Count()):
        break
    with anyio.fail_after(5):
        while not nothing_unraisable:
            await streams.settled()
    assert all(isinstance(error, ResourceWarning) for error, _ in nothing_unraisable)
    nothing_unraisable.clear()


async def test_cancelling_the_consumer_inside_anext(streams: Any, way: str) -> None:
    """The handler is cancelled where it awaits, and has ended, its shielded clean-up too, when the loop has."""
    reached = anyio.Event()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            reached.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            streams.log.append("ended")

    mediator = streams.mediator(streams.yielding(handle))

    async def consume() -> None:
        try:
            async for _ in mediator.stream(streams.Count()):
                pass
        finally:
            streams.log.append("left")

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == ["ended", "left"]


async def test_cancelling_the_consumer_in_an_event_handler(streams: Any, way: str) -> None:
    """A cancellation while events are handled closes the handler, whose clean-up completes, and gives no result."""
    reached = anyio.Event()

    async def hang(event: Any) -> None:
        try:
            reached.set()
            await anyio.sleep_forever()
        finally:
            streams.log.append("event ended")

    mediator = streams.mediator(streams.numbers(), on_event=hang)

    async def consume() -> None:
        async for _ in mediator.stream(streams.Count()):
            raise AssertionError

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == ["event ended", "closed"]


async def test_cancelling_the_consumer_in_its_own_body(streams: Any, way: str) -> None:
    """With aclosing, the handler has ended when the cancelled consumer has."""
    reached = anyio.Event()
    mediator = streams.mediator(streams.numbers())

    async def consume() -> None:
        try:
            async with aclosing(mediator.stream(streams.Count())) as stream:
                async for _ in stream:
                    reached.set()
                    await anyio.sleep_forever()
        finally:
            streams.log.append("left")

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == [("event", 0), "closed", "left"]


async def test_a_handler_that_raises_when_it_is_cancelled(streams: Any) -> None:
    """What its clean-up raises under cancellation reaches the consumer."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"), anyio.move_on_after(0.02):
        async for _ in streams.mediator(streams.yielding(handle)).stream(streams.Count()):
            pass


async def test_what_cannot_be_streamed_is_refused_at_once(streams: Any) -> None:
    """A request without a handler raises when stream() is called."""

    class Unknown(Request):
        pass

    with pytest.raises(RequestHandlerDoesNotExist):
        streams.mediator(streams.numbers()).stream(Unknown())


async def test_a_handler_that_does_not_stream_is_refused(streams: Any) -> None:
    """A plain handler is refused with what to do about it."""
    from cqrs import RequestHandler

    class Plain(RequestHandler[streams.Count, None]):  # type: ignore[name-defined]
        async def handle(self, request: Any) -> None:
            raise AssertionError

    with pytest.raises(RequestHandlerTypeError, match="StreamingRequestHandler"):
        streams.mediator(Plain).stream(streams.Count())
