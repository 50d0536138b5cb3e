"""What may be bound to an event, and why not."""

from __future__ import annotations

import inspect
from typing import Any

from cqrs._async_callables import is_surely_not_async
from cqrs._generics import concrete_argument
from cqrs.events.event_handler import EventHandler
from cqrs.exceptions import EventHandlerTypeError, name_of


def check_event_type(event_type: Any) -> None:
    """:raises EventHandlerTypeError: ``event_type`` is not a class that events can have."""
    if not isinstance(event_type, type):
        raise EventHandlerTypeError(
            f"{event_type!r} is not a class, so no event is of that type: bind a class, with all type variables filled in."
        )


def check_handler(handler: Any) -> None:
    """:raises EventHandlerTypeError: ``handler`` is not an async event handler class."""
    if not isinstance(handler, type):
        raise EventHandlerTypeError(
            f"{handler!r} is not a handler class: bind the class, a subclass of EventHandler, and let the container make it."
        )
    if not issubclass(handler, EventHandler):
        raise EventHandlerTypeError(f"{name_of(handler)} is not an event handler: derive it from EventHandler.")
    handle = inspect.getattr_static(handler, "handle")
    if is_surely_not_async(getattr(handle, "__func__", handle)):
        raise EventHandlerTypeError(
            f"{name_of(handler)}.handle is not async: write 'async def handle(self, event)'."
        )


def check_handles(handler: type, event_type: type) -> None:
    """:raises EventHandlerTypeError: ``handler`` is declared for another event."""
    handled = concrete_argument(handler, EventHandler, 0)
    if isinstance(handled, type) and not issubclass(event_type, handled):
        raise EventHandlerTypeError(
            f"{name_of(handler)} handles {name_of(handled)} and cannot be bound to {name_of(event_type)}: "
            f"declare it as EventHandler[{event_type.__name__}]."
        )
