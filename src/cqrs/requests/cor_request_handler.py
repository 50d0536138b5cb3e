"""Chain of responsibility: handlers that handle a request or pass it to the next one."""

from __future__ import annotations

import abc
import contextvars
import itertools
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, cast

from cqrs.events.event_source import EventSource
from cqrs.requests.request import ReqT, ResT


class CORRequestHandler(EventSource, Generic[ReqT, ResT]):
    """One link of a chain. It returns a response, or what the links after it return."""

    _next_handler: CORRequestHandler[Any, Any] | None = None

    def set_next(self, handler: CORRequestHandler[Any, Any]) -> CORRequestHandler[Any, Any]:
        """Put ``handler`` after this one in a chain built by hand, and return it.

        Chains that a mediator runs are linked for each request anew and take no notice of this.
        """
        if self._next_handler is None:
            self._next_handler = handler
        return self._next_handler

    async def next(self, request: ReqT) -> ResT | None:
        """Pass ``request`` to the next link; None where this is the last one."""
        place = _place.get()
        if place is not None and place.link is self:
            return cast("ResT | None", await place.following(request))
        if self._next_handler is None:
            return None
        return cast("ResT | None", await self._next_handler.handle(request))

    @abc.abstractmethod
    async def handle(self, request: ReqT) -> ResT | None:
        """Handle ``request``, or pass it on with ``return await self.next(request)``.

        ``return await super().handle(request)`` passes it on as well.
        """
        return await self.next(request)


CORRequestHandlerT: TypeAlias = CORRequestHandler[Any, Any]


def build_chain(handlers: Sequence[CORRequestHandlerT]) -> CORRequestHandlerT:
    """Link ``handlers`` in their order and return the first, to be used without a mediator.

    :raises ValueError: there is no handler.
    """
    if not handlers:
        raise ValueError("a chain needs at least one handler")
    for handler, following in itertools.pairwise(handlers):
        handler.set_next(following)
    return handlers[0]


class ChainRun:
    """One request on its way through a chain.

    The links are joined here, for one request, and not in the handlers: a handler that a container
    hands out again may serve in several chains, and several requests, at once.
    """

    __slots__ = ("_links", "reached")

    def __init__(self, links: Sequence[CORRequestHandlerT]) -> None:
        self._links = links
        self.reached: list[CORRequestHandlerT] = []

    async def handle(self, request: Any) -> Any:
        """The response of the first link that handles ``request``; None where none does."""
        return await _Place(self, 0).enter(request)

    def link_at(self, index: int) -> CORRequestHandlerT | None:
        """The link at ``index``; None after the last."""
        return self._links[index] if index < len(self._links) else None


class _Place:
    """Where in a chain a request is. Held by a context variable, so that each task sees its own."""

    __slots__ = ("_index", "_run", "link")

    def __init__(self, run: ChainRun, index: int) -> None:
        self._run = run
        self._index = index
        self.link = run.link_at(index)

    async def following(self, request: Any) -> Any:
        return await _Place(self._run, self._index + 1).enter(request)

    async def enter(self, request: Any) -> Any:
        if self.link is None:
            return None
        if not any(link is self.link for link in self._run.reached):
            self._run.reached.append(self.link)
        token = _place.set(self)
        try:
            return await self.link.handle(request)
        finally:
            _place.reset(token)


_place: contextvars.ContextVar[_Place | None] = contextvars.ContextVar("cqrs_chain_place", default=None)

__all__ = ["CORRequestHandler", "CORRequestHandlerT", "ChainRun", "build_chain"]
