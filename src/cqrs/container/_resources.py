"""Open resources, closed in reverse order, from none of which an exception can be hidden."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any, TypeVar

T = TypeVar("T")


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
