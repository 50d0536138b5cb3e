"""RetryMiddleware: what it retries, how often, and what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import tenacity

from cqrs.exceptions import (
    MiddlewareTypeError,
    RequestHandlerDoesNotExist,
    StreamAlreadyStartedError,
)
from cqrs.middlewares.base import MiddlewareChain
from cqrs.middlewares.retry import RetryMiddleware

NO_WAIT = tenacity.wait_none()


class Ping: ...


class SpecialPing(Ping): ...


class Other: ...


class Failing:
    """A handler that raises what it is given, in order, and then answers."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self, request: Any) -> str:
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        return "pong"


async def test_a_success_builds_no_retrying_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that succeeds is called once, and tenacity not at all."""
    monkeypatch.setattr("tenacity.AsyncRetrying", None)
    handler = Failing()
    assert await RetryMiddleware()(Ping(), handler) == "pong"
    assert handler.calls == 1


async def test_retries_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails twice and then answers has answered, and each failure is in the log."""
    handler = Failing(ValueError("first"), OSError("second"))
    assert await RetryMiddleware(wait=NO_WAIT)(Ping(), handler) == "pong"
    assert handler.calls == 3
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(logged) == 2
    assert "Ping" in logged[0]
    assert "first" in logged[0]
    assert "attempt 2" in logged[1]


async def test_gives_up_with_the_last_error_itself() -> None:
    """After the last attempt its own error leaves, unwrapped."""
    failures = [ValueError(str(number)) for number in range(3)]
    handler = Failing(*failures)
    with pytest.raises(ValueError, match="2") as caught:
        await RetryMiddleware(wait=NO_WAIT)(Ping(), handler)
    assert caught.value is failures[2]
    assert caught.value.__cause__ is None
    assert handler.calls == 3


async def test_one_attempt_means_no_retry() -> None:
    """With attempts=1 the first error leaves."""
    handler = Failing(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        await RetryMiddleware(attempts=1)(Ping(), handler)
    assert handler.calls == 1


async def test_an_error_of_another_kind_leaves_at_once() -> None:
    """Only errors of retry_on are retried, at the first attempt and at later ones."""
    middleware = RetryMiddleware(retry_on=(OSError,), wait=NO_WAIT)
    first, later = Failing(ValueError("x")), Failing(OSError("x"), ValueError("x"))
    for handler, calls in ((first, 1), (later, 2)):
        with pytest.raises(ValueError, match="x"):
            await middleware(Ping(), handler)
        assert handler.calls == calls


@pytest.mark.parametrize("error", [RequestHandlerDoesNotExist(Ping), MiddlewareTypeError("wrong")])
async def test_errors_of_wiring_are_not_retried(error: Exception) -> None:
    """A wrong set-up stays wrong, and is not tried again."""
    handler = Failing(error)
    with pytest.raises(type(error)):
        await RetryMiddleware(wait=NO_WAIT)(Ping(), handler)
    assert handler.calls == 1


@pytest.mark.parametrize(("message", "calls"), [(Ping(), 2), (SpecialPing(), 2), (Other(), 1)])
async def test_only_certain_messages(message: Any, calls: int) -> None:
    """With only= other messages are handled once."""
    handler = Failing(ValueError("x"))
    middleware = RetryMiddleware(only=(Ping,), wait=NO_WAIT)
    if calls == 1:
        with pytest.raises(ValueError, match="x"):
            await middleware(message, handler)
    else:
        assert await middleware(message, handler) == "pong"
    assert handler.calls == calls


async def test_waits_are_counted_from_the_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait strategy sees attempt 1 after the plain first call, and anyio does the sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    wait = tenacity.wait_incrementing(start=10, increment=5)
    handler = Failing(ValueError("x"), ValueError("x"), ValueError("x"))
    await RetryMiddleware(attempts=4, wait=wait)(Ping(), handler)
    assert slept == [10, 15, 20]


async def test_the_default_wait_grows_from_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wait= the waits grow exponentially, with at most 0.1 s of jitter."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    await RetryMiddleware(attempts=4)(Ping(), Failing(*[ValueError("x") for _ in range(3)]))
    for wait, base in zip(slept, (0.1, 0.2, 0.4), strict=True):
        assert base <= wait <= base + 0.1


def test_attempts_are_checked() -> None:
    """Less than one attempt is refused."""
    with pytest.raises(ValueError, match="attempts"):
        RetryMiddleware(attempts=0)


class TestCancellation:
    """A cancellation ends it, wherever it comes."""

    async def hang_at(self, call: int, started: anyio.Event) -> tuple[list[int], Callable[[Any], Awaitable[Any]]]:
        calls: list[int] = []

        async def handle(request: Any) -> None:
            calls.append(len(calls) + 1)
            if calls[-1] < call:
                raise ValueError("again")
            started.set()
            await anyio.sleep_forever()

        return calls, handle

    @pytest.mark.parametrize("call", [1, 2])
    async def test_by_scope_while_the_handler_runs(self, call: int) -> None:
        """A cancelled attempt is the last one."""
        started = anyio.Event()
        calls, handle = await self.hang_at(call, started)
        ended = False
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:

                async def run() -> None:
                    nonlocal ended
                    try:
                        await RetryMiddleware(wait=NO_WAIT, attempts=9, retry_on=(BaseException,))(Ping(), handle)  # type: ignore[arg-type]
                    except anyio.get_cancelled_exc_class():
                        ended = True
                        raise

                group.start_soon(run)
                await started.wait()
                group.cancel_scope.cancel()
        assert ended
        assert len(calls) == call

    async def test_by_scope_while_it_waits(self) -> None:
        """The wait between two attempts ends at once and no attempt follows."""
        handler = Failing(ValueError("x"))
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(RetryMiddleware(wait=tenacity.wait_fixed(3600)), Ping(), handler)
                await anyio.wait_all_tasks_blocked()
                assert handler.calls == 1
                scope.cancel()
        assert scope.cancelled_caught
        assert handler.calls == 1

    @pytest.mark.parametrize("call", [1, 2])
    async def test_natively_on_asyncio(self, call: int, backend_name: str) -> None:
        """task.cancel() is never taken for a failure, not even where retry_on would have it so."""
        if backend_name != "asyncio":
            pytest.skip("asyncio's own way to cancel")
        started = anyio.Event()
        calls, handle = await self.hang_at(call, started)
        middleware = RetryMiddleware(wait=NO_WAIT, attempts=9, retry_on=(BaseException,))  # type: ignore[arg-type]
        task = asyncio.ensure_future(middleware(Ping(), handle))
        await started.wait()
        task.cancel()
        with anyio.move_on_after(5):
            await asyncio.wait([task])
        assert task.cancelled()
        assert len(calls) == call


async def test_a_stream_that_has_started_gives_up_with_its_own_error() -> None:
    """When results went out, the failure of the stream leaves itself, without the refusal to start again."""
    failure = ValueError("in the middle")
    calls = 0

    async def handle(request: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise failure
        raise StreamAlreadyStartedError("results went out") from failure

    with pytest.raises(ValueError, match="in the middle") as caught:
        await RetryMiddleware(attempts=5, wait=NO_WAIT)(Ping(), handle)
    assert caught.value is failure
    assert calls == 2


async def test_nested_retries_give_up_on_a_started_stream_together() -> None:
    """Two of them around a stream raise its own error as well, with no more attempts than one needs."""
    failure = ValueError("in the middle")
    calls = 0

    async def handle(request: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise failure
        raise StreamAlreadyStartedError("results went out") from failure

    chain = MiddlewareChain()
    chain.set([RetryMiddleware(wait=NO_WAIT), RetryMiddleware(wait=NO_WAIT)])
    with pytest.raises(ValueError, match="in the middle") as caught:
        await chain.wrap(handle)(Ping())
    assert caught.value is failure
    assert calls == 3


async def test_a_stream_that_has_not_started_is_retried() -> None:
    """A stream that fails before its first result runs again."""
    results: list[int] = []
    calls = 0

    async def handle(request: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("no connection")
        results.extend([1, 2])

    assert await RetryMiddleware(wait=NO_WAIT)(Ping(), handle) is None
    assert results == [1, 2]
