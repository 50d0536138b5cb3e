"""The few patterns of structured concurrency that everything here is built of."""

from __future__ import annotations

import contextvars
import math
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from cqrs.exceptions import StrayCancellationError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_T = TypeVar("_T")


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


async def run_protected(work: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Await ``work()`` so that no cancellation can tear it, for at most ``seconds``.

    It runs in a child task, inside a shield. A shield alone does not stop native cancellation on asyncio
    (``task.cancel()``, ``asyncio.timeout``); that reaches the task that waits here, any number of times, and
    the child goes on. When it has ended, the cancellation is raised here, or at the next checkpoint.

    :raises TimeoutError: the time was over, and the work has been cancelled.
    :raises Exception: what the work raised.
    """
    outcome: list[_T] = []
    failures: list[BaseException] = []

    async def child() -> None:
        try:
            with anyio.fail_after(seconds, shield=True):
                outcome.append(await nobodys_cancellation_fails(work))
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as failure:  # noqa: BLE001  # raised by the task that waits
            failures.append(failure)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child)
    raise_failures(failures, "protected work failed")
    return outcome[0]


async def nobodys_cancellation_fails(work: Callable[[], Awaitable[_T]]) -> _T:
    """Await ``work()`` in a task of its own: a cancellation that no cancel scope asked for is a failure.

    On asyncio, whoever awaits a future that somebody else has cancelled raises CancelledError. Out of a child task a
    task group takes that for a cancellation of its own, and ends as if all were well.

    :raises StrayCancellationError: the work raised such a cancellation.
    """
    try:
        return await work()
    except anyio.get_cancelled_exc_class() as cancellation:
        if anyio.current_effective_deadline() == -math.inf:
            raise
        raise StrayCancellationError from cancellation


def is_being_cancelled(error: BaseException) -> bool:
    """Whether the task that runs is to be cancelled, by a scope or natively, now that it has raised ``error``."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    # Looked up, not imported: where asyncio has not been loaded nobody can have cancelled a task of it.
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        task: Any = asyncio.current_task()
    except RuntimeError:
        return False  # there is no such task on trio
    if hasattr(task, "cancelling"):
        return bool(task.cancelling())
    return _follows_from(error, asyncio.CancelledError)  # Python 3.10 does not count


def _follows_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__context__
    return False


_NEVER = object()


@types.coroutine
def drive(
    coroutine: Coroutine[Any, Any, None],
    *,
    send: object = None,
    until: object = _NEVER,
    context: contextvars.Context | None = None,
    on_suspend: Callable[[], None] | None = None,
) -> Generator[Any, Any, bool]:
    """Await ``coroutine`` in this task: to its end (True), or until it yields ``until`` (False).

    What else it yields goes to the event loop, and what the event loop sends or throws goes to it:
    neither side can tell the difference.

    :param send: sent to the coroutine first, where it is suspended at ``until``.
    :param context: what the coroutine runs in; by default the context of this task.
    :param on_suspend: called each time the coroutine suspends.
    """
    answer: Any = send
    thrown: BaseException | None = None
    try:
        while True:
            # Thrown outside of the handler: inside, what the coroutine raises would get ``thrown`` as its
            # context, and anyio takes a native cancellation with such a context for one of its own.
            run = coroutine.send if thrown is None else coroutine.throw
            value = answer if thrown is None else thrown
            trap = run(value) if context is None else context.run(run, value)
            answer = thrown = None
            if trap is until:
                return False
            if on_suspend is not None:
                on_suspend()
            try:
                answer = yield trap
            except BaseException as error:  # noqa: BLE001  # handed on, GeneratorExit and cancellation alike
                thrown = error
    except StopIteration:
        return True
    finally:
        del thrown  # it refers to this frame
