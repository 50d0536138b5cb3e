"""Open resources, closed in reverse order and in bounded time, from none of which an exception can be hidden."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any, TypeVar

import anyio

from cqrs.exceptions import ScopeCleanupTimeoutError

T = TypeVar("T")

_logger = logging.getLogger("cqrs")


async def close_scope(
    scope: AbstractAsyncContextManager[Any, Any], container: str, error: BaseException | None, seconds: float
) -> None:
    """Leave ``scope``, shielded from cancellation, with ``error`` or without one.

    :param container: the name of the container that the scope belongs to.
    :param seconds: what it may take.
    :raises ScopeCleanupTimeoutError: that was not enough. With an ``error`` it is logged instead.
    """
    failure = (None, None, None) if error is None else (type(error), error, error.__traceback__)
    with anyio.move_on_after(seconds, shield=True) as budget:
        await scope.__aexit__(*failure)
    if not budget.cancelled_caught:
        return
    timeout = ScopeCleanupTimeoutError(container, seconds)
    if error is None:
        raise timeout
    _logger.error("%s", timeout)


class ResourceStack(AsyncExitStack):
    """Open resources, closed in reverse order, each of them told of the exception that ends the scope.

    A resource can replace that exception, as a ``finally`` that raises does, but not hide it: neither
    from the resources below it, which would commit what failed, nor from the caller.
    """

    def enter_context(self, cm: AbstractContextManager[T, Any]) -> T:
        """Open ``cm`` and keep it open until the stack is closed."""
        return super().enter_context(_Outspoken(cm))

    async def enter_async_context(self, cm: AbstractAsyncContextManager[T, Any]) -> T:
        """Open ``cm`` and keep it open until the stack is closed."""
        return await super().enter_async_context(_AsyncOutspoken(cm))


class _Outspoken(AbstractContextManager[T, None]):
    """A context manager that hides no exception."""

    def __init__(self, resource: AbstractContextManager[T, Any]) -> None:
        self._resource: Any = resource

    def __enter__(self) -> T:
        return self._resource.__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *failure: object) -> None:
        self._resource.__exit__(*failure)


class _AsyncOutspoken(AbstractAsyncContextManager[T, None]):
    def __init__(self, resource: AbstractAsyncContextManager[T, Any]) -> None:
        self._resource: Any = resource

    async def __aenter__(self) -> T:
        return await self._resource.__aenter__()  # type: ignore[no-any-return]

    async def __aexit__(self, *failure: object) -> None:
        await self._resource.__aexit__(*failure)
