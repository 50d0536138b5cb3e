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
        return await self._scope.__aenter__()

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


def needs_scope(container: Any, *types: type) -> bool:
    """Whether resolving ``types`` from ``container`` takes a scope."""
    return any(container.needs_scope(type_) for type_ in types)


def check_scope_strategy(strategy: ScopeStrategy, is_concurrent: bool) -> None:
    """:raises ConfigurationError: handlers that run concurrently would share a scope."""
    if strategy is ScopeStrategy.SEND and is_concurrent:
        raise ConfigurationError(
            "ScopeStrategy.SEND shares one scope, and with it one session, among all handlers of a request: "
            "set concurrent_event_handle_enable=False, or use ScopeStrategy.HANDLER."
        )
