"""How a bound streaming handler becomes a stream: resolved, in a scope, inside middlewares, with a fallback.

The counterpart of :mod:`cqrs._invocation`. A stream is pulled: an async iterator that advances in the
consumer's task. A handler that sends its results is pushed: a coroutine that runs in a task of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

import anyio
from anyio.abc import ObjectSendStream

from cqrs._concurrency import raise_failures
from cqrs._fallback import FallbackPolicy, falls_back, guarded, run_with_fallback
from cqrs.container.protocol import Resolver
from cqrs.container.scope import CLEANUP_TIMEOUT, DispatchScope, check_opens_scopes, is_scoped, needs_scope
from cqrs.events.event import IEvent
from cqrs.events.event_source import (
    EventRelay,
    RecordsEvents,
    discard_events,
    forget_published,
    origin_of,
    unpublished,
)
from cqrs.middlewares._streaming import StartOnce, close_stream, wrap_stream
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests._binding import is_sending_handler

Publish = Callable[[Sequence[IEvent]], Awaitable[None]]
"""Handles events before the result that they belong to is handed out."""


class StreamInvocation(Protocol):
    """Streams the results of one request; ``events`` is what was recorded and not taken yet."""

    @property
    def events(self) -> Sequence[IEvent]: ...
    def handle(self, request: Any, /) -> AsyncIterator[Any]: ...


class StreamPlan(Protocol):
    """How requests of one type are streamed."""

    @property
    def is_push(self) -> bool:
        """Whether a handler in it sends its results, so that it needs a task of its own."""
        ...

    async def acquire(self, resolver: Resolver, /) -> StreamInvocation:
        """The stream to pull."""
        ...

    async def push(self, resolver: Resolver, request: Any, results: ResultSink) -> None:
        """Send all results into ``results``."""
        ...


class ResultSink:
    """Where results are pushed to: their events are handled first."""

    def __init__(self, results: ObjectSendStream[Any], publish: Publish) -> None:
        self._results = results
        self._publish = publish
        self._publishing = anyio.Lock(fast_acquire=True)
        self._publish_errors: list[Exception] = []
        self.sent: int = 0

    async def send(self, item: Any, handler: RecordsEvents) -> None:
        """Handle the events of ``handler``, then hand ``item`` out."""
        self.sent += 1
        await self.flush(handler)
        await self._results.send(item)

    async def flush(self, handler: RecordsEvents) -> None:
        """Handle the events of ``handler``, also those that another task is handling, which may be this item's."""
        events = take_stream_events(handler)
        if events or self._publishing.locked():
            async with self._publishing:
                await self._publish_events(events)

    async def _publish_events(self, events: Sequence[IEvent]) -> None:
        try:
            if events:
                await self._publish(events)
        except Exception as error:
            self._publish_errors.append(error)
            raise

    def is_of_events(self, error: BaseException) -> bool:
        """Whether ``error`` is a failure in the handling of events, or a group with one in it."""
        parts: Sequence[BaseException] = getattr(error, "exceptions", ())
        return any(error is known for known in self._publish_errors) or any(map(self.is_of_events, parts))


class _HandlerResults(ObjectSendStream[Any]):
    """The stream that a sending handler is given."""

    def __init__(self, sink: ResultSink, handler: RecordsEvents) -> None:
        self._sink = sink
        self._handler = handler

    async def send(self, item: Any) -> None:
        await self._sink.send(item, self._handler)

    async def send_eof(self) -> None:
        """Nothing to do: the stream ends when the handler returns."""

    async def aclose(self) -> None:
        """Nothing to do: the stream ends when the handler returns."""


def take_stream_events(handler: RecordsEvents) -> Sequence[IEvent]:
    """The events of ``handler`` that were not taken before; it is told that it may forget them."""
    recorded = handler.events
    if not recorded:
        return ()
    events = unpublished(handler, recorded)
    origin = origin_of(handler)
    clear: Callable[[], None] | None = getattr(origin, "clear_events", None)
    if clear is not None:
        clear()
        forget_published(origin)
    return events


class ClosedEarly:
    """``async with ClosedEarly(items)``: closes a stream that is left before its end, in the task that leaves.

    Closing is shielded from cancellation by a scope, and bounded by ``CLEANUP_TIMEOUT``.
    """

    __slots__ = ("_items",)

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    async def __aenter__(self) -> AsyncIterator[Any]:
        return self._items

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
                await close_stream(self._items)


class StreamHandlerPlan:
    """One streaming handler."""

    def __init__(self, handler_type: type[Any]) -> None:
        self.handler_type = handler_type
        self.is_push = is_sending_handler(handler_type)

    async def acquire(self, resolver: Resolver, /) -> StreamInvocation:
        """The handler."""
        handler: Any = await resolver.resolve(self.handler_type)
        return handler  # type: ignore[no-any-return]  # a streaming handler is an invocation

    async def push(self, resolver: Resolver, request: Any, results: ResultSink) -> None:
        """Run the handler and send what it gives."""
        handler: Any = await resolver.resolve(self.handler_type)
        try:
            await self._run(handler, request, _HandlerResults(results, handler))
        except BaseException:
            discard_events(handler)
            raise
        await results.flush(handler)

    async def _run(self, handler: Any, request: Any, outlet: _HandlerResults) -> None:
        if self.is_push:
            await handler.handle(request, outlet)
            return
        async with ClosedEarly(handler.handle(request)) as items:
            async for item in items:
                await outlet.send(item)


class ScopedStreamPlan:
    """A plan whose handler is resolved in a scope of its own, open as long as the stream."""

    def __init__(self, plan: StreamHandlerPlan, container: Any) -> None:
        self._plan = plan
        self._container = container

    @property
    def is_push(self) -> bool:
        """Whether the handler sends its results."""
        return self._plan.is_push

    async def acquire(self, resolver: Resolver, /) -> StreamInvocation:
        """The stream; a scope is opened when it starts. A resolver that is a scope already is used as it is."""
        return _ScopedStream(self._plan, resolver) if self._opens(resolver) else await self._plan.acquire(resolver)

    async def push(self, resolver: Resolver, request: Any, results: ResultSink) -> None:
        """Run the handler in a scope."""
        if not self._opens(resolver):
            await self._plan.push(resolver, request, results)
            return
        async with DispatchScope(resolver) as scope:
            await self._plan.push(scope, request, results)

    def _opens(self, resolver: Resolver) -> bool:
        return resolver is self._container and needs_scope(resolver, self._plan.handler_type)


class WrappedStreamPlan:
    """A plan inside middlewares. It is acquired anew each time they call on: a retry has its own handler and scope."""

    def __init__(self, plan: StreamPlan, middlewares: MiddlewareChain) -> None:
        self._plan = plan
        self._middlewares = middlewares

    @property
    def is_push(self) -> bool:
        """Whether the handler sends its results."""
        return self._plan.is_push

    async def acquire(self, resolver: Resolver, /) -> StreamInvocation:
        """The stream; what it wraps is acquired when it starts."""
        return _WrappedStream(self._plan, resolver, self._middlewares)

    async def push(self, resolver: Resolver, request: Any, results: ResultSink) -> None:
        """Run the plan inside the middlewares."""
        start, sent_before = StartOnce(), results.sent

        async def attempt(request: Any) -> None:
            start.check()
            try:
                await self._plan.push(resolver, request, results)
            except BaseException as error:
                start.has_given = results.sent > sent_before
                start.failed(error)
                raise

        await self._middlewares.wrap(attempt)(request)


class FallbackStreamPlan:
    """A stream and another to fall back on."""

    def __init__(self, policy: FallbackPolicy, primary: StreamPlan, fallback: StreamPlan, container: Resolver) -> None:
        self._container = container
        self._policy = policy
        self._primary = primary
        self._fallback = fallback

    @property
    def is_push(self) -> bool:
        """Whether one of the two sends its results."""
        return self._primary.is_push or self._fallback.is_push

    async def acquire(self, resolver: Resolver, /) -> StreamInvocation:
        """The stream of the primary, which goes on with that of the fallback when it fails."""
        check_opens_scopes(resolver, self._container)
        return _StreamWithFallback(self._policy, self._primary, self._fallback, resolver)

    async def push(self, resolver: Resolver, request: Any, results: ResultSink) -> None:
        """Run the primary, and the fallback when it fails. A failure in the handling of events is none of it."""
        check_opens_scopes(resolver, self._container)
        failures: list[Exception] = []

        async def primary() -> None:
            try:
                await self._primary.push(resolver, request, results)
            except Exception as error:
                if not results.is_of_events(error):
                    raise
                failures.append(error)

        async def fallback() -> None:
            await self._fallback.push(resolver, request, results)

        await run_with_fallback(self._policy, primary, fallback)
        raise_failures(failures, "")


def stream_plan(handler_type: type[Any], container: Resolver, middlewares: MiddlewareChain) -> StreamPlan:
    """The plan for one streaming handler, in a scope of ``container`` where it has scopes."""
    plan = StreamHandlerPlan(handler_type)
    scoped: StreamPlan = ScopedStreamPlan(plan, container) if is_scoped(container) else plan
    return WrappedStreamPlan(scoped, middlewares) if middlewares else scoped


class _RelayedStream(EventRelay):
    """A stream in front of another one, whose events it relays."""

    _inner: Any = None

    @property
    def events(self) -> Sequence[IEvent]:
        return () if self._inner is None else self._inner.events

    @property
    def origin(self) -> Any:
        return self._inner


class _WrappedStream(_RelayedStream):
    """A streaming handler inside middlewares."""

    def __init__(self, plan: StreamPlan, resolver: Resolver, middlewares: MiddlewareChain) -> None:
        self._plan = plan
        self._resolver = resolver
        self._middlewares = middlewares

    def handle(self, request: Any, /) -> AsyncIterator[Any]:
        return wrap_stream(self._middlewares, self._attempt)(request)

    async def _attempt(self, request: Any) -> AsyncGenerator[Any, None]:
        self._inner = await self._plan.acquire(self._resolver)
        try:
            async with ClosedEarly(self._inner.handle(request)) as items:
                async for item in items:
                    yield item
        except BaseException:
            discard_events(self._inner)
            raise


class _ScopedStream(_RelayedStream):
    """A streaming handler in a scope."""

    def __init__(self, plan: StreamHandlerPlan, container: Resolver) -> None:
        self._plan = plan
        self._container = container

    async def handle(self, request: Any, /) -> AsyncGenerator[Any, None]:
        async with DispatchScope(self._container) as resolver:
            self._inner = await self._plan.acquire(resolver)
            async with ClosedEarly(self._inner.handle(request)) as items:
                async for item in items:
                    yield item


class _StreamWithFallback(_RelayedStream):
    """The stream of the primary, then, where it fails, that of the fallback.

    The circuit breaker guards the start of the primary, and is told of a success when the stream ends, or of
    a failure when it fails. No call of it is held while the consumer has a result.
    """

    def __init__(self, policy: FallbackPolicy, primary: StreamPlan, fallback: StreamPlan, resolver: Resolver) -> None:
        self._policy = policy
        self._primary = primary
        self._fallback = fallback
        self._resolver = resolver

    async def handle(self, request: Any, /) -> AsyncGenerator[Any, None]:
        try:
            async with ClosedEarly(await self._start(self._primary, request)) as items:
                item = await self._first(items)
                while item is not _END:
                    yield item
                    item = await self._following(items)
            return
        except Exception as error:  # raised again where the policy says so
            discard_events(self)
            if not falls_back(self._policy, error):
                raise
            async with ClosedEarly(await self._start(self._fallback, request)) as items:
                async for item in items:
                    yield item

    async def _start(self, plan: StreamPlan, request: Any) -> AsyncIterator[Any]:
        self._inner = await plan.acquire(self._resolver)
        items: AsyncIterator[Any] = self._inner.handle(request)
        return items

    async def _first(self, items: AsyncIterator[Any]) -> Any:
        async def first() -> Any:
            item = await _next(items)
            if item is not _END and self._policy.circuit_breaker is not None:
                raise _HasBegun(item)
            return item

        try:
            return await guarded(self._policy, first)
        except BaseException as error:
            begun = _begun_in(error)
            if begun is None:
                raise
            return begun.item

    async def _following(self, items: AsyncIterator[Any]) -> Any:
        try:
            item = await _next(items)
        except Exception as error:
            await self._report(_failing(error))
            raise
        if item is _END:
            await self._report(_succeeding)
        return item

    async def _report(self, outcome: Callable[[], Awaitable[None]]) -> None:
        # What the breaker makes of it, such as that the circuit is open by now, is not how the stream ends.
        with suppress(Exception):
            await guarded(self._policy, outcome)


class _HasBegun(BaseException):
    """Leaves a breaker's call as a cancellation does, neither a success nor a failure: the stream goes on."""

    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = item


def _begun_in(error: BaseException) -> _HasBegun | None:
    """What left the breaker's call, also where that runs in a task group."""
    if isinstance(error, _HasBegun):
        return error
    parts: Sequence[BaseException] = getattr(error, "exceptions", ())
    return _begun_in(parts[0]) if len(parts) == 1 else None


_END: Any = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await items.__anext__()
    except StopAsyncIteration:
        return _END


async def _succeeding() -> None:
    pass


def _failing(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail
