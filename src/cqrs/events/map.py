"""Which handlers are told of which event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from typing_extensions import TypeVar

from cqrs._registry import BindOnceRegistry
from cqrs.events._binding import check_event_type, check_handler, check_handles
from cqrs.events.event import IEvent
from cqrs.events.event_handler import EventHandler
from cqrs.events.fallback import EventHandlerFallback
from cqrs.exceptions import AlreadyBoundError

EventT = TypeVar("EventT", bound=IEvent)

EventBinding: TypeAlias = type[EventHandler[Any]] | EventHandlerFallback[Any]
"""One thing bound to an event."""


class EventMap(BindOnceRegistry[type[IEvent], list[EventBinding]]):
    """Event types and the handlers that are told of them, in the order in which they were bound."""

    _rebind_hint = "Add handlers with bind(); what is bound is neither replaced nor removed."

    def __init__(self) -> None:
        super().__init__()
        self._for_subclasses: dict[type[IEvent], list[EventBinding]] = {}
        self.revision: int = 0
        """Grows with each binding."""

    def bind(
        self,
        event_type: type[EventT],
        handler_type: type[EventHandler[EventT]] | EventHandlerFallback[EventT],
        *,
        include_subclasses: bool = False,
    ) -> None:
        """Tell ``handler_type`` of events of ``event_type``, after the handlers bound before.

        :param include_subclasses: tell it of events of subclasses as well.
        :raises EventHandlerTypeError: it is not a handler of such events.
        :raises AlreadyBoundError: it is bound to this event already.
        """
        self._check(event_type, handler_type)
        if event_type not in self:
            super().__setitem__(event_type, [])
        if handler_type in self[event_type]:
            raise AlreadyBoundError(handler_type, f"EventMap[{event_type.__qualname__}]", "Bind each handler once.")
        self[event_type].append(handler_type)
        if include_subclasses:
            self._for_subclasses.setdefault(event_type, []).append(handler_type)
        self.revision += 1

    def __setitem__(self, event_type: type[IEvent], handlers: Sequence[Any], /) -> None:
        for handler in handlers:
            self._check(event_type, handler)
        super().__setitem__(event_type, list(handlers))
        self.revision += 1

    def handlers_of(self, event_type: type[Any]) -> Sequence[EventBinding]:
        """All that is told of events of ``event_type``: its own handlers first, then those of its bases."""
        found: dict[EventBinding, None] = dict.fromkeys(self.get(event_type, ()))
        for base in event_type.__mro__[1:]:
            found.update(dict.fromkeys(self._for_subclasses.get(base, ())))
        return tuple(found)

    def _check(self, event_type: Any, handler_type: EventBinding) -> None:
        check_event_type(event_type)
        if isinstance(handler_type, EventHandlerFallback):
            check_handles(handler_type.primary, event_type)
            check_handles(handler_type.fallback, event_type)
        else:
            check_handler(handler_type)
            check_handles(handler_type, event_type)
