"""The results of a streaming request, pulled by the consumer or sent to it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Protocol

import anyio
from anyio import CancelScope, EndOfStream, WouldBlock, create_memory_object_stream
from anyio.abc import ObjectSendStream, TaskGroup
from typing_extensions import Self, TypeVar

from cqrs._concurrency import SingleErrorTaskGroup, raise_failures
from cqrs._stream_invocation import ClosedEarly
from cqrs.container.scope import CLEANUP_TIMEOUT
from cqrs.exceptions import StreamUsageError, name_of

_ResultT = TypeVar("_ResultT")
_logger = logging.getLogger("cqrs")
_BOTH_FAILED = "a stream and its consumer failed"


class ResultSource(Protocol):
    """Makes the results of one request."""

    @property
    def is_push(self) -> bool:
        """Whether the handler sends its results, so that it needs a task of its own."""
        ...

    def pull(self) -> AsyncGenerator[Any, None]:
        """The results, made in the task that asks for them."""
        ...

    async def push(self, results: ObjectSendStream[Any]) -> None:
        """Send all results into ``results``."""
        ...


class StreamHome:
    """A task group in which streams end that were left and not closed, and in which sending handlers run."""

    def __init__(self) -> None:
        self._tasks: TaskGroup | None = None
        self._thread = 0
        self._strays: deque[AsyncGenerator[Any, None]] = deque()

    @property
    def is_open(self) -> bool:
        """Whether it has been entered and not left."""
        return self._tasks is not None

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise StreamUsageError("This mediator has been entered already: enter it once, around the application.")
        tasks = anyio.create_task_group()
        self._tasks = await tasks.__aenter__()
        self._thread = threading.get_ident()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return None
        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            await self._end_strays()
        tasks.cancel_scope.cancel()
        return await tasks.__aexit__(exc_type, exc, traceback)

    def adopt(self, items: AsyncGenerator[Any, None]) -> None:
        """End ``items`` in a task, at once; where the garbage collector runs in another thread, later."""
        self._strays.append(items)
        if self._tasks is not None and threading.get_ident() == self._thread:
            self._tasks.start_soon(self._end_strays_shielded)

    def start(self, pipe: _Pipe, request_type: type[Any]) -> None:
        """Run the sending side of ``pipe``.

        :raises StreamUsageError: this has not been entered.
        """
        if self._tasks is None:
            raise StreamUsageError(
                f"The handler of {name_of(request_type)} sends its results from a task of its own: consume them "
                f"with 'async with mediator.stream(request) as results', or enter the mediator first."
            )
        self._tasks.start_soon(pipe.run)

    async def _end_strays_shielded(self) -> None:
        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            await self._end_strays()

    async def _end_strays(self) -> None:
        while self._strays:
            await _end(self._strays.popleft())


async def _end(items: AsyncGenerator[Any, None]) -> None:
    try:
        await items.aclose()
    except Exception:
        _logger.exception("A stream that had been left failed while it was closed")


class ResultStream(AbstractAsyncContextManager["ResultStream[Any]"], AsyncIterator[_ResultT], Generic[_ResultT]):
    """The results of a streaming request. It is consumed once, in one of two ways.

    ``async for result in stream``: pull mode. The handler advances in the consumer's task, one result at
    a time. ``break`` leaves it suspended: close it with ``aclose()``, or enter the mediator, which
    then ends it in a task of its own. Otherwise the event loop's hooks for async generators do.

    ``async with stream as results``: pipelined mode. The handler runs in a task, at most
    ``max_buffer_size`` results ahead. When the block is left, however that happens, the handler has ended.

    A handler's failure comes to the consumer in the place of the next result. In pipelined mode, a failure
    that the consumer did not get to see is raised at the end of the block.
    """

    def __init__(self, source: ResultSource, request_type: type[Any], max_buffer_size: float, home: StreamHome) -> None:
        self._source = source
        self._request_type = request_type
        self._max_buffer_size = max_buffer_size
        self._home = home
        self._items: AsyncGenerator[_ResultT, None] | None = None
        self._pipe: _Pipe | None = None
        self._tasks: SingleErrorTaskGroup | None = None
        self._is_used = False

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[_ResultT]:
        if self._items is not None:
            return self._items.__anext__()
        if self._pipe is not None:
            return self._pipe.receive()
        return self._start()

    async def _start(self) -> _ResultT:
        self._use()
        if not self._source.is_push:
            self._items = self._source.pull()
            return await self._items.__anext__()
        self._pipe = _Pipe(self._source, self._max_buffer_size)
        self._home.start(self._pipe, self._request_type)
        result: _ResultT = await self._pipe.receive()
        return result

    async def aclose(self) -> None:
        """End the stream: the handler is closed or cancelled, and has ended when this returns.

        Shielded from cancellation by a scope, and bounded by 30 seconds.
        """
        self._is_used = True
        items, self._items = self._items, None
        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            if items is not None:
                await items.aclose()
            if self._pipe is not None and self._tasks is None:
                await self._pipe.stop()

    async def __aenter__(self) -> Self:
        self._use()
        self._pipe = _Pipe(self._source, self._max_buffer_size)
        self._tasks = SingleErrorTaskGroup("several tasks of a stream failed")
        tasks = await self._tasks.__aenter__()
        tasks.start_soon(self._pipe.run)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._tasks is None or self._pipe is None:
            return None
        self._pipe.cancel()
        try:
            suppressed = await self._tasks.__aexit__(exc_type, exc, traceback)
        finally:
            self._pipe.close()
        self._pipe.raise_unseen(exc)
        return suppressed

    def __del__(self) -> None:
        items, pipe = getattr(self, "_items", None), getattr(self, "_pipe", None)
        if items is not None and items.ag_frame is not None and self._home.is_open:
            self._home.adopt(items)
        if pipe is not None:
            pipe.cancel()

    def _use(self) -> None:
        if self._is_used:
            raise StreamUsageError("A result stream is consumed once: call stream() again for another run.")
        self._is_used = True


class _Pipe:
    """A handler that runs in a task, and the memory object stream out of which its results come."""

    def __init__(self, source: ResultSource, max_buffer_size: float) -> None:
        self._source = source
        self._send, self._receive = create_memory_object_stream[Any](max_buffer_size)
        self._scope = CancelScope()
        self._failure: Exception | None = None
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Run the handler; its failure waits for the consumer."""
        try:
            with self._scope, self._send:
                await self._produce()
        except Exception as error:  # noqa: BLE001  # raised on the consumer's side
            self._failure = error
        finally:
            self._ended.set()

    async def _produce(self) -> None:
        if self._source.is_push:
            await self._source.push(self._send)
            return
        async with ClosedEarly(self._source.pull()) as items:
            async for item in items:
                await self._send.send(item)

    async def receive(self) -> Any:
        try:
            return self._receive.receive_nowait()
        except WouldBlock:
            pass
        except EndOfStream:
            await self._finish()
        try:
            return await self._receive.receive()
        except EndOfStream:
            await self._finish()

    async def _finish(self) -> None:
        await self._ended.wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Cancel the handler."""
        self._scope.cancel()

    def close(self) -> None:
        """Close both ends, once the handler has ended."""
        self._send.close()
        self._receive.close()

    async def stop(self) -> None:
        """Cancel the handler and wait for its end."""
        self.cancel()
        await self._ended.wait()
        self.close()

    def raise_unseen(self, body: BaseException | None) -> None:
        """Raise a failure that the consumer has not seen, beside that of its own block."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise_failures([body, failure] if isinstance(body, Exception) else [failure], _BOTH_FAILED)
