"""The results of a streaming request, pulled by the consumer or sent to it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol

import anyio
from anyio import CancelScope, ClosedResourceError, EndOfStream, WouldBlock, create_memory_object_stream
from anyio.abc import ObjectSendStream, TaskGroup
from typing_extensions import Self, TypeVar

from cqrs._concurrency import SingleErrorTaskGroup, nobodys_cancellation_fails, raise_failures
from cqrs.container.scope import CLEANUP_TIMEOUT
from cqrs.exceptions import InvalidOptionError, StreamUsageError, name_of

_ResultT = TypeVar("_ResultT")
_logger = logging.getLogger("cqrs")
_CUT_OFF = (
    "Results of this stream are missing: its handler was ended when the mediator was left. "
    "Let the tasks that read streams end before."
)
_BOTH_FAILED = "a stream and its consumer failed"
_CONSUMED_ONCE = "A result stream is consumed once: call stream() again for another run."


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
        """Send all results into ``results``, in a task of its own."""
        ...


class StreamHome:
    """A task group in which streams end that were left and not closed, and in which sending handlers run."""

    def __init__(self) -> None:
        self._group: SingleErrorTaskGroup | None = None
        self._tasks: TaskGroup | None = None
        self._thread = 0
        self._strays: deque[Callable[[], Awaitable[None]]] = deque()
        self._held: dict[AsyncGenerator[Any, None], weakref.ref[ResultStream[Any]]] = {}

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise StreamUsageError("This mediator has been entered already: enter it once, around the application.")
        self._group = SingleErrorTaskGroup("several tasks of a mediator failed")
        self._tasks = await self._group.__aenter__()
        self._thread = threading.get_ident()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        if tasks is None or self._group is None:
            return None
        self._cut_off_held()
        # In a task: a native cancellation of the one that leaves must not tear it.
        tasks.start_soon(self._end_strays)
        tasks.cancel_scope.cancel()
        return await self._group.__aexit__(exc_type, exc, traceback)

    def _cut_off_held(self) -> None:
        held, self._held = self._held, {}
        for items, stream in held.items():
            # One that runs is waited for by a consumer, in whose task it goes on.
            if _is_running(items) or _is_over(items):
                continue
            self._strays.append(items.aclose)
            if (consumed := stream()) is not None:
                consumed.cut_off()

    def hold(self, items: AsyncGenerator[Any, None], stream: ResultStream[Any]) -> None:
        """Keep the ``items`` of ``stream`` alive until they are released.

        Were they in a cycle of garbage, the event loop would close them too, each generator in them in a task.
        """
        if self._tasks is not None:
            self._held[items] = weakref.ref(stream)

    def forget(self, items: AsyncGenerator[Any, None]) -> None:
        """Hold ``items`` no longer."""
        self._held.pop(items, None)

    def release(self, items: AsyncGenerator[Any, None]) -> None:
        """Nobody will ask for more of ``items``: end them where they have not ended."""
        self.forget(items)
        if self._tasks is not None and not _is_over(items):
            self.adopt(items.aclose)

    def adopt(self, end: Callable[[], Awaitable[None]]) -> None:
        """Call ``end`` in a task, at once; where the garbage collector runs in another thread, later."""
        self._strays.append(end)
        if self._tasks is not None and threading.get_ident() == self._thread:
            with suppress(RuntimeError):  # collected while the event loop is not running
                self._tasks.start_soon(self._end_strays)

    def check_is_open(self, request_type: type[Any]) -> None:
        """:raises StreamUsageError: it is not open, and a handler of ``request_type`` would run in it."""
        if self._tasks is None:
            raise StreamUsageError(
                f"The handler of {name_of(request_type)} sends its results from a task of its own: consume them "
                f"with 'async with mediator.stream(request) as results', or enter the mediator first."
            )

    def start(self, pipe: _Pipe) -> None:
        """Run the sending side of ``pipe``."""
        if self._tasks is not None:
            self._tasks.start_soon(pipe.run)

    async def _end_strays(self) -> None:
        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            while self._strays:
                await _end(self._strays.popleft())


async def _end(end: Callable[[], Awaitable[None]]) -> None:
    try:
        await end()
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
        if not max_buffer_size >= 0:
            raise InvalidOptionError("max_buffer_size", max_buffer_size, "a number of results, or math.inf")
        self._max_buffer_size = max_buffer_size
        self._home = home
        self._items: AsyncGenerator[_ResultT, None] | None = None
        self._pipe: _Pipe | None = None
        self._tasks: SingleErrorTaskGroup | None = None
        self._is_used = self._is_cut_off = False

    def __aiter__(self) -> Self:
        if self._items is not None and _is_over(self._items):
            raise StreamUsageError(_CONSUMED_ONCE)
        return self

    def __anext__(self) -> Awaitable[_ResultT]:
        if self._items is not None:
            return self._items.__anext__()
        if self._pipe is not None:
            return self._pipe.receive()
        return self._start()

    async def _start(self) -> _ResultT:
        if self._source.is_push and not self._is_used:
            self._home.check_is_open(self._request_type)
        self._use()
        if not self._source.is_push:
            self._items = self._source.pull()
            self._home.hold(self._items, self)
            return await self._items.__anext__()
        self._pipe = _Pipe(self._source, self._max_buffer_size)
        self._home.start(self._pipe)
        result: _ResultT = await self._pipe.receive()
        return result

    async def aclose(self) -> None:
        """End the stream: the handler is closed or cancelled, and has ended when this returns.

        Shielded from cancellation by a scope, and bounded by 30 seconds.

        :raises Exception: what the handler raised while it ended, and before that what nobody saw. Inside
            of an ``async with`` block of this stream, the end of the block raises it.
        """
        self._is_used = True
        items, self._items = self._items, None
        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            if items is not None:
                self._home.forget(items)
                await items.aclose()
            if self._pipe is not None:
                await self._pipe.stop()
        if self._pipe is not None and self._tasks is None:
            self._pipe.raise_unseen(None)

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
        except BaseException as error:
            self._pipe.raise_unseen(error)
            raise
        finally:
            self._pipe.close()
        self._pipe.raise_unseen(None)
        return suppressed

    def __del__(self) -> None:
        items, pipe = getattr(self, "_items", None), getattr(self, "_pipe", None)
        if items is not None:
            self._home.release(items)
        if pipe is not None and self._tasks is None:
            self._leave(pipe)

    def _leave(self, pipe: _Pipe) -> None:
        # Not ended, it may only be touched in the event loop's thread.
        if pipe.has_ended:
            pipe.close()
        else:
            self._home.adopt(pipe.end)

    def cut_off(self) -> None:
        """Give no more results: the mediator was left, and the handler with it."""
        self._items = None
        self._is_cut_off = True

    def _use(self) -> None:
        if self._is_cut_off:
            raise StreamUsageError(_CUT_OFF)
        if self._is_used:
            raise StreamUsageError(_CONSUMED_ONCE)
        self._is_used = True


def _is_running(items: Any) -> bool:
    is_running: bool = items.ag_running
    return is_running


def _is_over(items: Any) -> bool:
    return items.ag_frame is None


class _Pipe:
    """A handler that runs in a task, and the memory object stream out of which its results come."""

    def __init__(self, source: ResultSource, max_buffer_size: float) -> None:
        self._source = source
        self._send, self._receive = create_memory_object_stream[Any](max_buffer_size)
        self._scope = CancelScope()
        self._failure: Exception | None = None
        self._is_cut_off = False
        self._is_closed = False
        self._ended = anyio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether the handler has ended."""
        return self._ended.is_set()

    async def run(self) -> None:
        """Run the handler; its failure waits for the consumer."""
        try:
            with self._scope, self._send:
                await nobodys_cancellation_fails(lambda: self._source.push(self._send))
        except StopAsyncIteration as end:
            # It would end the consumer's loop as if all were well (https://peps.python.org/pep-0479/).
            self._failure = RuntimeError("a handler raised StopAsyncIteration")
            self._failure.__cause__ = end
        except Exception as error:  # noqa: BLE001  # raised on the consumer's side
            self._failure = error
        except BaseException:
            self._is_cut_off = True
            raise
        finally:
            self._ended.set()

    async def receive(self) -> Any:
        """The next result; StopAsyncIteration, or the handler's failure, after the last one."""
        if self._is_closed:
            raise StreamUsageError(_CONSUMED_ONCE)
        try:
            with suppress(WouldBlock):
                return self._receive.receive_nowait()
            return await self._receive.receive()
        except (EndOfStream, ClosedResourceError):
            pass
        return await self._finish()

    async def _finish(self) -> NoReturn:
        await self._ended.wait()
        self._receive.close()
        self.raise_unseen(None)
        if self._is_cut_off:
            raise StreamUsageError(_CUT_OFF)
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Cancel the handler."""
        self._scope.cancel()

    def close(self) -> None:
        """Close both ends, once the handler has ended."""
        self._is_closed = True
        self._send.close()
        self._receive.close()

    async def stop(self) -> None:
        """Cancel the handler and wait for its end."""
        self.cancel()
        await self._ended.wait()
        self.close()

    async def end(self) -> None:
        """:meth:`stop`, then raise a failure that nobody has seen."""
        await self.stop()
        self.raise_unseen(None)

    def raise_unseen(self, body: BaseException | None) -> None:
        """Raise a failure that the consumer has not seen, beside that of its own block."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise_failures([body, failure] if isinstance(body, Exception) else [failure], _BOTH_FAILED)
