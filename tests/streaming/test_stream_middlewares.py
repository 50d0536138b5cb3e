"""Middlewares run around a whole stream, whatever the way it is consumed."""

# ruff: noqa: PT012  # what is tested is where in a block an error leaves

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import tenacity

from cqrs.exceptions import HandlerTimeoutError, StreamAlreadyStartedError
from cqrs.middlewares.retry import RetryMiddleware
from cqrs.middlewares.timeout import TimeoutMiddleware


class Around:
    """Logs before and after, and awaits in both places."""

    def __init__(self, log: list[Any], name: str) -> None:
        self.log = log
        self.name = name

    async def __call__(self, request: Any, handle: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        self.log.append(f"{self.name} before")
        try:
            return await handle(request)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.log.append(f"{self.name} after")


class Hooked(Around):
    """The same by the hook for streams."""

    async def stream(self, request: Any, handle: Any) -> AsyncIterator[Any]:
        await anyio.lowlevel.checkpoint()
        self.log.append(f"{self.name} before")
        try:
            async with aclosing(handle(request)) as results:
                async for result in results:
                    yield result
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.log.append(f"{self.name} after")


@pytest.fixture(params=["pull", "pipelined", "sent"])
def consumed(request: pytest.FixtureRequest) -> str:
    """How a stream is consumed, the handler yielding or sending."""
    way: str = request.param
    return way


def _counting(streams: Any, consumed: str) -> Any:
    if consumed != "sent":
        return streams.numbers()

    async def send(handler: Any, request: Any, results: Any) -> None:
        try:
            for number in range(request.upto):
                handler.record(number)
                await results.send(number)
        finally:
            streams.log.append("closed")

    return streams.sending(send)


@asynccontextmanager
async def _opened(stream: Any, consumed: str) -> AsyncIterator[Any]:
    async with aclosing(stream) if consumed == "pull" else stream as results:
        yield results


async def test_before_and_after_are_around_all_results(streams: Any, consumed: str) -> None:
    """Before, the events and results, the handler's end, after; the first middleware outermost."""
    log = streams.log
    mediator = streams.mediator(_counting(streams, consumed), Around(log, "a"), Hooked(log, "b"), Around(log, "c"))
    async with streams.no_task_left(), _opened(mediator.stream(streams.Count(upto=2)), consumed) as results:
        async for number in results:
            log.append(number)
    assert [x for x in log if not isinstance(x, int)] == [
        *("a before", "b before", "c before"),
        *(("event", 0), ("event", 1), "closed"),
        *("c after", "b after", "a after"),
    ]
    assert [x for x in log if isinstance(x, int)] == [0, 1]


async def test_in_pull_mode_results_come_between(streams: Any) -> None:
    """In pull mode all is one sequence, in the consumer's task."""
    log = streams.log
    mediator = streams.mediator(streams.numbers(), Around(log, "a"), Hooked(log, "b"), Around(log, "c"))
    async for number in mediator.stream(streams.Count(upto=2)):
        log.append(number)
    assert log == [
        *("a before", "b before", "c before"),
        *(("event", 0), 0, ("event", 1), 1, "closed"),
        *("c after", "b after", "a after"),
    ]


async def test_a_middleware_runs_in_the_consumers_task(streams: Any) -> None:
    """In pull mode a plain middleware and the handler inside it are driven by the consumer."""
    tasks: set[int] = set()

    class Where:
        async def __call__(self, request: Any, handle: Any) -> Any:
            tasks.add(anyio.get_current_task().id)
            try:
                return await handle(request)
            finally:
                tasks.add(anyio.get_current_task().id)

    mediator = streams.mediator(streams.numbers(), Where(), Where())
    async with aclosing(mediator.stream(streams.Count())) as stream:
        await anext(stream)
    assert [x async for x in mediator.stream(streams.Count())] == [0, 1, 2]
    assert tasks == {anyio.get_current_task().id}


async def test_handle_returns_none_at_the_end_of_the_stream(streams: Any, consumed: str) -> None:
    """A plain middleware awaits the whole stream."""

    class Ends:
        async def __call__(self, request: Any, handle: Any) -> Any:
            streams.log.append(await handle(request))

    mediator = streams.mediator(_counting(streams, consumed), Ends())
    async with _opened(mediator.stream(streams.Count(upto=1)), consumed) as results:
        assert [x async for x in results] == [0]
    assert streams.log == [("event", 0), "closed", None]


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_middleware_that_raises(streams: Any, consumed: str, where: str) -> None:
    """Its error comes instead of the first result, or after the last one."""

    class Raises:
        async def __call__(self, request: Any, handle: Any) -> Any:
            if where == "after":
                await handle(request)
            raise ValueError(where)

    mediator = streams.mediator(_counting(streams, consumed), Around(streams.log, "a"), Raises())
    taken: list[int] = []
    with pytest.raises(ValueError, match=where):
        async with _opened(mediator.stream(streams.Count()), consumed) as results:
            async for number in results:
                taken.append(number)  # noqa: PERF401
    assert taken == ([] if where == "before" else [0, 1, 2])
    assert streams.log[-1] == "a after"


async def test_a_middleware_that_does_not_call_on(streams: Any, consumed: str) -> None:
    """The stream is empty."""

    class Refuses:
        async def __call__(self, request: Any, handle: Any) -> Any:
            return None

    mediator = streams.mediator(_counting(streams, consumed), Refuses())
    async with _opened(mediator.stream(streams.Count()), consumed) as results:
        assert [x async for x in results] == []
    assert streams.log == []


def _failing_after(streams: Any, consumed: str, results_before: int, times: int = 100) -> Any:
    """A handler that fails ``times`` times after some results."""
    failures = iter(range(times))

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        streams.log.append("run")
        for number in range(results_before):
            yield number
        handler.record("before failure")
        if next(failures, None) is not None:
            raise ValueError("handler")
        yield 99

    async def send(handler: Any, request: Any, results: Any) -> None:
        async with aclosing(give(handler, request)) as given:
            async for item in given:
                await results.send(item)

    return streams.sending(send) if consumed == "sent" else streams.yielding(give)


async def test_a_middleware_that_swallows_errors(streams: Any, consumed: str) -> None:
    """The stream ends where the handler failed."""

    class Swallows:
        async def __call__(self, request: Any, handle: Any) -> Any:
            try:
                await handle(request)
            except ValueError:
                streams.log.append("swallowed")

    mediator = streams.mediator(_failing_after(streams, consumed, 2), Swallows())
    async with _opened(mediator.stream(streams.Count()), consumed) as results:
        assert [x async for x in results] == [0, 1]
    assert streams.log == ["run", "swallowed"]  # and the events of what failed are dropped


async def test_a_middleware_that_changes_the_request(streams: Any, consumed: str) -> None:
    """The handler is given what the middleware passes on."""

    class Shortens:
        async def __call__(self, request: Any, handle: Any) -> Any:
            return await handle(streams.Count(upto=1))

    mediator = streams.mediator(_counting(streams, consumed), Shortens())
    async with _opened(mediator.stream(streams.Count(upto=50)), consumed) as results:
        assert [x async for x in results] == [0]


async def test_a_retry_before_the_first_result(streams: Any, consumed: str) -> None:
    """The handler is run again, and the events of the attempt that failed are dropped."""
    retry = RetryMiddleware(attempts=3, wait=tenacity.wait_none())
    mediator = streams.mediator(_failing_after(streams, consumed, 0, times=2), retry, Around(streams.log, "in"))
    async with _opened(mediator.stream(streams.Count()), consumed) as results:
        assert [x async for x in results] == [99]
    assert streams.log.count("run") == streams.log.count("in after") == 3
    assert [x for x in streams.log if isinstance(x, tuple)] == [("event", "before failure")]


async def test_no_retry_after_the_first_result(streams: Any, consumed: str) -> None:
    """The consumer is told what failed, and the handler is not run again."""
    retry = RetryMiddleware(attempts=3, wait=tenacity.wait_none())
    mediator = streams.mediator(_failing_after(streams, consumed, 1), retry)
    async with _opened(mediator.stream(streams.Count()), consumed) as results:
        assert await anext(results) == 0
        with pytest.raises(ValueError, match="handler"):
            await anext(results)
    assert streams.log == ["run"]


async def test_a_middleware_that_runs_a_started_stream_again(streams: Any, consumed: str) -> None:
    """It gets an error of its own, whose cause is what failed before."""

    class Again:
        async def __call__(self, request: Any, handle: Any) -> Any:
            try:
                return await handle(request)
            except ValueError:
                return await handle(request)

    mediator = streams.mediator(_failing_after(streams, consumed, 1), Again())
    async with _opened(mediator.stream(streams.Count()), consumed) as results:
        assert await anext(results) == 0
        with pytest.raises(StreamAlreadyStartedError) as caught:
            await anext(results)
    assert isinstance(caught.value.__cause__, ValueError)
    assert streams.log == ["run"]


async def test_a_retry_waits_under_cancellation(streams: Any, way: str) -> None:
    """A consumer that is cancelled while a middleware waits to try again ends at once."""
    reached = anyio.Event()

    class Waits:
        async def __call__(self, request: Any, handle: Any) -> Any:
            try:
                await handle(request)
            except ValueError:
                reached.set()
                await anyio.sleep_forever()

    mediator = streams.mediator(_failing_after(streams, "pull", 0), Waits(), Around(streams.log, "in"))

    async def consume() -> None:
        async for _ in mediator.stream(streams.Count()):
            raise AssertionError

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log == ["in before", "run", "in after"]


class Holds:
    """Holds a resource around the stream."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        self.log.append("opened")
        try:
            yield
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            self.log.append("released")

    async def __call__(self, request: Any, handle: Any) -> Any:
        async with self.session():
            return await handle(request)


async def test_a_resource_around_the_stream_is_released_when_the_consumer_leaves(streams: Any, consumed: str) -> None:
    """Left early, the handler ends first, then the middleware's resources, in full."""
    mediator = streams.mediator(_counting(streams, consumed), Holds(streams.log), Holds(streams.log))
    async with streams.no_task_left():
        async with _opened(mediator.stream(streams.Count(upto=9)), consumed) as results:
            async for _ in results:
                break
        assert streams.log[-1] == "released"
    assert streams.log.count("released") == 2
    assert streams.log.index("closed") < streams.log.index("released")
    if consumed == "pull":
        assert streams.log.count("GeneratorExit") == 2


async def test_a_resource_around_an_abandoned_stream(streams: Any) -> None:
    """In an entered mediator, break releases it at once."""
    mediator = streams.mediator(streams.numbers(), Holds(streams.log), Around(streams.log, "in"))
    async with streams.no_task_left(), mediator:
        async for _ in mediator.stream(streams.Count(upto=9)):
            break
        await streams.spin()
        assert streams.log[-4:] == ["closed", "in after", "GeneratorExit", "released"]


async def test_a_resource_around_a_cancelled_stream(streams: Any, consumed: str, way: str) -> None:
    """A cancelled consumer leaves no resource open."""
    reached = anyio.Event()
    mediator = streams.mediator(_counting(streams, consumed), Holds(streams.log), Around(streams.log, "in"))

    async def consume() -> None:
        async with _opened(mediator.stream(streams.Count(upto=9)), consumed) as results:
            async for _ in results:
                reached.set()
                await anyio.sleep_forever()

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert streams.log.count("released") == streams.log.count("in after") == streams.log.count("closed") == 1
    assert streams.log[-1] == "released"


async def test_cancelled_inside_anext_a_middleware_sees_the_cancellation(streams: Any, way: str) -> None:
    """A cancellation goes through the middleware like through any await."""
    reached = anyio.Event()

    async def handle(handler: Any, request: Any) -> AsyncIterator[int]:
        yield 1
        reached.set()
        await anyio.sleep_forever()

    mediator = streams.mediator(streams.yielding(handle), Holds(streams.log), Holds(streams.log))

    async def consume() -> None:
        async for _ in mediator.stream(streams.Count()):
            pass

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    name = anyio.get_cancelled_exc_class().__name__
    assert streams.log == ["opened", "opened", name, "released", name, "released"]


async def test_a_middleware_that_ignores_the_consumers_leaving(streams: Any) -> None:
    """Swallowing it ends the stream; going on with it is refused."""

    class Swallows:
        async def __call__(self, request: Any, handle: Any) -> Any:
            try:
                await handle(request)
            except BaseException:
                streams.log.append("swallowed")

    stream = streams.mediator(streams.numbers(), Swallows()).stream(streams.Count())
    await anext(stream)
    await stream.aclose()
    assert streams.log == [("event", 0), "closed", "swallowed"]

    class Insists:
        async def __call__(self, request: Any, handle: Any) -> Any:
            try:
                await handle(request)
            except GeneratorExit:
                await handle(request)

    stream = streams.mediator(streams.numbers(), Insists()).stream(streams.Count())
    await anext(stream)
    with pytest.raises(StreamAlreadyStartedError):
        await stream.aclose()


async def test_deep_nesting(streams: Any, consumed: str) -> None:
    """Forty middlewares, plain and hooked, nest in order and unwind in order."""
    kinds = (Around, Hooked)
    middlewares = [kinds[number % 2](streams.log, str(number)) for number in range(40)]
    mediator = streams.mediator(_counting(streams, consumed), *middlewares)
    async with _opened(mediator.stream(streams.Count(upto=9)), consumed) as results:
        async for number in results:
            if number == 2:
                break
    names = [str(number) for number in range(40)]
    assert [x for x in streams.log if "before" in x] == [f"{name} before" for name in names]
    assert [x for x in streams.log if "after" in x] == [f"{name} after" for name in reversed(names)]


async def test_event_failures_pass_middlewares_as_a_leaving_consumer(streams: Any) -> None:
    """In pull mode a failed event closes the handler and the middlewares; none of them can retry the handler."""

    async def fail(event: Any) -> None:
        raise ValueError("event")

    retry = RetryMiddleware(attempts=3, wait=tenacity.wait_none())
    mediator = streams.mediator(streams.numbers(), retry, Holds(streams.log), on_event=fail)
    with pytest.raises(ValueError, match="event"):
        await anext(mediator.stream(streams.Count()))
    assert streams.log == ["opened", "closed", "GeneratorExit", "released"]


async def test_the_time_of_a_slow_consumer_does_not_count(streams: Any) -> None:
    """TimeoutMiddleware measures the handler's time in pull mode, not its consumer's."""
    mediator = streams.mediator(streams.numbers(), TimeoutMiddleware(0.05), Around(streams.log, "in"))
    async for _ in mediator.stream(streams.Count()):
        await anyio.sleep(0.03)
    assert streams.log[-1] == "in after"


async def test_a_slow_handler_is_timed_out(streams: Any, consumed: str) -> None:
    """In either mode the consumer is told, and the handler has ended."""

    async def give(handler: Any, request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            streams.log.append("closed")

    async def send(handler: Any, request: Any, results: Any) -> None:
        async with aclosing(give(handler, request)) as given:
            async for item in given:
                await results.send(item)

    handler = streams.sending(send) if consumed == "sent" else streams.yielding(give)
    mediator = streams.mediator(handler, Around(streams.log, "out"), TimeoutMiddleware(0.03), Around(streams.log, "in"))
    async with streams.no_task_left(), _opened(mediator.stream(streams.Count()), consumed) as results:
        assert await anext(results) == 1
        with pytest.raises(HandlerTimeoutError):
            await anext(results)
        assert streams.log[-3:] == ["closed", "in after", "out after"]


async def test_streams_inside_a_middleware(streams: Any) -> None:
    """A plain middleware may consume another stream while its own one is suspended at a result."""
    inner = streams.mediator(streams.numbers(), Around(streams.log, "inner"))
    seen: list[int] = []

    class Reads:
        async def __call__(self, request: Any, handle: Any) -> Any:
            seen.extend([x async for x in inner.stream(streams.Count(upto=2))])
            await handle(request)
            async with inner.stream(streams.Count(upto=2)) as results:
                seen.extend([x async for x in results])

    mediator = streams.mediator(streams.numbers(), Reads(), Around(streams.log, "outer"))
    assert [x async for x in mediator.stream(streams.Count())] == [0, 1, 2]
    assert seen == [0, 1, 0, 1]
