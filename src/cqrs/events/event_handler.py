"""Handlers of events."""

from __future__ import annotations

import abc
from typing import Any, Generic

from typing_extensions import TypeVar

from cqrs.events.event import IEvent
from cqrs.events.event_source import EventSource

E = TypeVar("E", bound=IEvent, contravariant=True)
"""The event that a handler takes."""


class EventHandler(EventSource, Generic[E]):
    """Handles an event. The ``events`` it records follow in the same unit of work."""

    @abc.abstractmethod
    async def handle(self, event: E) -> None:
        """Handle ``event``."""
        raise NotImplementedError


AnyEventHandler = EventHandler[Any]
