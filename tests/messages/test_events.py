"""Events of all kinds."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import decimal
import pickle
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Generic

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeVar

import cqrs
from cqrs._generics import concrete_argument
from cqrs.events.event import DEFAULT_OUTPUT_TOPIC

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


class Payload(pydantic.BaseModel):
    user_id: int
    amount: decimal.Decimal = decimal.Decimal(0)


@dataclasses.dataclass
class DCPayload:
    user_id: int
    at: dt.datetime | None = None


class Joined(cqrs.DomainEvent, frozen=True):
    user_id: int


@dataclasses.dataclass(frozen=True)
class JoinedDC(cqrs.DCDomainEvent):
    user_id: int
    nested: DCPayload | None = None


@dataclasses.dataclass(frozen=True)
class Moved(cqrs.DCDomainEvent, Generic[T]):
    to: T
    via: list[T] = dataclasses.field(default_factory=list)
    note: str = ""


@dataclasses.dataclass(frozen=True)
class MovedFar(Moved[int]):
    how_far: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Measured(cqrs.DCDomainEvent, Generic[T]):
    unit: str = "m"
    value: T = dataclasses.field(metadata={"pydantic": "no"})
    secret: T | None = dataclasses.field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.value} {self.unit}"


@dataclasses.dataclass(frozen=True)
class Written(cqrs.DCDomainEvent, Generic[T]):
    value: T

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "written by hand"


@dataclasses.dataclass(frozen=True)
class Pair(cqrs.DCDomainEvent, Generic[K, V]):
    key: K
    value: V


@dataclasses.dataclass(frozen=True)
class Named(Pair[str, V], Generic[V]):
    extra: V | None = None


@dataclasses.dataclass(frozen=True)
class Listed(Moved[list[T]], Generic[T]):
    first: T | None = None


@dataclasses.dataclass(frozen=True)
class UserNotified(cqrs.DCNotificationEvent[DCPayload]):
    """A named subclass of a generic event with its payload filled in."""


NOTIFICATIONS: list[Callable[..., Any]] = [
    cqrs.NotificationEvent[Payload],
    cqrs.DCNotificationEvent[Payload],
    cqrs.NotificationEvent,
    cqrs.DCNotificationEvent,
]


def test_names_of_the_pydantic_kinds() -> None:
    """The short names are the pydantic kinds."""
    assert cqrs.Event is cqrs.PydanticEvent
    assert cqrs.DomainEvent is cqrs.PydanticDomainEvent
    assert cqrs.NotificationEvent is cqrs.PydanticNotificationEvent


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Joined, {"user_id": 1}),
        (JoinedDC, {"user_id": 1, "nested": {"user_id": 2, "at": None}}),
        (Moved[int], {"to": 1, "via": [2], "note": ""}),
        (Moved[Payload], {"to": {"user_id": 1, "amount": decimal.Decimal(2)}, "via": [], "note": "x"}),
        (Pair[str, Payload], {"key": "k", "value": {"user_id": 1, "amount": decimal.Decimal(0)}}),
        (Named[Payload], {"key": "k", "value": {"user_id": 1, "amount": decimal.Decimal(0)}, "extra": None}),
        (Listed[int], {"to": [1], "via": [[2]], "note": "", "first": 3}),
        (MovedFar, {"to": 1, "via": [], "note": "", "how_far": 2.0}),
    ],
)
def test_events_go_to_dictionaries_and_back(kind: Any, fields: dict[str, Any]) -> None:
    """from_dict rebuilds nested objects, to_dict takes them apart, under the fields' own names."""
    event = kind.from_dict(**fields)
    assert type(event) is kind
    assert event.to_dict() == fields
    assert kind.from_dict(**event.to_dict()) == event


def test_payload_of_a_generic_dataclass_is_rebuilt() -> None:
    """A generic dataclass event knows its payload: from_dict gives an object, and no dictionary."""
    event = cqrs.DCNotificationEvent[DCPayload].from_dict(event_name="x", payload={"user_id": "1"})
    assert event.payload == DCPayload(1)
    assert UserNotified.from_dict(event_name="x", payload={"user_id": 1}).payload == DCPayload(1)
    assert cqrs.DCNotificationEvent.from_dict(event_name="x", payload={"user_id": 1}).payload == {"user_id": 1}
    with pytest.raises(pydantic.ValidationError):
        cqrs.DCNotificationEvent[DCPayload].from_dict(event_name="x", payload={})


@pytest.mark.parametrize("generic", [cqrs.NotificationEvent, cqrs.DCNotificationEvent, Moved])
def test_same_arguments_give_the_same_class(generic: Any) -> None:
    """A generic event with arguments is one class, whose instances are of it and of the generic one."""
    kind = generic[Payload]
    assert isinstance(kind, type)
    assert generic[Payload] is kind
    assert generic[DCPayload] is not kind
    assert issubclass(kind, generic)
    assert "Payload" in kind.__name__
    assert not hasattr(cqrs.DCEvent, "__cqrs_specialised__")


def test_arguments_can_be_read_from_the_class() -> None:
    """The payload type of a class can be found by those who look for it."""
    assert concrete_argument(cqrs.DCNotificationEvent[Payload], cqrs.INotificationEvent, 0) is Payload
    assert concrete_argument(UserNotified, cqrs.INotificationEvent, 0) is DCPayload
    assert concrete_argument(Named[int], Pair, 1) is int
    assert concrete_argument(Named[int], Pair, 0) is str


def test_type_variables_may_stay_open() -> None:
    """While a type variable is open there is no class, and Python's own alias is given."""
    alias: Any = Pair[int, V]
    assert not isinstance(alias, type)
    assert alias("not checked", 1).to_dict() == {"key": "not checked", "value": 1}


def test_event_that_is_not_generic_takes_no_arguments() -> None:
    """JoinedDC[int] is a mistake, told as Python tells it."""
    with pytest.raises(TypeError, match="JoinedDC is not a generic class"):
        JoinedDC[int]  # type: ignore[misc]


def test_declaration_of_fields_survives_the_arguments() -> None:
    """Keyword-only fields, metadata, order, representation and comparison stay as they were declared."""
    kind: Any = Measured[int]
    event = kind(value=1, secret=2)
    assert str(event) == "1 m"
    assert "secret" not in repr(event)
    assert event == kind(value=1, secret=3)
    assert event < kind(value=2)
    assert hash(event) == hash(kind(value=1, secret=3))
    assert {field.name: field.metadata for field in dataclasses.fields(kind)}["value"] == {"pydantic": "no"}
    with pytest.raises(TypeError, match="positional"):
        kind("m", 1)
    assert kind.from_dict(value="5", secret="6") == kind(value=5)


def test_methods_of_a_generic_event_survive_the_arguments() -> None:
    """A representation and an identity of the application's own are inherited."""
    kind: Any = Written[int]
    assert repr(kind(1)) == "written by hand"
    assert kind(1) != kind(1)
    assert hash(kind(1)) == 7


def test_events_are_frozen() -> None:
    """No event changes after it was made."""
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Joined(user_id=1).user_id = 2  # type: ignore[misc]
    for event in (JoinedDC(1), Moved[int](1), cqrs.DCNotificationEvent[int]("x", 1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.user_id = 2  # type: ignore[union-attr,misc]


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize(
    "event",
    [
        Joined(user_id=1),
        JoinedDC(1, DCPayload(2)),
        Moved[int](1, [2]),
        Pair[str, Payload]("k", Payload(user_id=1)),
        MovedFar(1, how_far=2.0),
        Named[int]("k", 1),
        UserNotified("x", DCPayload(1)),
        cqrs.DCNotificationEvent[Payload]("x", Payload(user_id=1), headers={"a": "b"}),
        cqrs.DCNotificationEvent("x", 1),
        cqrs.NotificationEvent[Payload](event_name="x", payload=Payload(user_id=1)),
    ],
    ids=lambda event: type(event).__qualname__,
)
def test_events_can_be_pickled_and_copied(event: Any, protocol: int) -> None:
    """Pickle, copy and deepcopy give an equal event of the very same class."""
    for twin in (pickle.loads(pickle.dumps(event, protocol)), copy.copy(event), copy.deepcopy(event)):
        assert twin == event
        assert type(twin) is type(event)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted(cqrs.DCDomainEvent, Generic[T]):
    value: T


def test_slotted_event_can_be_generic_and_pickled() -> None:
    """An event with __slots__ of its own is treated as any other."""
    event = Slotted[int].from_dict(value="1")
    assert event == Slotted[int](1)
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("kind", NOTIFICATIONS)
def test_notification_event_fills_in_what_is_not_given(kind: Callable[..., Any]) -> None:
    """Id, time, topic and envelope have defaults of their own for each event."""
    before = dt.datetime.now(dt.timezone.utc)
    first, second = (kind(event_name="x", payload=Payload(user_id=1)) for _ in range(2))
    assert isinstance(first.event_id, uuid.UUID)
    assert first.event_id != second.event_id
    assert before <= first.event_timestamp <= dt.datetime.now(dt.timezone.utc)
    assert first.topic == DEFAULT_OUTPUT_TOPIC == "output_topic"
    assert (first.correlation_id, first.causation_id, first.partition_key, first.headers) == (None, None, None, {})
    assert first.headers is not second.headers


def test_dataclass_notification_takes_documented_positions() -> None:
    """Name and payload come first, then id, time and topic."""
    at = dt.datetime(2030, 1, 1, tzinfo=dt.timezone.utc)
    event = cqrs.DCNotificationEvent[int]("name", 1, uuid.UUID(int=1), at, "topic")
    assert event.to_dict() == {
        "event_name": "name",
        "payload": 1,
        "event_id": uuid.UUID(int=1),
        "event_timestamp": at,
        "topic": "topic",
    }


@pytest.mark.parametrize("kind", NOTIFICATIONS)
@given(
    envelope=st.fixed_dictionaries(
        {},
        optional={
            "correlation_id": st.text(min_size=1),
            "causation_id": st.text(min_size=1),
            "partition_key": st.text(min_size=1),
            "headers": st.dictionaries(st.text(), st.text(), min_size=1),
        },
    )
)
def test_envelope_is_in_the_dictionary_where_it_is_set(kind: Any, envelope: dict[str, Any]) -> None:
    """to_dict has the parts of the envelope that are set and no others, and from_dict takes them back."""
    event = kind(event_name="x", payload=1 if kind in NOTIFICATIONS[2:] else Payload(user_id=1), **envelope)
    dumped = event.to_dict()
    assert dumped.keys() - envelope.keys() == {"event_id", "event_name", "event_timestamp", "payload", "topic"}
    assert envelope.items() <= dumped.items()
    assert kind.from_dict(**dumped) == event


@pytest.mark.parametrize("kind", NOTIFICATIONS)
@pytest.mark.parametrize(
    "at", [dt.datetime(2030, 1, 1), dt.datetime(2030, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))]
)
def test_timestamps_stay_naive_or_aware(kind: Any, at: dt.datetime) -> None:
    """A timestamp is neither given a time zone nor robbed of one, as an object or as text."""
    event = kind(event_name="x", payload=Payload(user_id=1), event_timestamp=at)
    for given_ in (at, at.isoformat()):
        again = kind.from_dict(**{**event.to_dict(), "event_timestamp": given_})
        assert again.event_timestamp == at
        assert again.event_timestamp.utcoffset() == at.utcoffset()


@pytest.mark.parametrize("kind", NOTIFICATIONS)
def test_notification_event_hashes_by_its_id(kind: Callable[..., Any]) -> None:
    """Events whose payload has no hash can be kept in sets."""
    event = kind(event_name="x", payload=Payload(user_id=1))
    assert hash(event) == hash(event.event_id)
    assert len({event, event}) == 1


@pytest.mark.parametrize("kind", [cqrs.NotificationEvent[int], cqrs.DCNotificationEvent[int]])
def test_proto_is_for_subclasses(kind: Any) -> None:
    """An event that does not implement protobuf says so."""
    with pytest.raises(NotImplementedError, match=r"does not implement proto\(\)"):
        kind(event_name="x", payload=1).proto()
    with pytest.raises(NotImplementedError, match=r"does not implement from_proto\(\)"):
        kind.from_proto(b"")


@dataclasses.dataclass(frozen=True)
class Wired(cqrs.DCEvent):
    read_camel_case = True

    user_id: int
    line2_text: str = ""
    plain: int = 0


@dataclasses.dataclass(frozen=True)
class WiredNotification(cqrs.DCNotificationEvent[int]):
    read_camel_case = True


def test_camel_case_is_read_on_request() -> None:
    """camelCase is read where the class asks for it, and never written."""
    assert Wired.from_dict(userId=1, line2Text="x", plain=2) == Wired(1, "x", 2)
    assert Wired.from_dict(user_id=1) == Wired(1)
    assert Wired(1).to_dict() == {"user_id": 1, "line2_text": "", "plain": 0}
    event = WiredNotification.from_dict(eventName="x", payload=1, correlationId="c")
    assert (event.event_name, event.correlation_id) == ("x", "c")
    with pytest.raises(pydantic.ValidationError):
        JoinedDC.from_dict(userId=1)


@dataclasses.dataclass(frozen=True)
class Constrained(cqrs.DCEvent, Generic[T]):
    value: Annotated[T, pydantic.Field(gt=0)]


def test_constraints_of_a_generic_field_hold() -> None:
    """Annotations around a type variable survive its argument."""
    assert Constrained[int].from_dict(value="1").value == 1
    with pytest.raises(pydantic.ValidationError):
        Constrained[int].from_dict(value=0)


class Stranger:
    """Known to nobody."""


@dataclasses.dataclass(frozen=True)
class Carries(cqrs.DCEvent):
    stranger: Stranger


def test_dataclass_event_may_hold_any_object() -> None:
    """Objects of unknown classes are handed through."""
    stranger = Stranger()
    assert Carries.from_dict(stranger=stranger).stranger is stranger
    assert Carries(stranger).to_dict()["stranger"] is stranger


@given(st.integers(), st.lists(st.integers()), st.text())
def test_any_generic_event_goes_to_a_dictionary_and_back(to: int, via: list[int], note: str) -> None:
    """from_dict(**to_dict()) is the identity."""
    event = Moved[int](to, via, note)
    assert Moved[int].from_dict(**event.to_dict()) == event
