"""Handlers of commands, queries and streaming requests."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from typing import Generic

from anyio.abc import ObjectSendStream
from typing_extensions import TypeVar

from cqrs.events.event_source import EventSource
from cqrs.requests.request import ReqT, ResT

SentT = TypeVar("SentT")
"""A result that a handler sends. Invariant, since a send stream consumes it."""


class RequestHandler(EventSource, Generic[ReqT, ResT]):
    """Handles a command or a query: ``class H(RequestHandler[CreateOrder, OrderCreated])``."""

    @abc.abstractmethod
    async def handle(self, request: ReqT) -> ResT:
        """Handle ``request`` and return its response."""
        raise NotImplementedError


class StreamingRequestHandler(EventSource, Generic[ReqT, ResT]):
    """Handles a request by an async generator that yields results as they become available.

    The generator must not yield inside a task group, a cancel scope or anything built on one
    (https://peps.python.org/pep-0789/): a handler that needs a task group of its own is a
    :class:`SendStreamRequestHandler`.
    """

    @abc.abstractmethod
    def handle(self, request: ReqT) -> AsyncIterator[ResT]:
        """Yield the results of ``request``: write it with ``async def`` and ``yield``."""
        raise NotImplementedError

    def clear_events(self) -> None:
        """Forget the events recorded so far. Called when they have been taken, after each result.

        Overriding it saves memory in a long stream; no event is published twice without it.
        """


class SendStreamRequestHandler(EventSource, Generic[ReqT, SentT]):
    """Handles a request by a coroutine that sends its results into a stream.

    The form for handlers that work in a task group of their own. Sending waits while the consumer is
    behind. The consumer reads with ``async with mediator.stream(request) as results``.
    """

    @abc.abstractmethod
    async def handle(self, request: ReqT, results: ObjectSendStream[SentT]) -> None:
        """Send the results of ``request`` into ``results``; the stream ends when this returns.

        When the consumer leaves early, this coroutine is cancelled.
        """
        raise NotImplementedError

    def clear_events(self) -> None:
        """Forget the events recorded so far. Called when they have been taken, after each result."""
