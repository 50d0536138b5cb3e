"""What happens when an event handler, or the broker, fails."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from cqrs.events.event import IEvent


class EventFailurePolicy(enum.Enum):
    """What the failure of one event handler means for the others, and for the call."""

    CANCEL = "cancel"
    """The others are cancelled and awaited, then the call raises."""

    WAIT = "wait"
    """The others finish, and the events that follow from them, then the call raises."""

    ISOLATE = "isolate"
    """The others finish; the failure goes to the log and to ``on_error``, and the call succeeds."""


EventErrorHook: TypeAlias = Callable[[IEvent, Exception], Awaitable[None] | None]
"""Told of a failure under :attr:`EventFailurePolicy.ISOLATE`."""
