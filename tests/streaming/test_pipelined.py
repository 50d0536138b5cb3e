"""Pipelined mode: the handler runs in a task, and has ended when the block is left."""

# ruff: noqa: B904, PT012, RUF043, SIM117  # what is tested is where in a block an error leaves

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs.exceptions import StreamUsageError

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

SIZES = [0, 1, 5, math.inf]


@pytest.fixture(params=["yields", "sends"])
def counting(request: pytest.FixtureRequest, streams: Any) -> Any:
    """A handler that counts and records, of either form, which logs its end after clean-up that awaits."""

    async def clean_up() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        streams.log.append("closed")

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            for number in range(request.upto):
                handler.record(number)
                yield number
        finally:
            await clean_up()

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            for number in range(request.upto):
                handler.record(number)
                await results.send(number)
        finally:
            await clean_up()

    return streams.yielding(give) if request.param == "yields" else streams.sending(send)


@pytest.mark.parametrize("size", SIZES)
async def test_all_results_come_in_order(streams: Any, counting: Any, size: float) -> None:
    """Whatever the buffer, the consumer has all results in order, and the handler has ended with the last one."""
    async with streams.no_task_left():
        async with streams.mediator(counting).stream(streams.Count(upto=8), max_buffer_size=size) as results:
            assert [x async for x in results] == list(range(8))
            assert streams.log[-1] == "closed"
    assert streams.log == [*(("event", number) for number in range(8)), "closed"]


@pytest.mark.parametrize("size", SIZES)
async def test_the_events_of_a_result_are_done_before_it_is_handed_out(
    streams: Any, counting: Any, size: float
) -> None:
    """Also when the handler is ahead."""
    async with streams.mediator(counting).stream(streams.Count(upto=8), max_buffer_size=size) as results:
        async for number in results:
            assert ("event", number) in streams.log


@pytest.mark.parametrize("size", SIZES)
async def test_the_handler_is_never_further_ahead_than_the_buffer(streams: Any, size: float) -> None:
    """At most the buffer, and the one result that waits for a place in it, are made ahead."""
    made = 0

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        nonlocal made
        for number in range(request.upto):
            made += 1
            yield number

    taken = 0
    async with streams.mediator(streams.yielding(handle)).stream(
        streams.Count(upto=12), max_buffer_size=size
    ) as results:
        async for _ in results:
            taken += 1
            await streams.spin()
            assert made == min(12, taken + size + 1)
    assert taken == made == 12


async def test_the_handler_runs_in_a_task_of_its_own(streams: Any) -> None:
    """One task runs the handler from its first line to its last, and it is not the consumer's."""
    tasks: set[int] = set()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            tasks.add(anyio.get_current_task().id)
            yield 1
            tasks.add(anyio.get_current_task().id)
            yield 2
        finally:
            tasks.add(anyio.get_current_task().id)

    async with streams.mediator(streams.yielding(handle)).stream(streams.Count()) as results:
        assert await anext(results) == 1
        assert await anext(results) == 2
    assert len(tasks) == 1
    assert anyio.get_current_task().id not in tasks


@pytest.mark.parametrize("size", SIZES)
async def test_break_ends_the_handler_before_the_block_is_left(streams: Any, counting: Any, size: float) -> None:
    """What the buffer still holds is dropped; the handler's clean-up has completed."""
    async with streams.no_task_left():
        async with streams.mediator(counting).stream(streams.Count(upto=100), max_buffer_size=size) as results:
            async for number in results:
                if number == 2:
                    break
        assert streams.log[-1] == "closed"
    assert streams.log.count("closed") == 1


async def test_a_block_that_reads_nothing(streams: Any, counting: Any) -> None:
    """Left at once, with or without the handler having begun, nothing is left behind."""
    mediator = streams.mediator(counting)
    async with streams.no_task_left():
        async with mediator.stream(streams.Count(upto=100)):
            pass
        async with mediator.stream(streams.Count(upto=100)):
            await streams.spin()


@pytest.mark.parametrize("size", SIZES)
async def test_an_error_in_the_body_leaves_as_itself(streams: Any, counting: Any, size: float) -> None:
    """The consumer's own error ends the handler and is not wrapped in a group."""
    async with streams.no_task_left():
        with pytest.raises(ValueError, match="^mine$") as caught:
            async with streams.mediator(counting).stream(streams.Count(upto=100), max_buffer_size=size) as results:
                await anext(results)
                try:
                    raise KeyError
                except KeyError:
                    raise ValueError("mine")
        assert streams.log[-1] == "closed"
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_group_of_the_bodys_own_stays_as_it_is(streams: Any, counting: Any) -> None:
    """A group that the consumer raised is one error, and is not looked into."""
    mine = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with streams.mediator(counting).stream(streams.Count()):
            raise mine
    assert caught.value.exceptions == mine.exceptions


def _failing(streams: Any, form: str, error: Exception, after: int = 2) -> Any:
    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        try:
            raise KeyError
        except KeyError:
            raise error

    async def send(handler: Any, request: Any, results: Any) -> None:
        async with aclosing(give(handler, request)) as numbers:
            async for number in numbers:
                await results.send(number)

    return streams.yielding(give) if form == "yields" else streams.sending(send)


@pytest.mark.parametrize("form", ["yields", "sends"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_handlers_error_comes_in_place_of_the_next_result(streams: Any, form: str, size: float) -> None:
    """Results that were made before it are handed out first; it is raised once, as it is, with its own context."""
    error = ValueError("no third")
    stream = streams.mediator(_failing(streams, form, error)).stream(streams.Count(), max_buffer_size=size)
    async with streams.no_task_left(), stream as results:
        await streams.spin()
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(ValueError, match="no third") as caught:
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
    assert caught.value is error
    assert isinstance(error.__context__, KeyError)


async def test_a_handlers_error_that_the_body_lets_pass(streams: Any) -> None:
    """The error that the loop raised leaves the block as itself, not twice."""
    error = ValueError("no third")
    with pytest.raises(ValueError) as caught:
        async with streams.mediator(_failing(streams, "yields", error)).stream(streams.Count()) as results:
            async for _ in results:
                pass
    assert caught.value is error


@pytest.mark.parametrize("form", ["yields", "sends"])
async def test_an_unseen_error_is_raised_at_the_end_of_the_block(streams: Any, form: str) -> None:
    """A failure that the consumer left before it could see it is not lost."""
    error = ValueError("unseen")
    with pytest.raises(ValueError) as caught:
        async with streams.mediator(_failing(streams, form, error)).stream(streams.Count(), max_buffer_size=5):
            await streams.spin()
    assert caught.value is error


async def test_both_failures_leave_as_a_group(streams: Any) -> None:
    """The consumer's error and the handler's unseen one are both told."""
    unseen, mine = ValueError("unseen"), KeyError("mine")
    with pytest.raises(ExceptionGroup) as caught:
        async with streams.mediator(_failing(streams, "yields", unseen)).stream(streams.Count(), max_buffer_size=5):
            await streams.spin()
            raise mine
    assert caught.value.exceptions == (mine, unseen)


@pytest.mark.parametrize("form", ["yields", "sends"])
async def test_what_clean_up_raises_is_told(streams: Any, form: str) -> None:
    """An error of the handler's clean-up leaves the block after break, and beside the body's own error."""
    torn = OSError("torn")

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise torn

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await results.send(2)
        finally:
            raise torn

    mediator = streams.mediator(streams.yielding(give) if form == "yields" else streams.sending(send))
    with pytest.raises(OSError, match="torn"):
        async with mediator.stream(streams.Count()) as results:
            async for _ in results:
                break
    with pytest.raises(ExceptionGroup) as caught:
        async with mediator.stream(streams.Count()) as results:
            await anext(results)
            raise KeyError
    assert [type(error) for error in caught.value.exceptions] == [KeyError, OSError]


@pytest.mark.parametrize("form", ["yields", "sends"])
async def test_what_clean_up_raises_under_cancellation_is_told(streams: Any, form: str) -> None:
    """An error of the handler's clean-up leaves the block of a consumer that is cancelled, as in pull mode."""

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            raise OSError("torn")

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await anyio.sleep_forever()
        finally:
            raise OSError("torn")

    mediator = streams.mediator(streams.yielding(give) if form == "yields" else streams.sending(send))
    with pytest.raises(OSError, match="torn"), anyio.move_on_after(0.02):
        async with mediator.stream(streams.Count()) as results:
            async for _ in results:
                pass


async def test_an_event_handlers_error_comes_instead_of_the_result(streams: Any, counting: Any) -> None:
    """The handler ends, and the result of the failed event is not handed out."""

    async def fail(event: Any) -> None:
        if event.what == 1:
            raise ValueError("event")

    async with streams.mediator(counting, on_event=fail).stream(streams.Count(), max_buffer_size=5) as results:
        assert await anext(results) == 0
        with pytest.raises(ValueError, match="event"):
            await anext(results)
    assert streams.log == ["closed"]


async def test_cancelling_a_consumer_that_waits_for_a_result(streams: Any, way: str) -> None:
    """The handler is cancelled, and its shielded clean-up is waited for before the block is left."""
    reached = anyio.Event()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            reached.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            streams.log.append("ended")

    mediator = streams.mediator(streams.yielding(handle))

    async def consume() -> None:
        try:
            async with mediator.stream(streams.Count()) as results:
                async for _ in results:
                    pass
        finally:
            streams.log.append("left")

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == ["ended", "left"]


@pytest.mark.parametrize("size", SIZES)
async def test_cancelling_the_consumer_in_its_own_body(streams: Any, counting: Any, way: str, size: float) -> None:
    """The handler, which may wait for a place in the buffer, has ended when the cancelled block is left."""
    reached = anyio.Event()
    mediator = streams.mediator(counting)

    async def consume() -> None:
        try:
            async with mediator.stream(streams.Count(upto=20), max_buffer_size=size) as results:
                async for _ in results:
                    reached.set()
                    await anyio.sleep_forever()
        finally:
            streams.log.append("left")

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log[-2:] == ["closed", "left"]
    assert streams.log.count("closed") == 1


async def test_a_second_cancellation_does_not_leave_the_handler_behind(streams: Any) -> None:
    """However often the consumer is cancelled while it waits for clean-up, it waits."""
    if streams.backend == "trio":
        pytest.skip("trio has no cancellation of tasks")
    import asyncio

    running, cleaning = anyio.Event(), anyio.Event()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            running.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaning.set()
                await anyio.sleep(0.03)
            streams.log.append("ended")

    mediator = streams.mediator(streams.yielding(handle))

    async def consume() -> None:
        async with mediator.stream(streams.Count()) as results:
            async for _ in results:
                pass

    async with streams.no_task_left():
        task = asyncio.ensure_future(consume())
        await running.wait()
        task.cancel()
        await cleaning.wait()
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert streams.log == ["ended"]


@pytest.mark.parametrize("size", SIZES)
async def test_several_consumers_share_a_stream(streams: Any, counting: Any, size: float) -> None:
    """Tasks in the block each take results; together they have each result once, and all of them end."""
    taken: list[int] = []

    async def consume(results: Any) -> None:
        async for number in results:
            taken.append(number)
            await anyio.lowlevel.checkpoint()

    async with streams.no_task_left():
        async with streams.mediator(counting).stream(streams.Count(upto=30), max_buffer_size=size) as results:
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(consume, results)
            await consume(results)  # one that comes when all is over
    assert sorted(taken) == list(range(30))


async def test_a_failure_reaches_one_of_several_consumers(streams: Any) -> None:
    """One sees the failure, the others see the end."""
    ends: list[str] = []

    async def consume(results: Any) -> None:
        try:
            async for _ in results:
                pass
            ends.append("end")
        except ValueError:
            ends.append("failure")

    mediator = streams.mediator(_failing(streams, "yields", ValueError()))
    async with mediator.stream(streams.Count()) as results, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(consume, results)
    assert sorted(ends) == ["end", "end", "failure"]


async def test_cancelling_one_wait_loses_nothing(streams: Any) -> None:
    """A consumer that gives up waiting for one result can wait again: the handler was not disturbed."""
    go = anyio.Event()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        yield 0
        await go.wait()
        yield 1

    async with streams.mediator(streams.yielding(handle)).stream(streams.Count()) as results:
        assert await anext(results) == 0
        with anyio.move_on_after(0.01) as scope:
            await anext(results)
        assert scope.cancelled_caught
        go.set()
        assert await anext(results) == 1


async def test_aclose_in_the_block_ends_the_handler(streams: Any, counting: Any) -> None:
    """``aclose()`` ends the handler at once; the block can be left afterwards, and holds nothing to read."""
    async with streams.no_task_left(), streams.mediator(counting).stream(streams.Count(upto=50)) as results:
        await anext(results)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await results.aclose()
        assert streams.log[-1] == "closed"
        with pytest.raises(StreamUsageError):
            await anext(results)


async def test_reading_after_the_block(streams: Any, counting: Any) -> None:
    """A stream whose block was left is not read, and closing it again is harmless."""
    async with streams.mediator(counting).stream(streams.Count()) as results:
        await anext(results)
    with pytest.raises(StreamUsageError):
        await anext(results)
    await results.aclose()


async def test_a_stream_that_is_being_pulled_cannot_be_entered(streams: Any, counting: Any) -> None:
    """The two ways to consume are not mixed."""
    stream = streams.mediator(streams.numbers()).stream(streams.Count())
    assert await anext(stream) == 0
    with pytest.raises(StreamUsageError):
        async with stream:
            raise AssertionError
    assert await anext(stream) == 1
    await stream.aclose()


async def test_a_handler_that_swallows_its_cancellation_is_waited_for(streams: Any) -> None:
    """A handler that goes on for a while under a shield, and even returns normally, has ended."""

    async def send(handler: Any, request: Any, results: Any) -> None:
        await results.send(1)
        with anyio.CancelScope(shield=True):
            for _ in range(5):
                await anyio.sleep(0.002)
        streams.log.append("ended")

    async with streams.no_task_left():
        async with streams.mediator(streams.sending(send)).stream(streams.Count()) as results:
            await anext(results)
        assert streams.log == ["ended"]


async def test_streams_in_streams(streams: Any) -> None:
    """Blocks nest: each is ended on its own, the inner one first."""
    inner, outer = streams.mediator(streams.numbers()), streams.mediator(streams.numbers())
    async with streams.no_task_left(), outer.stream(streams.Count(upto=9), max_buffer_size=2) as left:
        async for x in left:
            async with inner.stream(streams.Count(upto=9), max_buffer_size=2) as right:
                assert await anext(right) == 0
            if x == 2:
                break
    assert streams.log.count("closed") == 4
