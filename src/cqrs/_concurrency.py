"""The few patterns of structured concurrency that everything here is built of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_T = TypeVar("_T")
_NEVER = object()


class SingleErrorTaskGroup:
    """A task group out of which one failure leaves as itself, and several as an ``ExceptionGroup``.

    Only the group that this task group makes is looked into: a group that a task raised is one failure.
    """

    __slots__ = ("_group", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._group.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            failures = _without_cancellations(group.exceptions)
        raise_failures(failures, self._message)
        return None


def _without_cancellations(failures: tuple[BaseException, ...]) -> tuple[BaseException, ...]:
    # What a task raises while it is cancelled replaces its cancellation; trio keeps those of the others beside it.
    cancelled = anyio.get_cancelled_exc_class()
    return tuple(failure for failure in failures if not isinstance(failure, cancelled)) or failures


def raise_failures(failures: Any, message: str) -> None:
    """Raise nothing, the one failure as itself, or an ``ExceptionGroup`` of several."""
    if len(failures) == 1:
        failure: BaseException = failures[0]
        # ``raise`` would put whatever is handled now in place of the failure's own context.
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context
            del failure, failures
    if failures:
        raise BaseExceptionGroup(message, failures)


class Watched(Generic[_T]):
    """Awaits a coroutine in the same task and calls ``on_suspend`` when it suspends for the first time."""

    __slots__ = ("_coroutine", "_on_suspend")

    def __init__(self, coroutine: Coroutine[Any, Any, _T], on_suspend: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_suspend = on_suspend

    def __await__(self) -> Generator[Any, Any, _T]:
        result: _T
        _, result = yield from drive(self._coroutine, on_suspend=self._on_suspend)
        return result


def drive(
    coroutine: Coroutine[Any, Any, Any],
    *,
    throw: BaseException | None = None,
    until: object = _NEVER,
    on_suspend: Callable[[], None] | None = None,
) -> Generator[Any, Any, tuple[bool, Any]]:
    """Run ``coroutine`` inside an ``__await__``: to its end (True, its result), or until it yields ``until`` (False).

    What else it yields goes to the event loop, and what the event loop sends or throws goes to it:
    neither side can tell the difference.

    :param throw: raised in the coroutine first.
    :param on_suspend: called when the coroutine suspends for the first time.
    """
    answer: Any = None
    thrown: BaseException | None = None
    try:
        trap = coroutine.send(None) if throw is None else coroutine.throw(throw)
        if on_suspend is not None:
            on_suspend()
        while trap is not until:
            answer, thrown = None, None
            try:
                answer = yield trap
            except BaseException as error:  # noqa: BLE001  # handed on, GeneratorExit and cancellation alike
                thrown = error
            # Thrown outside of the handler: inside, what the coroutine raises would get ``thrown`` as its
            # context, and anyio takes a native cancellation with such a context for one of its own.
            trap = coroutine.send(answer) if thrown is None else coroutine.throw(thrown)
    except StopIteration as finished:
        return True, finished.value
    finally:
        del thrown, throw  # they refer to this frame
    return False, None
