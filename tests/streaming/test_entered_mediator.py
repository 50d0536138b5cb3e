"""An entered mediator ends the streams that were left and not closed, in its own task group."""

# ruff: noqa: PT012, RUF043  # what is tested is where in a block an error leaves

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from cqrs.exceptions import StreamUsageError

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


async def test_break_ends_the_stream_at_once(streams: Any) -> None:
    """Left by break, the handler ends in a task of the mediator, without a garbage collection; clean-up awaits."""
    tasks: list[int] = []

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(0.001)
            tasks.append(anyio.get_current_task().id)
            streams.log.append("closed")

    mediator = streams.mediator(streams.yielding(handle))
    gc.disable()
    try:
        async with mediator, streams.no_task_left():
            async for _ in mediator.stream(streams.Count()):
                break
            await streams.spin()
            with anyio.fail_after(5):
                while not streams.log:
                    await anyio.sleep(0.001)
    finally:
        gc.enable()
    assert streams.log == ["closed"]
    assert tasks != [anyio.get_current_task().id]


async def test_leaving_the_mediator_waits_for_streams_that_end(streams: Any) -> None:
    """An abandoned stream whose clean-up takes a while has ended when the mediator has been left."""

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(0.02)
            streams.log.append("closed")

    mediator = streams.mediator(streams.yielding(handle))
    async with streams.no_task_left():
        async with mediator:
            async for _ in mediator.stream(streams.Count()):
                break
        assert streams.log == ["closed"]


async def test_an_error_in_the_loop_abandons_the_stream_as_well(streams: Any) -> None:
    """Whatever leaves the loop, the handler ends."""
    mediator = streams.mediator(streams.numbers())
    async with streams.no_task_left():
        async with mediator:
            with pytest.raises(ValueError, match="mine"):
                async for _ in mediator.stream(streams.Count()):
                    raise ValueError("mine")
        assert streams.log == [("event", 0), "closed"]


async def test_a_cancelled_consumer_abandons_the_stream_as_well(streams: Any, way: str) -> None:
    """Cancelled in its own body, without aclosing: the mediator ends the handler, its clean-up completes."""
    reached = anyio.Event()
    mediator = streams.mediator(streams.numbers())

    async def consume() -> None:
        async for _ in mediator.stream(streams.Count()):
            reached.set()
            await anyio.sleep_forever()

    async with streams.no_task_left(), mediator:
        await streams.cancel(way, consume, reached)
    assert streams.log == [("event", 0), "closed"]


async def test_a_mediator_that_is_cancelled_ends_its_strays(streams: Any) -> None:
    """Streams left while the application is being cancelled are closed in full."""
    mediator = streams.mediator(streams.numbers())
    async with streams.no_task_left():
        with anyio.CancelScope() as scope:
            async with mediator:
                async for _ in mediator.stream(streams.Count()):
                    scope.cancel()
                    break
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert streams.log == [("event", 0), "closed"]


async def test_a_second_native_cancellation_does_not_tear_the_mediators_end(streams: Any) -> None:
    """Cancelled natively again while it waits for a stray, the mediator still waits, and leaves no task."""
    if streams.backend == "trio":
        pytest.skip("trio has no cancellation of tasks")
    import asyncio

    begun, closing = anyio.Event(), anyio.Event()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closing.set()
            await anyio.sleep(0.03)
            streams.log.append("closed")

    mediator = streams.mediator(streams.yielding(handle))
    keep: list[Any] = []

    async def application() -> None:
        async with mediator:
            keep.append(mediator.stream(streams.Count()))
            await anext(keep[0])
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                keep.clear()

    async with streams.no_task_left():
        task = asyncio.ensure_future(application())
        await begun.wait()
        task.cancel()
        await closing.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert streams.log == ["closed"]


@pytest.mark.parametrize("form", ["yields", "sends"])
async def test_a_stream_collected_in_another_thread(streams: Any, form: str) -> None:
    """Where the last reference is dropped in a thread, the loop is not touched from there; it is ended later."""

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            streams.log.append("closed")

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await results.send(2)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            streams.log.append("closed")

    mediator = streams.mediator(streams.yielding(give) if form == "yields" else streams.sending(send))
    async with streams.no_task_left():
        async with mediator:
            kept = [mediator.stream(streams.Count())]
            assert await anext(kept[0]) == 1
            await anyio.to_thread.run_sync(kept.clear)
            assert streams.log == []
        assert streams.log == ["closed"]


async def test_a_stream_in_a_cycle(streams: Any) -> None:
    """Found by the garbage collector, the stream is ended in the mediator's task group."""
    mediator = streams.mediator(streams.numbers())
    async with streams.no_task_left(), mediator:
        cycle: list[Any] = [mediator.stream(streams.Count())]
        cycle.append(cycle)
        await anext(cycle[0])
        del cycle
        await streams.settled()
        assert streams.log == [("event", 0), "closed"]


@pytest.mark.parametrize("form", ["yields", "sends"])
async def test_failures_while_closing_are_logged(streams: Any, form: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the clean-up of an abandoned stream raises goes to the log, and the mediator lives on."""
    torn = OSError("torn")

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise torn

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await results.send(2)
        finally:
            raise torn

    mediator = streams.mediator(streams.yielding(give) if form == "yields" else streams.sending(send))
    async with streams.no_task_left(), mediator:
        for _ in range(2):
            async for _ in mediator.stream(streams.Count()):
                break
            await streams.settled()
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info[1] for record in told if record.exc_info] == [torn, torn]


async def test_many_streams_left_at_once(streams: Any) -> None:
    """Each of them is ended, concurrently."""
    mediator = streams.mediator(streams.numbers())
    async with streams.no_task_left(), mediator:
        kept = [mediator.stream(streams.Count()) for _ in range(50)]
        for stream in kept:
            await anext(stream)
        kept.clear()
        del stream
        await streams.spin()
        assert streams.log.count("closed") == 50


async def test_closed_and_exhausted_streams_leave_nothing_to_end(streams: Any) -> None:
    """A stream that was read to its end or closed starts no task when it is forgotten."""
    mediator = streams.mediator(streams.numbers())
    async with mediator:
        before = len(anyio.get_running_tasks())
        assert [x async for x in mediator.stream(streams.Count())] == [0, 1, 2]
        stream = mediator.stream(streams.Count())
        await anext(stream)
        await stream.aclose()
        del stream
        mediator.stream(streams.Count())
        assert len(anyio.get_running_tasks()) == before


async def test_a_pulled_stream_that_is_still_held_ends_with_the_mediator(streams: Any) -> None:
    """Its handler has ended when the mediator was left, and who reads on is told that results are missing."""

    async def numbers(handler: Any, request: Any) -> Any:
        try:
            yield 0
            yield 1
        finally:
            await anyio.lowlevel.checkpoint()
            streams.log.append("ended")

    mediator = streams.mediator(streams.yielding(numbers))
    async with mediator:
        stream = mediator.stream(streams.Count())
        assert await anext(stream) == 0
    assert streams.log == ["ended"]
    with pytest.raises(StreamUsageError, match="missing"):
        await anext(stream)


async def test_a_sending_handler_is_cut_off_by_the_mediators_end(streams: Any) -> None:
    """It runs in the mediator's task group: its consumer is told that results are missing, not that all is over."""

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            await results.send(1)
            await anyio.sleep_forever()
        finally:
            streams.log.append("ended")

    mediator = streams.mediator(streams.sending(send))

    async def consume() -> None:
        stream = mediator.stream(streams.Count())
        assert await anext(stream) == 1
        with pytest.raises(StreamUsageError, match="missing"):
            await anext(stream)
        streams.log.append("told")

    async with streams.no_task_left(), anyio.create_task_group() as tasks:
        async with mediator:
            tasks.start_soon(consume)
            await streams.spin()
        assert streams.log[0] == "ended"
    assert streams.log == ["ended", "told"]


async def test_a_pipelined_block_is_independent_of_the_mediators(streams: Any) -> None:
    """``async with mediator.stream()`` holds its own task group: it outlives the mediator's block."""
    mediator = streams.mediator(streams.numbers())
    left = anyio.Event()

    async def consume() -> None:
        async with mediator.stream(streams.Count()) as results:
            assert await anext(results) == 0
            await left.wait()
            assert [x async for x in results] == [1, 2]

    async with streams.no_task_left(), anyio.create_task_group() as tasks:
        async with mediator:
            tasks.start_soon(consume)
            await streams.spin()
        left.set()


async def test_entering_twice_is_refused(streams: Any) -> None:
    """Nested entering says what to do; the outer block stays usable."""
    mediator = streams.mediator(streams.numbers())
    async with mediator:
        with pytest.raises(StreamUsageError, match="once"):
            async with mediator:
                raise AssertionError
        async for _ in mediator.stream(streams.Count()):
            break
    assert streams.log == [("event", 0), "closed"]


async def test_entering_again_after_leaving(streams: Any) -> None:
    """A mediator serves one block after the other."""
    mediator = streams.mediator(streams.numbers())
    for turn in range(1, 4):
        async with streams.no_task_left(), mediator:
            async for _ in mediator.stream(streams.Count()):
                break
        assert streams.log.count("closed") == turn


async def test_an_error_of_the_application_leaves_as_itself(streams: Any) -> None:
    """What is raised in the mediator's block is not wrapped in a group."""
    with pytest.raises(ValueError, match="^mine$"):
        async with streams.mediator(streams.numbers()):
            raise ValueError("mine")
    group = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with streams.mediator(streams.numbers()):
            raise group
    assert caught.value.exceptions == group.exceptions


async def test_a_stray_whose_clean_up_hangs_is_given_up(streams: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending a stray is bounded."""
    for module in ("cqrs.dispatcher.result_stream", "cqrs._stream_invocation"):
        monkeypatch.setattr(f"{module}.CLEANUP_TIMEOUT", 0.02)

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep_forever()

    mediator = streams.mediator(streams.yielding(handle))
    async with streams.no_task_left(), mediator:
        async for _ in mediator.stream(streams.Count()):
            break
