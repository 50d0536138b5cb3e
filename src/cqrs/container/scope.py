"""Scopes: what a handler was given is open while it runs, and closed when it is done."""

from __future__ import annotations

import enum
import inspect
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from cqrs.container._resources import close_scope
from cqrs.container.protocol import Resolver
from cqrs.exceptions import ConfigurationError

CLEANUP_TIMEOUT = 30.0
"""Seconds that closing a scope may take."""


class ScopeStrategy(enum.Enum):
    """What shares a scope of the container."""

    HANDLER = "handler"
    """Each request handler and each event handler has a scope of its own."""

    SEND = "send"
    """A request and all events that follow from it share one scope. Events are handled one after the other."""


def is_scoped(container: object) -> bool:
    """Whether ``container`` offers scopes."""
    # Asked statically: a mock has every attribute that it is asked for.
    return all(inspect.getattr_static(container, method, None) is not None for method in ("scope", "needs_scope"))


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
        self._container: Any = container
        self._opens = opens
        self._scope: AbstractAsyncContextManager[Resolver] | None = None

    async def __aenter__(self) -> Resolver:
        if not self._opens or not is_scoped(self._container):
            unscoped: Resolver = self._container
            return unscoped
        scope: AbstractAsyncContextManager[Any] = self._container.scope()
        self._scope = scope
        resolver: Any = await scope.__aenter__()
        return _Entered(resolver) if resolver is self._container else resolver

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._scope is not None:
            await close_scope(self._scope, type(self._container).__qualname__, exc, CLEANUP_TIMEOUT)


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


FALLBACK_IN_SHARED_SCOPE = (
    "ScopeStrategy.SEND would let a fallback act in the scope of the primary that failed, and commit what that left "
    "half done: use ScopeStrategy.HANDLER for what has fallbacks."
)


def check_opens_scopes(resolver: Resolver, container: Resolver) -> None:
    """Check that a primary and its fallback have scopes of their own, which only the container can open.

    :raises ConfigurationError: ``resolver`` is a scope that both would share.
    """
    if resolver is not container:
        raise ConfigurationError(FALLBACK_IN_SHARED_SCOPE)
