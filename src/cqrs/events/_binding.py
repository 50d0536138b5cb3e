"""What may be bound to an event, and why not."""

from __future__ import annotations

import inspect

from cqrs._async_callables import is_surely_not_async
from cqrs._generics import concrete_class, is_class
from cqrs.events.event_handler import EventHandler
from cqrs.exceptions import EventHandlerTypeError, name_of

_KINDS: tuple[type, ...] = (EventHandler,)


def check_event_type(event_type: object) -> None:
    """:raises EventHandlerTypeError: ``event_type`` is not a class that events can have."""
    if not is_class(event_type):
        raise EventHandlerTypeError(
            f"{event_type!r} is not a class, so no event is of that type: "
            f"bind a class, with all type variables filled in."
        )


def check_handler(handler: object) -> None:
    """:raises EventHandlerTypeError: ``handler`` is not an async event handler class."""
    if not is_class(handler):
        raise EventHandlerTypeError(
            f"{handler!r} is not a handler class: bind the class, a subclass of EventHandler, "
            f"and let the container make it."
        )
    if not issubclass(handler, _KINDS):
        raise EventHandlerTypeError(f"{name_of(handler)} is not an event handler: derive it from EventHandler.")
    if "handle" in getattr(handler, "__abstractmethods__", ()):
        raise EventHandlerTypeError(f"{name_of(handler)} does not implement handle().")
    handle = inspect.getattr_static(handler, "handle")
    if is_surely_not_async(getattr(handle, "__func__", handle)):
        raise EventHandlerTypeError(f"{name_of(handler)}.handle is not async: write 'async def handle(self, event)'.")


def check_handles(handler: type, event_type: type) -> None:
    """:raises EventHandlerTypeError: ``handler`` is declared for another event."""
    handled = concrete_class(handler, EventHandler, 0)
    if handled is not None and not issubclass(event_type, handled):
        raise EventHandlerTypeError(
            f"{name_of(handler)} handles {name_of(handled)} and cannot be bound to {name_of(event_type)}: "
            f"declare it as EventHandler[{event_type.__name__}]."
        )
