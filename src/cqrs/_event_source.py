"""What handlers have in common: they record events, and each event is published once."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Protocol

from cqrs.events.event import IEvent


class RecordsEvents(Protocol):
    """Anything with an ``events`` attribute."""

    @property
    def events(self) -> Sequence[IEvent]: ...


class EventSource(abc.ABC):
    """The base of all handlers: records events while it handles."""

    _published_events: Sequence[IEvent] = ()

    @property
    def events(self) -> Sequence[IEvent]:
        """Events to publish after ``handle``. Override it; by default there are none."""
        return ()


def take_events(handler: RecordsEvents) -> list[IEvent]:
    """The events that ``handler`` has recorded and that were not taken before.

    A handler that a container hands out again, or that does not clear its list between two results,
    still has its old events in it; events are told apart by identity.
    """
    recorded = list(handler.events)
    before: Sequence[IEvent] = getattr(handler, "_published_events", ())
    _remember(handler, recorded)
    if not before:
        return recorded
    known = {id(event) for event in before}
    return [event for event in recorded if id(event) not in known]


def discard_events(handler: RecordsEvents) -> None:
    """Take what ``handler`` has recorded and publish none of it: its attempt has failed."""
    if handler.events:
        take_events(handler)


def _remember(handler: Any, events: Sequence[IEvent]) -> None:
    try:
        object.__setattr__(handler, "_published_events", events)
    except AttributeError:
        pass  # A class with __slots__ of its own keeps no memory; such a handler is made anew each time.
