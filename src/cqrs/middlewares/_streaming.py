"""Middlewares around a stream whose results are pulled, in the consumer's own task."""

from __future__ import annotations

import contextvars
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from typing import Any, TypeGuard

from cqrs._concurrency import drive
from cqrs.exceptions import StreamAlreadyStartedError
from cqrs.middlewares.base import MiddlewareChain, StreamHandleType, StreamMiddleware, call_middleware


def wrap_stream(chain: MiddlewareChain, handle: StreamHandleType) -> StreamHandleType:
    """``handle`` with all middlewares around the whole stream."""
    for middleware in reversed(chain.middlewares):
        handle = _hooked(middleware, handle) if _has_stream_hook(middleware) else _driven(middleware, handle)
    return handle


def _has_stream_hook(middleware: object) -> TypeGuard[StreamMiddleware]:
    # Asked statically: a mock has every attribute that it is asked for.
    return inspect.getattr_static(middleware, "stream", None) is not None


async def close_stream(items: AsyncIterator[Any]) -> None:
    """Close ``items`` where they can be closed."""
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


def _hooked(middleware: StreamMiddleware, handle: StreamHandleType) -> StreamHandleType:
    def around(request: Any) -> AsyncIterator[Any]:
        return middleware.stream(request, handle)

    return around


def _driven(middleware: Any, handle: StreamHandleType) -> StreamHandleType:
    def around(request: Any) -> AsyncIterator[Any]:
        return _pull(middleware, request, handle)

    return around


class StartOnce:
    """A stream may be run again, as a retry does, until its first result is out."""

    __slots__ = ("_failure", "has_given")

    def __init__(self) -> None:
        self.has_given = False
        self._failure: BaseException | None = None

    def check(self) -> None:
        """:raises StreamAlreadyStartedError: results are out; what failed then is the cause."""
        if self.has_given and self._failure is not None:
            raise StreamAlreadyStartedError(
                "Results of this stream were handed out, so its handler cannot be run again."
            ) from self._failure

    def failed(self, error: BaseException) -> None:
        """Remember what ended the run."""
        self._failure = error


class _Rest:
    """The rest of the pipeline as a plain middleware calls it: returns None when the stream has ended."""

    def __init__(self, handle: StreamHandleType, outlet: _Outlet) -> None:
        self._handle = handle
        self._outlet = outlet

    async def __call__(self, request: Any) -> None:
        self._outlet.start.check()
        items = self._handle(request)
        try:
            async for item in items:
                await self._outlet.give(item)
        except BaseException as error:
            self._outlet.start.failed(error)
            await close_stream(items)
            raise


class _Mark:
    """Awaited when a result is let out: passes every ``await`` on the way to the one who drives the coroutine.

    An error that is sent back is raised here, innermost. GeneratorExit thrown into the outermost coroutine would
    close those inside it, and none of them could await anything in its clean-up.
    """

    def __await__(self) -> Generator[Any, BaseException | None, None]:
        error = yield self
        if error is not None:
            raise error


class _Outlet:
    """Where a middleware that is suspended in ``await handle(request)`` lets results out."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.start = StartOnce()
        self.mark = _Mark()

    async def give(self, item: Any) -> None:
        self.start.has_given = True
        self.items.append(item)
        await self.mark


async def _pull(middleware: Any, request: Any, handle: StreamHandleType) -> AsyncGenerator[Any, None]:
    """The results of a stream inside a plain middleware, which is driven from here, in the consumer's task."""
    outlet = _Outlet()
    coroutine = _call(middleware, request, _Rest(handle, outlet))
    # Of its own: what a middleware sets in a context variable must not be there between two results.
    context = contextvars.copy_context()
    is_suspended = False
    try:
        while not await drive(coroutine, until=outlet.mark, context=context):
            is_suspended = True
            yield outlet.items.popleft()
            is_suspended = False
    finally:
        if is_suspended:
            await _close(coroutine, outlet.mark, context)


async def _call(middleware: Any, request: Any, rest: _Rest) -> None:
    await call_middleware(middleware, request, rest)


async def _close(coroutine: Coroutine[Any, Any, None], mark: _Mark, context: contextvars.Context) -> None:
    """Tell a coroutine that is suspended at a result that nobody wants more, and run it to its end."""
    try:
        if not await drive(coroutine, send=GeneratorExit(), until=mark, context=context):
            raise RuntimeError("a middleware or streaming handler ignored GeneratorExit")
    except GeneratorExit:
        pass
