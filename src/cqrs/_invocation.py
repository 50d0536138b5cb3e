"""How a bound handler becomes a call: resolved, in a scope, inside middlewares, with a fallback.

A plan is made once for what is bound. For each message it gives an invocation: an object that handles
the message and then has its events. For the plainest plan that is the handler itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from cqrs._fallback import FallbackPolicy, run_with_fallback
from cqrs.container.protocol import Resolver
from cqrs.container.scope import DispatchScope, check_opens_scopes, is_scoped, needs_scope
from cqrs.events.event import IEvent
from cqrs.events.event_source import RecordsEvents, discard_events, take_events, unpublished
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests.cor_request_handler import ChainRun


class Invocation(Protocol):
    """Handles one message; afterwards ``events`` is what it recorded."""

    @property
    def events(self) -> Sequence[IEvent]: ...
    async def handle(self, message: Any, /) -> Any: ...


class Entry(NamedTuple):
    """``await acquire(argument)`` gives an invocation."""

    acquire: Callable[[Any], Awaitable[Any]]
    argument: Any


class Plan(Protocol):
    """How messages of one type are handled."""

    async def acquire(self, resolver: Resolver, /) -> Invocation:
        """An invocation whose handlers come from ``resolver``."""
        ...

    def entry(self, container: Resolver) -> Entry:
        """The shortest way to an invocation from ``container``."""
        ...


class HandlerPlan:
    """One handler."""

    def __init__(self, handler_type: type[Any]) -> None:
        self.handler_type = handler_type

    @property
    def handler_types(self) -> tuple[type[Any], ...]:
        """What is resolved."""
        return (self.handler_type,)

    async def acquire(self, resolver: Resolver, /) -> Invocation:
        """The handler."""
        handler: Any = await resolver.resolve(self.handler_type)
        return handler  # type: ignore[no-any-return]  # a handler is an invocation

    def entry(self, container: Resolver) -> Entry:
        """The same, with one call less."""
        return Entry(container.resolve, self.handler_type)


class ChainPlan:
    """A chain of handlers."""

    def __init__(self, handler_types: Sequence[type[Any]]) -> None:
        self.handler_types = tuple(handler_types)

    async def acquire(self, resolver: Resolver, /) -> Invocation:
        """All links, joined for one request."""
        return _Chain([await resolver.resolve(handler_type) for handler_type in self.handler_types])

    def entry(self, container: Resolver) -> Entry:
        """All links, joined for one request."""
        return Entry(self.acquire, container)


class ScopedPlan:
    """A plan whose handlers are resolved in a scope of their own, where they need one."""

    def __init__(self, plan: HandlerPlan | ChainPlan, container: Any) -> None:
        self._plan = plan
        self._container = container

    async def acquire(self, resolver: Resolver, /) -> Invocation:
        """The invocation; a scope is opened when it handles. A resolver that is a scope already is used as it is."""
        if resolver is self._container and needs_scope(resolver, *self._plan.handler_types):
            return _Scoped(self._plan, resolver)
        return await self._plan.acquire(resolver)

    def entry(self, container: Resolver) -> Entry:
        """The same as :meth:`acquire`, with fewer questions."""
        plan, needs_scope = self._plan, self._container.needs_scope
        if not isinstance(plan, HandlerPlan):
            return Entry(self.acquire, container)
        handler_type, (acquire, argument) = plan.handler_type, plan.entry(container)

        async def acquire_in_scope(container: Resolver) -> Invocation:
            if needs_scope(handler_type):
                return _Scoped(plan, container)
            invocation: Invocation = await acquire(argument)
            return invocation

        return Entry(acquire_in_scope, container)


class WrappedPlan:
    """A plan inside middlewares. It is acquired anew each time they call on: a retry has its own handler and scope."""

    def __init__(self, plan: Plan, container: Resolver, middlewares: MiddlewareChain) -> None:
        self._plan = plan
        self._container = container
        self._entry = plan.entry(container)
        self._middlewares = middlewares

    async def acquire(self, resolver: Resolver, /) -> Invocation:
        """The invocation; what it wraps is acquired when it handles."""
        entry = self._entry if resolver is self._container else Entry(self._plan.acquire, resolver)
        return _Wrapped(entry, self._middlewares)

    def entry(self, container: Resolver) -> Entry:
        """The same as :meth:`acquire`."""
        return Entry(self.acquire, container)


class FallbackPlan:
    """A plan and another to fall back on. Each has its own scope: the second does not inherit a broken one."""

    def __init__(self, policy: FallbackPolicy, primary: Plan, fallback: Plan, container: Resolver) -> None:
        self._container = container
        self._policy = policy
        self._primary = primary
        self._fallback = fallback

    async def acquire(self, resolver: Resolver, /) -> Invocation:
        """The invocation of whichever of the two will handle the message."""
        check_opens_scopes(resolver, self._container)
        return _WithFallback(self._policy, self._primary, self._fallback, resolver)

    def entry(self, container: Resolver) -> Entry:
        """The same as :meth:`acquire`."""
        return Entry(self.acquire, container)


def handler_plan(
    handler_types: type[Any] | Sequence[type[Any]], container: Resolver, middlewares: MiddlewareChain
) -> Plan:
    """The plan for one handler, or for a chain of them, in a scope of ``container`` where it has scopes."""
    plan: HandlerPlan | ChainPlan
    plan = HandlerPlan(handler_types) if isinstance(handler_types, type) else ChainPlan(handler_types)
    scoped: Plan = ScopedPlan(plan, container) if is_scoped(container) else plan
    return WrappedPlan(scoped, container, middlewares) if middlewares else scoped


class _Taken:
    """An invocation that takes its events itself, when it has handled."""

    events: Sequence[IEvent] = ()

    async def _run(self, invocation: Invocation, message: Any) -> Any:
        try:
            response = await invocation.handle(message)
        except BaseException:
            discard_events(invocation)
            raise
        self._take(invocation)
        return response

    def _take(self, source: RecordsEvents) -> None:
        recorded = source.events
        if recorded:
            self.events = unpublished(source, recorded)


class _Wrapped(_Taken):
    """A handler inside middlewares. Of several attempts the events of the last one count, if it did not fail."""

    def __init__(self, entry: Entry, middlewares: MiddlewareChain) -> None:
        self._entry = entry
        self._middlewares = middlewares

    async def handle(self, message: Any, /) -> Any:
        return await self._middlewares.wrap(self._attempt)(message)

    async def _attempt(self, request: Any) -> Any:
        self.events = ()
        acquire, argument = self._entry
        return await self._run(await acquire(argument), request)


class _Chain(_Taken):
    """A chain on its way with one request; its events are those of all links that the request reached."""

    def __init__(self, links: Sequence[Any]) -> None:
        self._links = links

    async def handle(self, message: Any, /) -> Any:
        run = ChainRun(self._links)
        try:
            response = await run.handle(message)
        except BaseException:
            for link in run.reached:
                discard_events(link)
            raise
        self.events = [event for link in run.reached for event in take_events(link)]
        return response


class _Scoped(_Taken):
    """An invocation in a scope of its own, which is left before its events are handled."""

    def __init__(self, plan: HandlerPlan | ChainPlan, container: Resolver) -> None:
        self._plan = plan
        self._container = container

    async def handle(self, message: Any, /) -> Any:
        async with DispatchScope(self._container) as resolver:
            return await self._run(await self._plan.acquire(resolver), message)


class _WithFallback(_Taken):
    """Handled by the primary, or by the fallback; the events are those of the one that did."""

    def __init__(self, policy: FallbackPolicy, primary: Plan, fallback: Plan, resolver: Resolver) -> None:
        self._policy = policy
        self._primary = primary
        self._fallback = fallback
        self._resolver = resolver

    async def handle(self, message: Any, /) -> Any:
        primary = await self._primary.acquire(self._resolver)
        return await run_with_fallback(
            self._policy, lambda: self._run(primary, message), lambda: self._run_fallback(message)
        )

    async def _run_fallback(self, message: Any) -> Any:
        return await self._run(await self._fallback.acquire(self._resolver), message)
