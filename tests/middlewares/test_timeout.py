"""TimeoutMiddleware: whose time runs, what ends it, and what leaves."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from cqrs.exceptions import CQRSError, HandlerTimeoutError
from cqrs.middlewares.base import StreamMiddleware
from cqrs.middlewares.timeout import TimeoutMiddleware

SHORT = 0.05


class Ping: ...


class SlowPing(Ping): ...


async def read(results: AsyncIterator[int], seen: list[int]) -> None:
    async for number in results:
        seen.append(number)  # noqa: PERF401 - what was seen before the stream failed is wanted


async def hang(request: Any) -> None:
    await anyio.sleep_forever()


async def test_returns_what_the_handler_returns_in_time() -> None:
    """Within its time a handler is not disturbed."""

    async def handle(request: Any) -> str:
        await anyio.lowlevel.checkpoint()
        return "pong"

    assert await TimeoutMiddleware(5)(Ping(), handle) == "pong"


async def test_a_late_handler_has_ended_when_the_error_is_raised() -> None:
    """The error names the message and the seconds, and comes after the handler's clean-up."""
    ended = False

    async def handle(request: Any) -> None:
        nonlocal ended
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            ended = True

    with pytest.raises(HandlerTimeoutError, match=r"Ping did not end within 0.05 s") as caught:
        await TimeoutMiddleware(SHORT)(Ping(), handle)
    assert ended
    assert caught.value.message_type is Ping
    assert caught.value.seconds == SHORT
    assert isinstance(caught.value, CQRSError)
    assert isinstance(caught.value, TimeoutError)


def test_the_error_can_be_pickled() -> None:
    """It keeps its data across processes and sets no errno."""
    error = pickle.loads(pickle.dumps(HandlerTimeoutError(Ping, 2)))
    assert (error.message_type, error.seconds, error.errno) == (Ping, 2, None)
    assert str(error) == str(HandlerTimeoutError(Ping, 2))


async def test_a_timeout_of_the_handlers_own_leaves_as_itself() -> None:
    """A TimeoutError that the handler raises is not taken for this one."""
    own = TimeoutError("the database's")

    async def handle(request: Any) -> None:
        raise own

    async def fails_after(request: Any) -> None:
        with anyio.fail_after(0.01):
            await anyio.sleep_forever()

    with pytest.raises(TimeoutError) as caught:
        await TimeoutMiddleware(5)(Ping(), handle)
    assert caught.value is own
    with pytest.raises(TimeoutError) as caught:
        await TimeoutMiddleware(5)(Ping(), fails_after)
    assert not isinstance(caught.value, HandlerTimeoutError)


async def test_an_answer_in_spite_of_the_cancellation_counts() -> None:
    """A handler that finishes although its time is over has answered."""

    async def handle(request: Any) -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2 * SHORT)
        return "late but done"

    assert await TimeoutMiddleware(SHORT)(Ping(), handle) == "late but done"


async def test_overrides_count_for_a_class_and_its_subclasses() -> None:
    """The nearest base class decides, and math.inf sets no bound."""
    middleware = TimeoutMiddleware(60, overrides={Ping: SHORT, SlowPing: math.inf})

    class QuickPing(Ping): ...

    async def handle(request: Any) -> str:
        await anyio.sleep(2 * SHORT)
        return "pong"

    for quick in (Ping(), QuickPing()):
        with pytest.raises(HandlerTimeoutError):
            await middleware(quick, handle)
    assert await middleware(SlowPing(), handle) == "pong"
    assert await middleware(object(), handle) == "pong"


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_times_are_checked(seconds: float) -> None:
    """A time must be greater than zero, in overrides as well."""
    with pytest.raises(ValueError, match="greater than zero"):
        TimeoutMiddleware(seconds)
    with pytest.raises(ValueError, match="greater than zero"):
        TimeoutMiddleware(1, overrides={Ping: seconds})


async def test_an_outer_cancellation_is_not_a_timeout() -> None:
    """When the caller is cancelled its own scope catches it."""
    with anyio.move_on_after(0.01) as scope:
        await TimeoutMiddleware(60)(Ping(), hang)
    assert scope.cancelled_caught


async def test_native_cancellation_is_not_a_timeout(backend_name: str) -> None:
    """task.cancel() leaves as CancelledError."""
    if backend_name != "asyncio":
        pytest.skip("asyncio's own way to cancel")
    task = asyncio.ensure_future(TimeoutMiddleware(60)(Ping(), hang))
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


class Stream:
    """A streaming handler that takes its time before each result and notes its end."""

    def __init__(self, *waits: float) -> None:
        self.waits = waits
        self.ended = False

    async def __call__(self, request: Any) -> AsyncIterator[int]:
        try:
            for number, wait in enumerate(self.waits):
                await anyio.sleep(wait)
                yield number
        finally:
            self.ended = True


def test_has_a_way_of_its_own_with_streams() -> None:
    """It is a StreamMiddleware: it holds no scope while a result is out."""
    assert isinstance(TimeoutMiddleware(1), StreamMiddleware)


async def test_a_stream_in_time_gives_all_its_results() -> None:
    """Results pass unchanged and the handler's generator is closed."""
    handle = Stream(0, 0, 0)
    assert [number async for number in TimeoutMiddleware(5).stream(Ping(), handle)] == [0, 1, 2]
    assert handle.ended


async def test_the_readers_time_does_not_count() -> None:
    """A reader may hold a result longer than the whole stream may take."""
    handle, seen = Stream(0, 0, 0), []
    async for number in TimeoutMiddleware(4 * SHORT).stream(Ping(), handle):
        seen.append(number)
        await anyio.sleep(5 * SHORT)
    assert seen == [0, 1, 2]


async def test_the_time_is_for_the_whole_stream() -> None:
    """Results that are each quick, but together late, end in the error; the handler has ended then."""
    handle = Stream(*[SHORT] * 100)
    seen: list[int] = []
    with anyio.fail_after(5), pytest.raises(HandlerTimeoutError, match=r"Ping did not end within 0\.15 s"):
        await read(TimeoutMiddleware(3 * SHORT).stream(Ping(), handle), seen)
    assert 1 <= len(seen) <= 3
    assert seen == list(range(len(seen)))
    assert handle.ended


async def test_no_scope_is_held_while_a_result_is_out() -> None:
    """A reader may open and leave a scope of its own between two results, and stop early."""
    handle = Stream(0, 0, 0)
    async with aclosing(TimeoutMiddleware(5).stream(Ping(), handle)) as results:  # type: ignore[type-var]
        with anyio.CancelScope():
            assert await results.__anext__() == 0
        async with anyio.create_task_group() as group:
            assert await results.__anext__() == 1
            group.cancel_scope.cancel()
    assert handle.ended


async def test_leaving_a_stream_closes_the_handler() -> None:
    """aclose() reaches the handler before it returns."""
    handle = Stream(0, 0)
    results: Any = TimeoutMiddleware(5).stream(Ping(), handle)
    assert await results.__anext__() == 0
    await results.aclose()
    assert handle.ended


async def test_a_failure_of_a_stream_leaves_as_itself() -> None:
    """A TimeoutError of the stream's own is not taken for this one."""

    async def handle(request: Any) -> AsyncIterator[int]:
        yield 1
        raise TimeoutError("the database's")

    seen: list[int] = []
    with pytest.raises(TimeoutError, match="the database's") as caught:
        await read(TimeoutMiddleware(5).stream(Ping(), handle), seen)
    assert not isinstance(caught.value, HandlerTimeoutError)
    assert seen == [1]


async def test_a_cancelled_reader_is_not_a_timeout() -> None:
    """A reader cancelled while the handler works ends the handler and is caught by its own scope."""
    handle = Stream(0, 3600)
    with anyio.move_on_after(SHORT) as scope:
        async for _ in TimeoutMiddleware(60).stream(Ping(), handle):
            pass
    assert scope.cancelled_caught
    assert handle.ended
