"""What handlers have in common: they record events, and each event is published once."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from cqrs.events.event import IEvent


class RecordsEvents(Protocol):
    """Anything with an ``events`` attribute."""

    @property
    def events(self) -> Sequence[IEvent]:
        """What it has recorded."""
        ...


class EventSource(abc.ABC):  # noqa: B024  # handlers declare the abstract method, each its own
    """The base of all handlers: records events while it handles."""

    _published_events: Sequence[IEvent] = ()

    @property
    def events(self) -> Sequence[IEvent]:
        """Events to publish after ``handle``. Override it; by default there are none."""
        return ()


# No ABC: each handler that has events is asked whether it is one of these.
class EventRelay:
    """Stands in for a handler, whose events it shows."""

    @property
    def origin(self) -> Any:
        """The handler behind it, or what stands in for that."""
        raise NotImplementedError


def take_events(handler: RecordsEvents) -> list[IEvent]:
    """The events that ``handler`` has recorded and that were not taken before.

    A handler that a container hands out again, or that does not clear its list between two results,
    still has its old events at the beginning of its list; events are told apart by identity.
    """
    return unpublished(handler, handler.events)


def unpublished(handler: RecordsEvents, events: Sequence[IEvent]) -> list[IEvent]:
    """What :func:`take_events` gives, where ``handler.events`` has been read already.

    It is read once: a handler may empty its list when it is read.
    """
    handler = origin_of(handler)
    recorded = list(events)
    before: Sequence[IEvent] = getattr(handler, "_published_events", ())
    _remember(handler, recorded)
    return recorded[len(before) :] if before and _begins_with(recorded, before) else recorded


def _begins_with(recorded: Sequence[IEvent], before: Sequence[IEvent]) -> bool:
    # Elsewhere than at the beginning, an event that was published before has been recorded again.
    if len(recorded) < len(before):
        return False
    return all(event is known for event, known in zip(recorded, before, strict=False))


def forget_published(handler: RecordsEvents) -> None:
    """Forget what was taken, where ``handler`` has forgotten it too."""
    if not handler.events:
        _remember(handler, ())


def origin_of(handler: Any) -> Any:
    """The handler that recorded the events of ``handler``."""
    while isinstance(handler, EventRelay):
        handler = handler.origin
    return handler


def discard_events(handler: RecordsEvents) -> None:
    """Take what ``handler`` has recorded and publish none of it: its attempt has failed."""
    # A handler that failed may have failed before it made its list: that must not hide how it failed.
    with contextlib.suppress(Exception):
        if handler.events:
            take_events(handler)


def _remember(handler: Any, events: Sequence[IEvent]) -> None:
    try:  # noqa: SIM105  # asked of each handler that has events, and suppress() costs more than all of it
        object.__setattr__(handler, "_published_events", events)
    except AttributeError:
        pass  # A class with __slots__ of its own keeps no memory; such a handler is made anew each time.
