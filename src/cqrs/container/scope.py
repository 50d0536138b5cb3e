"""Scopes: what a handler was given is open while it runs, and closed when it is done."""

from __future__ import annotations

import enum
import logging
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeGuard

import anyio

from cqrs.container.protocol import Resolver, ScopedContainer
from cqrs.exceptions import ConfigurationError, ScopeCleanupTimeoutError

CLEANUP_TIMEOUT = 30.0
"""Seconds that closing a scope may take."""

_logger = logging.getLogger("cqrs")


class ScopeStrategy(enum.Enum):
    """What shares a scope of the container."""

    HANDLER = "handler"
    """Each request handler and each event handler has a scope of its own."""

    SEND = "send"
    """A request and all events that follow from it share one scope. Events are handled one after the other."""


def is_scoped(container: object) -> TypeGuard[ScopedContainer]:
    """Whether ``container`` offers scopes."""
    return isinstance(container, ScopedContainer)


class DispatchScope:
    """``async with DispatchScope(container) as resolver``: a scope of ``container``, or itself where it has none.

    :param opens: False opens no scope, and gives the container itself.

    Leaving is shielded from cancellation by a scope and bounded by ``CLEANUP_TIMEOUT``. It happens in
    the task that entered, as resources that hold a cancel scope need: a native asyncio cancellation can
    interrupt one await of one resource's clean-up, the others are closed all the same. An exception
    passes to the resources, and none of them can suppress it.
    """

    __slots__ = ("_container", "_opens", "_scope")

    def __init__(self, container: Resolver, opens: bool = True) -> None:
        self._container = container
        self._opens = opens
        self._scope: AbstractAsyncContextManager[Resolver] | None = None

    async def __aenter__(self) -> Resolver:
        if not self._opens or not is_scoped(self._container):
            return self._container
        self._scope = self._container.scope()
        resolver: Any = await self._scope.__aenter__()
        return _Entered(resolver) if resolver is self._container else resolver

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._scope is None:
            return
        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True) as budget:
            await self._scope.__aexit__(exc_type, exc, traceback)
        if budget.cancelled_caught:
            self._report_timeout(exc)

    def _report_timeout(self, exc: BaseException | None) -> None:
        error = ScopeCleanupTimeoutError(type(self._container).__qualname__, CLEANUP_TIMEOUT)
        if exc is None:
            raise error
        _logger.error("%s", error)


class _Entered:
    """A container that is its own scope, once that is open: no further scope is opened in it."""

    __slots__ = ("resolve",)

    def __init__(self, resolver: Any) -> None:
        self.resolve = resolver.resolve


def needs_scope(container: Any, *types: type) -> bool:
    """Whether resolving ``types`` from ``container`` takes a scope."""
    return any(container.needs_scope(type_) for type_ in types)


def check_scope_strategy(
    strategy: ScopeStrategy, *, is_concurrent: bool, isolates: bool, has_own_dispatch: bool
) -> None:
    """Check that handlers which share a scope may.

    :param is_concurrent: whether events are handled concurrently.
    :param isolates: whether a call succeeds in spite of an event handler's failure.
    :param has_own_dispatch: whether the application dispatches in a way of its own.
    :raises ConfigurationError: one of them does not go with ``ScopeStrategy.SEND``.
    """
    if strategy is not ScopeStrategy.SEND:
        return
    if is_concurrent:
        raise ConfigurationError(
            "ScopeStrategy.SEND shares one scope, and with it one session, among all handlers of a request: "
            "set concurrent_event_handle_enable=False, or use ScopeStrategy.HANDLER."
        )
    if isolates:
        raise ConfigurationError(
            "ScopeStrategy.SEND with EventFailurePolicy.ISOLATE would commit what a failed handler left half done: "
            "use another failure policy, or ScopeStrategy.HANDLER."
        )
    if has_own_dispatch:
        raise ConfigurationError(
            "A dispatcher with a dispatch() of its own opens no scope for its events: use ScopeStrategy.HANDLER."
        )
