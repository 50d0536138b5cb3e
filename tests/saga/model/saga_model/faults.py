"""What can go wrong, and where."""

from __future__ import annotations

import dataclasses
import enum


class Kind(str, enum.Enum):
    """What goes wrong at a point."""

    ERROR = "error"
    UNKNOWN = "error of unknown outcome"
    CANCEL = "cancel by scope"
    CANCEL_ERROR = "error while cancelled by scope"
    NATIVE = "task.cancel()"
    NATIVE_2 = "task.cancel() twice"
    NATIVE_10 = "task.cancel() ten times"
    CRASH = "crash"
    PAUSE = "pause"
    LEAVE = "leave"

    def __str__(self) -> str:
        return self.value


NATIVE_CANCELS = {Kind.NATIVE: 1, Kind.NATIVE_2: 2, Kind.NATIVE_10: 10}
CANCELS = frozenset((Kind.CANCEL, Kind.CANCEL_ERROR, *NATIVE_CANCELS))


class Place(enum.Enum):
    """Where a point is: that decides what can go wrong there."""

    ACT = "act"
    UNDO = "compensate"
    BEFORE_WRITE = "before a write"
    AFTER_WRITE = "after a write"
    READ = "at a read"
    RESULT = "at a result"
    EVENT = "at an event"


_EVERYWHERE = (Kind.ERROR, Kind.CANCEL, Kind.CRASH, *NATIVE_CANCELS)
_KINDS = {
    Place.ACT: (*_EVERYWHERE, Kind.UNKNOWN, Kind.CANCEL_ERROR),
    Place.BEFORE_WRITE: (*_EVERYWHERE, Kind.PAUSE),
    Place.RESULT: (*_EVERYWHERE, Kind.LEAVE),
}


def kinds_at(place: Place, is_native: bool, can_pause: bool) -> list[Kind]:
    """What can go wrong there.

    :param is_native: whether there is ``task.cancel()``.
    :param can_pause: whether nothing but the paused write is under way, which no fencing token could stop.
    """
    kinds = _KINDS.get(place, _EVERYWHERE)
    return [
        kind for kind in kinds if (is_native or kind not in NATIVE_CANCELS) and (can_pause or kind is not Kind.PAUSE)
    ]


@dataclasses.dataclass(frozen=True)
class Point:
    """A place that a process has come to: which process, what it was about to do, for the how many-th time."""

    process: str
    label: str
    nth: int
    place: Place = dataclasses.field(compare=False)

    def __str__(self) -> str:
        return f"{self.process} {self.label} ({self.nth})"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong at a point."""

    point: Point
    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind} at {self.point}"


class Injected(Exception):
    """A fault."""


class Refused(Exception):
    """A step that cannot do what it is asked to: no fault of the schedule, but of the scenario."""


class Crash(BaseException):
    """The process is dead. Whatever the code in it still does, the world hears nothing of it."""
