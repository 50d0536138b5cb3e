"""Middlewares: code around every handler."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from typing_extensions import TypeVar

from cqrs.exceptions import MiddlewareTypeError

MessageT = TypeVar("MessageT", contravariant=True, default=Any)
"""What a middleware is given: a request, an event or a saga context."""

ResultT = TypeVar("ResultT", covariant=True, default=Any)
"""What a middleware returns."""

HandleType: TypeAlias = Callable[[Any], Awaitable[Any]]
"""The rest of the pipeline: the next middleware, or the handler."""

StreamHandleType: TypeAlias = Callable[[Any], AsyncIterator[Any]]
"""The rest of the pipeline of a stream."""


class Middleware(Protocol[MessageT, ResultT]):
    """An async callable around a handler.

    It runs around request, chain, streaming, event and saga step handlers alike. Around a stream,
    ``await handle(request)`` returns None when the stream has ended.
    """

    async def __call__(self, request: MessageT, handle: HandleType) -> ResultT | None:
        """Do something, call ``await handle(request)``, do something, and return the response."""
        raise NotImplementedError


@runtime_checkable
class StreamMiddleware(Protocol):
    """A middleware that treats streams in a way of its own.

    Needed by middlewares that hold a task group or a cancel scope: in pull mode a stream hands out
    its results inside ``__call__``, and none may be held there (https://peps.python.org/pep-0789/).
    """

    def stream(self, request: Any, handle: StreamHandleType) -> AsyncIterator[Any]:
        """An async generator that yields what ``handle(request)`` yields, and closes it."""
        ...


class MiddlewareChain:
    """Middlewares in order, the first one outermost."""

    def __init__(self) -> None:
        self._chain: list[Middleware[Any, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._chain)

    @property
    def middlewares(self) -> Sequence[Middleware[Any, Any]]:
        """The middlewares, the outermost first."""
        return tuple(self._chain)

    def set(self, chain: Iterable[Middleware[Any, Any]]) -> None:
        """Replace all middlewares by ``chain``.

        :raises MiddlewareTypeError: one of them is not an async callable.
        """
        self._chain = [_checked(middleware) for middleware in chain]

    def add(self, middleware: Middleware[Any, Any]) -> None:
        """Put ``middleware`` innermost. To be done before the first dispatch.

        :raises MiddlewareTypeError: it is not an async callable.
        """
        self._chain.append(_checked(middleware))

    def wrap(self, handle: HandleType) -> HandleType:
        """``handle`` with all middlewares around it."""
        for middleware in reversed(self._chain):
            handle = _around(middleware, handle)
        return handle


def _around(middleware: Middleware[Any, Any], handle: HandleType) -> HandleType:
    def wrapped(request: Any) -> Awaitable[Any]:
        return call_middleware(middleware, request, handle)

    return wrapped


def call_middleware(middleware: Any, request: Any, handle: HandleType) -> Awaitable[Any]:
    """What ``middleware`` is to be awaited for.

    :raises MiddlewareTypeError: it returned something that cannot be awaited.
    """
    called = middleware(request, handle)
    if not hasattr(called, "__await__"):
        raise MiddlewareTypeError(
            f"{_name(middleware)} is not async: write 'async def', or return what 'handle(request)' returns."
        )
    awaitable: Awaitable[Any] = called
    return awaitable


class _ByKeyword:
    """A middleware that takes ``handle`` by its name alone."""

    def __init__(self, middleware: Any) -> None:
        self._middleware = middleware

    async def __call__(self, request: Any, handle: HandleType) -> Any:
        return await self._middleware(request, handle=handle)


def _checked(middleware: Any) -> Any:
    if isinstance(middleware, type):
        raise MiddlewareTypeError(
            f"{middleware.__qualname__} is a class, not a middleware: pass an instance, {middleware.__qualname__}(...)."
        )
    if not callable(middleware):
        raise MiddlewareTypeError(
            f"{type(middleware).__qualname__} is not callable: a middleware is an object with "
            f"'async def __call__(self, request, handle)'."
        )
    call: Any = middleware if inspect.isroutine(middleware) else type(middleware).__call__
    if "handle" in _keyword_only(call):
        return _ByKeyword(middleware)
    return middleware


def _keyword_only(call: Any) -> Sequence[str]:
    code = getattr(inspect.unwrap(call), "__code__", None)
    if code is None:
        return ()
    names: Sequence[str] = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return names


def _name(middleware: object) -> str:
    name: str = getattr(middleware, "__qualname__", type(middleware).__qualname__)
    return name
