"""An event handler with a second one to fall back on."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic

from typing_extensions import TypeVar

from cqrs._generics import concrete_class
from cqrs.circuit_breaker import ICircuitBreaker
from cqrs.events._binding import check_handler
from cqrs.events.event import IEvent
from cqrs.events.event_handler import EventHandler
from cqrs.exceptions import EventHandlerTypeError, name_of

HandledT = TypeVar("HandledT", bound=IEvent, default=Any)
"""The event that both handlers take."""


@dataclasses.dataclass(frozen=True)
class EventHandlerFallback(Generic[HandledT]):
    """Bound in place of a handler: ``fallback`` handles the event when ``primary`` failed.

    :param primary: the handler that is tried first.
    :param fallback: the handler of the same event that is tried after it.
    :param failure_exceptions: the errors that lead to the fallback; any error where it is empty.
    :param circuit_breaker: guards the primary; while its circuit is open the fallback is used at once.
    :raises EventHandlerTypeError: the two are not handlers of one event.
    """

    primary: type[EventHandler[HandledT]]
    fallback: type[EventHandler[HandledT]]
    failure_exceptions: tuple[type[Exception], ...] = ()
    circuit_breaker: ICircuitBreaker | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self) -> None:
        for handler in (self.primary, self.fallback):
            check_handler(handler)
        primary = concrete_class(self.primary, EventHandler, 0)
        fallback = concrete_class(self.fallback, EventHandler, 0)
        if primary is not None and fallback is not None and primary is not fallback:
            raise EventHandlerTypeError(
                f"{name_of(self.primary)} and {name_of(self.fallback)} must handle the same event type: "
                f"the primary has {name_of(primary)}, the fallback {name_of(fallback)}."
            )
