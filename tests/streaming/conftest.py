"""What the tests of streams share: handlers made of functions, mediators around them, ways to cancel."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

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

BOUND = 5.0
"""Seconds after which a test that hangs is given up."""


SPINS = 50
"""Turns of the event loop after which tasks that wait for nothing but each other have come to rest."""


class Count(Request):
    upto: int = 3


class Seen(DomainEvent, frozen=True):
    what: Any


class _Recording:
    """Records events in a list, as the documented handlers do."""

    def __init__(self) -> None:
        self.recorded: list[Any] = []
        self.cleared = 0

    @property
    def events(self) -> Sequence[Any]:
        return list(self.recorded)

    def clear_events(self) -> None:
        self.cleared += 1
        self.recorded.clear()

    def record(self, what: Any) -> None:
        self.recorded.append(Seen(what=what))


class Streams:
    """Makes what a test needs, and keeps a log that handlers, event handlers and consumers write to."""

    Count = Count
    Seen = Seen

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.log: list[Any] = []

    def yielding(self, handle: Callable[[Any, Any], AsyncIterator[Any]]) -> type[Any]:
        """A streaming handler out of an async generator function of (self, request)."""
        return type("Yielding", (_Recording, StreamingRequestHandler), {"handle": handle})

    def sending(self, handle: Callable[[Any, Any, Any], Awaitable[None]], kind: type = SendStreamRequestHandler) -> Any:
        """A streaming handler out of a coroutine function of (self, request, results)."""
        return type("Sending", (_Recording, kind), {"handle": handle})

    def numbers(self, *, awaits: bool = True) -> type[Any]:
        """A handler that counts, records an event for each number, and logs its end."""
        log = self.log

        async def handle(handler: Any, request: Count) -> AsyncIterator[int]:
            try:
                for number in range(request.upto):
                    handler.record(number)
                    yield number
            finally:
                if awaits:
                    await anyio.lowlevel.checkpoint()
                    await anyio.lowlevel.checkpoint()
                log.append("closed")

        return self.yielding(handle)

    def mediator(
        self,
        handler: Any,
        *middlewares: Any,
        on_event: Callable[[Any], Awaitable[None]] | None = None,
        container: Any = None,
        **options: Any,
    ) -> StreamingRequestMediator:
        """A mediator of ``handler``; its events go to ``on_event``, by default into the log."""
        log = self.log

        async def write(event: Seen) -> None:
            await anyio.lowlevel.checkpoint()
            log.append(("event", event.what))

        tell = on_event or write

        class OnSeen(EventHandler[Seen]):
            async def handle(self, event: Seen) -> None:
                await tell(event)

        requests, events, chain = RequestMap(), EventMap(), MiddlewareChain()
        requests.bind(Count, handler)
        events.bind(Seen, OnSeen)
        chain.set(middlewares)
        return StreamingRequestMediator(
            requests, container or PlainContainer(), middleware_chain=chain, event_map=events, **options
        )

    @asynccontextmanager
    async def no_task_left(self) -> AsyncIterator[None]:
        """When the block is left, no task runs that did not run before."""
        before = {task.id for task in anyio.get_running_tasks()}
        with anyio.fail_after(BOUND):
            yield
        left: list[str] = []
        for _ in range(SPINS):  # the loop's own hooks for generators may be at work
            left = [task.name or "?" for task in anyio.get_running_tasks() if task.id not in before]
            if not left:
                break
            await anyio.lowlevel.checkpoint()
        assert left == []

    async def cancel(self, way: str, work: Callable[[], Awaitable[Any]], reached: anyio.Event) -> None:
        """Run ``work``, cancel it once it has set ``reached``, and see that it ends by that."""
        with anyio.fail_after(BOUND):
            await _WAYS[self.backend, way](work, reached)

    async def spin(self) -> None:
        """Let the other tasks run until they wait: much faster than ``wait_all_tasks_blocked`` on asyncio."""
        await _spin()

    async def settled(self) -> None:
        """Collect garbage, and let what follows from that run."""
        gc.collect()
        await _spin()


async def _spin() -> None:
    for _ in range(SPINS):
        await anyio.lowlevel.checkpoint()


async def _by_scope(work: Any, reached: anyio.Event) -> None:
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await work()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await reached.wait()
        await _spin()
        scope.cancel()
    assert scope.cancelled_caught


async def _by_deadline(work: Any, reached: anyio.Event) -> None:
    with anyio.move_on_after(0.03) as scope:
        await work()
    assert scope.cancelled_caught
    assert reached.is_set()


async def _by_task_cancel(work: Any, reached: anyio.Event) -> None:
    import asyncio

    task = asyncio.ensure_future(work())
    await reached.wait()
    await _spin()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def _by_asyncio_timeout(work: Any, reached: anyio.Event) -> None:
    import asyncio

    if sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout came with Python 3.11")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await work()
    assert reached.is_set()


async def _by_nursery(work: Any, reached: anyio.Event) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await reached.wait()
        await _spin()
        nursery.cancel_scope.cancel()


async def _by_trio_timeout(work: Any, reached: anyio.Event) -> None:
    import trio

    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(0.03):
            await work()
    assert reached.is_set()


_WAYS: dict[tuple[str, str], Any] = {
    ("asyncio", "scope"): _by_scope,
    ("trio", "scope"): _by_scope,
    ("asyncio", "deadline"): _by_deadline,
    ("trio", "deadline"): _by_deadline,
    ("asyncio", "native"): _by_task_cancel,
    ("trio", "native"): _by_nursery,
    ("asyncio", "native-timeout"): _by_asyncio_timeout,
    ("trio", "native-timeout"): _by_trio_timeout,
}


@pytest.fixture(params=["scope", "deadline", "native", "native-timeout"])
def way(request: pytest.FixtureRequest) -> str:
    """How a consumer is cancelled."""
    name: str = request.param
    return name


@pytest.fixture
def streams(backend_name: str) -> Streams:
    """Handlers, mediators and a log."""
    return Streams(backend_name)


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """What was imported before is left out of the many garbage collections of these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Nothing is complained about by a destructor: no ResourceWarning, no coroutine that was never awaited.

    A test that expects complaints empties the list.
    """
    complaints: list[Any] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: complaints.append((unraisable.exc_value, str(unraisable.object)))
    )
    yield complaints
    gc.collect()
    assert complaints == []
