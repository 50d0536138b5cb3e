"""EventMap and EventHandlerFallback: what may be bound to an event."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable
from typing import Any, Generic

import pydantic
import pytest
from typing_extensions import TypeVar

import cqrs
from cqrs.exceptions import AlreadyBoundError, BindingError, CQRSError, EventHandlerTypeError

T = TypeVar("T")


class Joined(cqrs.DomainEvent, frozen=True):
    user_id: int


class JoinedLate(Joined, frozen=True):
    minutes: int = 0


class Left(cqrs.DomainEvent, frozen=True):
    user_id: int


class RoomClosed(pydantic.BaseModel):
    room: int


@dataclasses.dataclass(frozen=True)
class Moved(cqrs.DCDomainEvent, Generic[T]):
    to: T


class OnJoined(cqrs.EventHandler[Joined]):
    async def handle(self, event: Joined) -> None: ...


class OnJoinedToo(OnJoined):
    pass


class OnLate(cqrs.EventHandler[JoinedLate]):
    async def handle(self, event: JoinedLate) -> None: ...


class OnLeft(cqrs.EventHandler[Left]):
    async def handle(self, event: Left) -> None: ...


class OnAnything(cqrs.EventHandler[Any]):
    async def handle(self, event: Any) -> None: ...


class OnRoomClosed(cqrs.EventHandler[cqrs.NotificationEvent[RoomClosed]]):
    async def handle(self, event: cqrs.NotificationEvent[RoomClosed]) -> None: ...


class OnRoomClosedDC(cqrs.EventHandler[cqrs.DCNotificationEvent[RoomClosed]]):
    async def handle(self, event: cqrs.DCNotificationEvent[RoomClosed]) -> None: ...


class OnMovedInt(cqrs.EventHandler[Moved[int]]):
    async def handle(self, event: Moved[int]) -> None: ...


class Generally(cqrs.EventHandler[T], Generic[T]):
    async def handle(self, event: T) -> None: ...


class SyncHandler(cqrs.EventHandler[Joined]):
    def handle(self, event: Joined) -> None: ...  # type: ignore[override]


class PromisesAsync(cqrs.EventHandler[Joined]):
    def handle(self, event: Joined) -> Awaitable[None]:
        return OnJoined().handle(event)


@pytest.mark.parametrize(
    ("event", "handler"),
    [
        (Joined, OnJoined),
        (Joined, OnJoinedToo),
        (JoinedLate, OnJoined),
        (Joined, OnAnything),
        (Joined, PromisesAsync),
        (Joined, Generally),
        (cqrs.NotificationEvent[RoomClosed], OnRoomClosed),
        (cqrs.DCNotificationEvent[RoomClosed], OnRoomClosedDC),
        (Moved[int], OnMovedInt),
        (Joined, cqrs.EventHandlerFallback(OnJoined, OnJoinedToo)),
        (JoinedLate, cqrs.EventHandlerFallback(OnJoined, OnAnything)),
    ],
)
def test_handlers_of_the_event_are_bound(event: Any, handler: Any) -> None:
    """A handler of the event, of a base of it or of any event can be bound, and is found."""
    event_map = cqrs.EventMap()
    event_map.bind(event, handler)
    assert event_map[event] == [handler]
    assert event_map.handlers_of(event) == (handler,)


def test_documented_mapper() -> None:
    """Generic events with their payload are keys of their own, found by the type of an instance."""
    event_map = cqrs.EventMap()
    event_map.bind(cqrs.NotificationEvent[RoomClosed], OnRoomClosed)
    event_map.bind(cqrs.DCNotificationEvent[RoomClosed], OnRoomClosedDC)
    pydantic_event = cqrs.NotificationEvent[RoomClosed](event_name="x", payload=RoomClosed(room=1))
    dataclass_event = cqrs.DCNotificationEvent[RoomClosed]("x", RoomClosed(room=1))
    assert event_map.handlers_of(type(pydantic_event)) == (OnRoomClosed,)
    assert event_map.handlers_of(type(dataclass_event)) == (OnRoomClosedDC,)
    assert event_map.handlers_of(cqrs.NotificationEvent[int]) == ()


@pytest.mark.parametrize(
    ("event", "handler", "told"),
    [
        (Joined, OnLeft, r"OnLeft handles Left and cannot be bound to Joined: declare it as EventHandler\[Joined\]"),
        (Joined, OnLate, "OnLate handles JoinedLate"),
        (Joined, OnJoined(), "is not a handler class: bind the class"),
        (Joined, "OnJoined", "is not a handler class"),
        (Joined, [OnJoined], "is not a handler class"),
        (Joined, int, "int is not an event handler: derive it from EventHandler"),
        (Joined, Joined, "Joined is not an event handler"),
        (Joined, Generally[Joined], "is not a handler class"),
        (Joined, SyncHandler, r"SyncHandler.handle is not async: write 'async def handle\(self, event\)'"),
        (Joined(user_id=1), OnJoined, "is not a class, so no event is of that type"),
        (Moved[T], OnAnything, "with all type variables filled in"),  # type: ignore[valid-type]
        (list[int], OnAnything, "is not a class"),
        (Moved[str], OnMovedInt, r"OnMovedInt handles Moved\[int\]"),
        (Left, cqrs.EventHandlerFallback(OnJoined, OnJoinedToo), "OnJoined handles Joined"),
    ],
)
def test_what_cannot_handle_the_event_is_refused(event: Any, handler: Any, told: str) -> None:
    """The error says what is wrong and how to put it right; nothing is bound."""
    event_map = cqrs.EventMap()
    with pytest.raises(EventHandlerTypeError, match=told) as caught:
        event_map.bind(event, handler)
    assert isinstance(caught.value, BindingError)
    assert isinstance(caught.value, TypeError)
    assert not event_map
    assert event_map.revision == 0
    with pytest.raises(EventHandlerTypeError, match=told):
        event_map[event] = [handler]


def test_several_handlers_keep_their_order_and_none_is_bound_twice() -> None:
    """Handlers are told in the order of binding; a second time is an error."""
    event_map = cqrs.EventMap()
    for handler in (OnJoinedToo, OnJoined, OnAnything):
        event_map.bind(Joined, handler)
    assert event_map.handlers_of(Joined) == (OnJoinedToo, OnJoined, OnAnything)
    with pytest.raises(AlreadyBoundError, match=r"OnJoined already exists in EventMap\[Joined\]") as caught:
        event_map.bind(Joined, OnJoined)
    assert caught.value.key is OnJoined
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, CQRSError)
    assert event_map.revision == 3


def test_subclasses_are_told_of_where_it_was_asked_for() -> None:
    """include_subclasses reaches subclasses, the event's own handlers first, each handler once."""
    event_map = cqrs.EventMap()
    event_map.bind(Joined, OnJoined, include_subclasses=True)
    event_map.bind(Joined, OnJoinedToo)
    event_map.bind(cqrs.IDomainEvent, OnAnything, include_subclasses=True)  # type: ignore[type-abstract]
    assert event_map.handlers_of(JoinedLate) == (OnJoined, OnAnything)
    event_map.bind(JoinedLate, OnLate)
    event_map.bind(JoinedLate, OnJoined)
    assert event_map.handlers_of(JoinedLate) == (OnLate, OnJoined, OnAnything)
    assert event_map.handlers_of(Joined) == (OnJoined, OnJoinedToo, OnAnything)
    assert event_map.handlers_of(Left) == (OnAnything,)


def test_subclasses_of_a_generic_event_are_its_specialisations() -> None:
    """A handler of a generic event that includes subclasses is told of each specialisation."""
    event_map = cqrs.EventMap()
    event_map.bind(Moved, OnAnything, include_subclasses=True)
    assert event_map.handlers_of(Moved[int]) == (OnAnything,)


def test_what_is_bound_is_neither_replaced_nor_removed() -> None:
    """Each way that a dictionary has to lose or change a key is refused."""
    event_map = cqrs.EventMap()
    event_map[Joined] = [OnJoined]
    with pytest.raises(AlreadyBoundError, match="neither replaced nor removed"):
        event_map[Joined] = [OnJoinedToo]
    refused: list[Any] = [
        lambda: event_map.pop(Joined),
        event_map.popitem,
        event_map.clear,
        lambda: event_map.update({}),
        lambda: event_map.setdefault(Left, []),
        lambda: event_map.__delitem__(Joined),
        lambda: event_map.__ior__({}),
    ]
    for refuse in refused:
        with pytest.raises(TypeError, match="Use bind"):
            refuse()
    assert dict(event_map) == {Joined: [OnJoined]}


class UnhashableBreaker:
    __hash__ = None  # type: ignore[assignment]

    async def call(self, identifier: Any, func: Any, *args: Any, **kwargs: Any) -> Any: ...

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        return False


def test_fallback_with_any_breaker_can_be_looked_up() -> None:
    """A circuit breaker without a hash does not make its fallback unfit for a map."""
    fallback = cqrs.EventHandlerFallback(OnJoined, OnJoinedToo, (ValueError,), UnhashableBreaker())
    event_map = cqrs.EventMap()
    event_map.bind(Joined, fallback)
    assert event_map.handlers_of(Joined) == (fallback,)


@pytest.mark.parametrize(
    ("primary", "fallback", "told"),
    [
        (OnJoined, OnLeft, "must handle the same event type: the primary has Joined, the fallback Left"),
        (OnJoined, int, "int is not an event handler"),
        (OnJoined(), OnJoined, "is not a handler class"),
        (OnJoined, SyncHandler, "is not async"),
    ],
)
def test_fallback_of_two_that_do_not_fit_is_refused(primary: Any, fallback: Any, told: str) -> None:
    """A pair that could never work is not made."""
    with pytest.raises(EventHandlerTypeError, match=told):
        cqrs.EventHandlerFallback(primary, fallback)
