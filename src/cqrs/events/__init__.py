"""Events and their handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cqrs.events.event import (
    DCDomainEvent,
    DCEvent,
    DCNotificationEvent,
    DomainEvent,
    Event,
    IDomainEvent,
    IEvent,
    INotificationEvent,
    NotificationEvent,
    PydanticDomainEvent,
    PydanticEvent,
    PydanticNotificationEvent,
)
from cqrs.events.event_handler import EventHandler
from cqrs.events.failure_policy import EventFailurePolicy
from cqrs.events.fallback import EventHandlerFallback
from cqrs.events.map import EventMap

if TYPE_CHECKING:
    from cqrs.events.event_emitter import EventEmitter


def __getattr__(name: str) -> Any:
    # The emitter stands on containers and middlewares, which stand on the names above.
    if name != "EventEmitter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cqrs.events.event_emitter import EventEmitter

    return EventEmitter


__all__ = [
    "DCDomainEvent",
    "DCEvent",
    "DCNotificationEvent",
    "DomainEvent",
    "Event",
    "EventEmitter",
    "EventFailurePolicy",
    "EventHandler",
    "EventHandlerFallback",
    "EventMap",
    "IDomainEvent",
    "IEvent",
    "INotificationEvent",
    "NotificationEvent",
    "PydanticDomainEvent",
    "PydanticEvent",
    "PydanticNotificationEvent",
]
