"""Streams with another one to fall back on, and a circuit breaker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs import PlainContainer, RequestHandlerFallback
from cqrs.requests.request_handler import SendStreamRequestHandler


class OpenCircuitError(Exception):
    pass


class Breaker:
    """Records how calls end; refuses all while it is open."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.is_open = False
        self.identifiers: set[Any] = set()
        self.active = 0

    async def call(self, identifier: Any, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.identifiers.add(identifier)
        if self.is_open:
            self.calls.append("refused")
            raise OpenCircuitError
        self.active += 1
        try:
            result = await func(*args, **kwargs)
        except Exception as error:
            self.calls.append(f"failure {error}")
            raise
        finally:
            self.active -= 1
        self.calls.append("success")
        return result

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        return isinstance(exc, OpenCircuitError)


@pytest.fixture(params=["pull", "pipelined", "sent", "sent to yielded", "yielded to sent"])
def form(request: pytest.FixtureRequest) -> str:
    """How the two handlers give their results, and how these are consumed."""
    value: str = request.param
    return value


def _handler(streams: Any, sends: bool, name: str, results: int, error: Exception | None = None) -> Any:
    async def give(handler: Any, request: Any) -> AsyncIterator[str]:
        streams.log.append(f"{name} runs")
        try:
            for number in range(results):
                handler.record(f"{name}{number}")
                yield f"{name}{number}"
            handler.record(f"{name} end")
            if error is not None:
                raise error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            streams.log.append(f"{name} ends")

    async def send(handler: Any, request: Any, outlet: Any) -> None:
        async with aclosing(give(handler, request)) as given:
            async for item in given:
                await outlet.send(item)

    return streams.sending(send) if sends else streams.yielding(give)


def _fallback(
    streams: Any, form: str, results: int, error: Exception | None, second: Any = None, **options: Any
) -> Any:
    primary = _handler(streams, form in ("sent", "sent to yielded"), "p", results, error)
    fallback = _handler(streams, form in ("sent", "yielded to sent"), "f", 2, second)
    return RequestHandlerFallback(primary, fallback, **options)


@asynccontextmanager
async def _opened(stream: Any, form: str) -> AsyncIterator[Any]:
    async with aclosing(stream) if form == "pull" else stream as results:
        yield results


async def _all(streams: Any, form: str, bound: Any, **options: Any) -> list[Any]:
    taken: list[Any] = []
    async with streams.no_task_left(), _opened(streams.mediator(bound, **options).stream(streams.Count()), form) as got:
        async for result in got:
            taken.append(result)  # noqa: PERF401
    return taken


def _events(streams: Any) -> list[Any]:
    return [entry[1] for entry in streams.log if isinstance(entry, tuple)]


async def test_a_primary_that_succeeds(streams: Any, form: str) -> None:
    """The fallback is not run; the breaker is told of one success."""
    breaker = Breaker()
    bound = _fallback(streams, form, 2, None, circuit_breaker=breaker)
    assert await _all(streams, form, bound) == ["p0", "p1"]
    assert _events(streams) == ["p0", "p1", "p end"]
    assert breaker.calls == ["success"]
    assert breaker.identifiers == {bound.primary}


async def test_a_failure_before_the_first_result(streams: Any, form: str) -> None:
    """All results are the fallback's; the primary has ended before, and its events are dropped."""
    breaker = Breaker()
    bound = _fallback(streams, form, 0, ValueError("p"), circuit_breaker=breaker)
    assert await _all(streams, form, bound) == ["f0", "f1"]
    assert _events(streams) == ["f0", "f1", "f end"]
    assert breaker.calls == ["failure p"]
    assert [x for x in streams.log if isinstance(x, str)] == ["p runs", "p ends", "f runs", "f ends"]


async def test_a_failure_after_some_results(streams: Any, form: str) -> None:
    """The stream goes on with all results of the fallback, and the breaker is told of the failure."""
    breaker = Breaker()
    bound = _fallback(streams, form, 1, ValueError("p"), circuit_breaker=breaker)
    assert await _all(streams, form, bound) == ["p0", "f0", "f1"]
    assert _events(streams) == ["p0", "f0", "f1", "f end"]
    assert breaker.calls[-1] == "failure p"


async def test_only_certain_failures_lead_to_the_fallback(streams: Any, form: str) -> None:
    """Any other error is the consumer's."""
    bound = _fallback(streams, form, 1, KeyError("p"), failure_exceptions=(ValueError, OSError))
    with pytest.raises(KeyError):
        await _all(streams, form, bound)
    assert "f runs" not in streams.log
    bound = _fallback(streams, form, 1, FileNotFoundError("p"), failure_exceptions=(ValueError, OSError))
    assert await _all(streams, form, bound) == ["p0", "f0", "f1"]


async def test_an_open_circuit(streams: Any, form: str) -> None:
    """The primary is not run, whatever the failures that lead to the fallback."""
    breaker = Breaker()
    breaker.is_open = True
    bound = _fallback(streams, form, 2, None, circuit_breaker=breaker, failure_exceptions=(ValueError,))
    assert await _all(streams, form, bound) == ["f0", "f1"]
    assert "p runs" not in streams.log
    assert breaker.calls == ["refused"]


async def test_a_circuit_that_opens_in_mid_stream(streams: Any) -> None:
    """A late failure is judged by what failed, not by what the breaker says to the report of it."""
    breaker = Breaker()
    bound = _fallback(streams, "pull", 1, KeyError("p"), circuit_breaker=breaker, failure_exceptions=(ValueError,))
    stream = streams.mediator(bound).stream(streams.Count())
    assert await anext(stream) == "p0"
    breaker.is_open = True
    with pytest.raises(KeyError):
        await anext(stream)
    assert "f runs" not in streams.log


async def test_no_call_of_the_breaker_is_held_while_the_consumer_has_a_result(streams: Any) -> None:
    """In pull mode, what the breaker counts as active is the handler's time only."""
    breaker = Breaker()
    bound = _fallback(streams, "pull", 2, ValueError("p"), circuit_breaker=breaker)
    async for _ in streams.mediator(bound).stream(streams.Count()):
        assert breaker.active == 0


async def test_both_fail(streams: Any, form: str) -> None:
    """The fallback's error is raised, with the primary's as its context."""
    first, second = ValueError("p"), KeyError("f")
    with pytest.raises(KeyError) as caught:
        await _all(streams, form, _fallback(streams, form, 1, first, second))
    assert caught.value is second
    assert caught.value.__context__ is first


async def test_a_failing_event_is_none_of_the_primarys(streams: Any, form: str) -> None:
    """It reaches the consumer as it is; neither the fallback nor the breaker sees a failure in it."""
    breaker = Breaker()
    error = ValueError("event")

    async def fail(event: Any) -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        await _all(streams, form, _fallback(streams, form, 2, None, circuit_breaker=breaker), on_event=fail)
    assert caught.value is error
    assert "f runs" not in streams.log
    assert set(breaker.calls) <= {"success"}


async def test_a_failing_event_in_a_handlers_own_task_group(streams: Any) -> None:
    """Wrapped in the group of the handler's task group, it is still none of the primary's."""

    async def fail(event: Any) -> None:
        raise ValueError("event")

    async def handle(handler: Any, request: Any, results: Any) -> None:
        async def child() -> None:
            handler.record(1)
            await results.send(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)

    bound = RequestHandlerFallback(streams.sending(handle), _handler(streams, True, "f", 1))
    with pytest.raises(Exception) as caught:
        await _all(streams, "sent", bound, on_event=fail)
    assert [str(error) for error in caught.value.exceptions] == ["event"]  # type: ignore[attr-defined]
    assert "f runs" not in streams.log


async def test_a_failing_event_that_the_primary_got_over(streams: Any) -> None:
    """A primary that goes on after it, and fails for another reason, is followed by the fallback."""
    failures = iter([True])

    async def fail_once(event: Any) -> None:
        if next(failures, False):
            raise OSError("event")

    async def handle(handler: Any, request: Any, results: Any) -> None:
        handler.record(1)
        with pytest.raises(OSError, match="event"):
            await results.send(1)
        raise ValueError("p")

    bound = RequestHandlerFallback(streams.sending(handle), _handler(streams, True, "f", 1))
    assert await _all(streams, "sent", bound, on_event=fail_once) == ["f0"]


async def test_an_event_that_is_given_up(streams: Any) -> None:
    """A primary that bounds the time of its events is not taken for cancelled afterwards."""

    async def hang(event: Any) -> None:
        if event.what == 1:
            await anyio.sleep_forever()

    async def handle(handler: Any, request: Any, results: Any) -> None:
        handler.record(1)
        with anyio.move_on_after(0.01):
            await results.send(1)
        raise ValueError("p")

    bound = RequestHandlerFallback(streams.sending(handle), _handler(streams, True, "f", 1))
    assert await _all(streams, "sent", bound, on_event=hang) == ["f0"]


async def test_leaving_early(streams: Any, form: str) -> None:
    """Break ends whichever of the two runs; leaving is no failure."""
    breaker = Breaker()
    for failure, last in ((None, "p"), (ValueError("p"), "f")):
        streams.log.clear()
        bound = _fallback(streams, form, 3 if failure is None else 0, failure, circuit_breaker=breaker)
        async with streams.no_task_left(), _opened(streams.mediator(bound).stream(streams.Count()), form) as results:
            async for result in results:
                assert result == f"{last}0"
                break
        assert [x for x in streams.log if isinstance(x, str)][-1] == f"{last} ends"
    assert not [call for call in breaker.calls if call not in ("success", "failure p")]
    assert breaker.active == 0


async def test_cancellation_is_no_failure(streams: Any, form: str, way: str) -> None:
    """A cancelled primary does not lead to the fallback."""
    breaker = Breaker()
    reached = anyio.Event()

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        reached.set()
        await anyio.sleep_forever()
        yield 1

    async def send(handler: Any, request: Any, results: Any) -> None:
        reached.set()
        await anyio.sleep_forever()

    primary = streams.sending(send) if form.startswith("sent") else streams.yielding(give)
    bound = RequestHandlerFallback(
        primary, _handler(streams, form in ("sent", "yielded to sent"), "f", 1), circuit_breaker=breaker
    )
    mediator = streams.mediator(bound)

    async def consume() -> None:
        async with _opened(mediator.stream(streams.Count()), form) as results:
            async for _ in results:
                raise AssertionError

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == []
    assert breaker.calls == []


async def test_middlewares_run_around_each_of_the_two(streams: Any, form: str) -> None:
    """The primary's middlewares see its failure."""

    class Sees:
        async def __call__(self, request: Any, handle: Any) -> Any:
            try:
                await handle(request)
            except ValueError as error:
                streams.log.append(f"saw {error}")
                raise
            streams.log.append("saw none")

    bound = _fallback(streams, form, 1, ValueError("p"))
    taken: list[Any] = []
    async with _opened(streams.mediator(bound, Sees()).stream(streams.Count()), form) as results:
        async for result in results:
            taken.append(result)  # noqa: PERF401
    assert taken == ["p0", "f0", "f1"]
    assert [x for x in streams.log if "saw" in x] == ["saw p", "saw none"]


async def test_a_singleton_that_failed_publishes_nothing_later(streams: Any) -> None:
    """What a failed run recorded is not published by the next run of the same instance."""
    from cqrs import Lifetime

    failures = iter([True])

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        handler.record("failed" if (fails := next(failures, False)) else "succeeded")
        if fails:
            raise ValueError
        yield 1

    handler = streams.yielding(handle)
    container = PlainContainer()
    container.register(handler, lifetime=Lifetime.SINGLETON)
    mediator = streams.mediator(handler, container=container)
    with pytest.raises(ValueError):
        await anext(mediator.stream(streams.Count()))
    assert [x async for x in mediator.stream(streams.Count())] == [1]
    assert _events(streams) == ["succeeded"]


async def test_a_bare_loop_over_a_mixed_fallback_needs_an_entered_mediator(streams: Any) -> None:
    """If one of the two sends, the stream runs in a task; entered, the mediator provides it."""
    mediator = streams.mediator(_fallback(streams, "yielded to sent", 1, ValueError("p")))
    assert issubclass(_handler(streams, True, "x", 0), SendStreamRequestHandler)
    with pytest.raises(RuntimeError, match="enter the mediator"):
        await anext(mediator.stream(streams.Count()))
    async with mediator:
        assert [x async for x in mediator.stream(streams.Count())] == ["p0", "f0", "f1"]


async def test_the_breaker_opens_for_a_primary_that_breaks_late(streams: Any) -> None:
    """Results before a failure are no success: failures after the first result add up, run after run."""
    breaker = Breaker()
    for _ in range(3):
        await _all(streams, "pull", _fallback(streams, "pull", 2, ValueError("late"), circuit_breaker=breaker))
    assert breaker.calls == ["failure late"] * 3


async def test_a_stream_that_ends_is_one_success(streams: Any) -> None:
    """However many results it had."""
    breaker = Breaker()
    await _all(streams, "pull", _fallback(streams, "pull", 3, None, circuit_breaker=breaker))
    assert breaker.calls == ["success"]
