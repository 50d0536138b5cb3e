"""default_serializer."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from typing import Any

import pydantic
import pytest

from cqrs.events.event import DCEvent, DCNotificationEvent, DomainEvent, IEvent, NotificationEvent
from cqrs.exceptions import CQRSError, SerializationError
from cqrs.message_brokers import Message
from cqrs.requests.request import Request
from cqrs.response import DCResponse
from cqrs.serializers import default_serializer


class Colour(enum.Enum):
    RED = "red"


class Custom(IEvent):
    def __init__(self, number: Any) -> None:
        self.number = number

    def to_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Custom:
        return cls(**kwargs)


class Renamed(DomainEvent, frozen=True):
    number: int

    def to_dict(self) -> dict[str, Any]:
        return {"Nummer": self.number}


@dataclasses.dataclass
class Address:
    street: str
    since: dt.date


class PlainModel(pydantic.BaseModel):
    amount: decimal.Decimal


class HasModelDump:
    def model_dump(self) -> dict[str, Any]:
        return {"dumped": True}


class Buy(Request):
    amount: decimal.Decimal


@dataclasses.dataclass
class Bought(DCResponse):
    tags: set[str]


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), "2030-01-02T03:04:05Z"),
        (decimal.Decimal("1.10"), "1.10"),
        ({"raw": b"\xff\xfe"}, {"raw": "__4="}),
        ({1}, [1]),
        (Colour.RED, "red"),
        (Address("Here", dt.date(2030, 1, 1)), {"street": "Here", "since": "2030-01-01"}),
        (PlainModel(amount=decimal.Decimal(2)), {"amount": "2"}),
        ({"nested": [PlainModel(amount=decimal.Decimal(2))]}, {"nested": [{"amount": "2"}]}),
        (HasModelDump(), {"dumped": True}),
        (Custom(decimal.Decimal(3)), {"number": "3"}),
        ({"payload": Custom(1)}, {"payload": {"number": 1}}),
        (Renamed(number=7), {"Nummer": 7}),
        (Buy(amount=decimal.Decimal("9.99")), {"amount": "9.99"}),
        (Bought(tags={"new"}), {"tags": ["new"]}),
        ({"f": math.inf}, {"f": "Infinity"}),
        (None, None),
    ],
    ids=repr,
)
def test_values_become_json(message: Any, written: Any) -> None:
    """Each kind of message becomes the JSON that its type reads again."""
    assert json.loads(default_serializer(message)) == written


@pytest.mark.parametrize("data", [b"", b"\xff\x00", bytearray(b"abc")])
def test_bytes_pass_unchanged(data: bytes) -> None:
    """What is bytes already is not written a second time."""
    written = default_serializer(data)
    assert written == bytes(data)
    assert type(written) is bytes


@pytest.mark.parametrize("kind", [NotificationEvent[int], DCNotificationEvent[int], NotificationEvent])
def test_unset_envelope_is_not_written(kind: Any) -> None:
    """The JSON of an event has the members of its to_dict, and no nulls for an envelope it does not use."""
    event = kind(event_name="Paid", payload=1, partition_key="k1")
    written = json.loads(default_serializer(event))
    assert written.keys() == event.to_dict().keys()
    assert written["partition_key"] == "k1"
    assert "correlation_id" not in written


def test_message_of_a_broker_is_written_with_its_payload() -> None:
    """A Message becomes one object, its payload inside."""
    message = Message("Paid", "payments", NotificationEvent[int](event_name="Paid", payload=1))
    written = json.loads(default_serializer(message))
    assert written["topic"] == "payments"
    assert written["payload"]["payload"] == 1
    assert written["message_id"] == str(message.message_id)


class Opaque:
    """Has no JSON form."""


class ModelWithOpaque(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    fine: int = 1
    inner: dict[str, list[Any]]


class EventWithOpaque(DomainEvent, frozen=True):
    model: ModelWithOpaque


@dataclasses.dataclass(frozen=True)
class DCWithOpaque(DCEvent):
    raw: bytes
    opaque: Opaque


class TextBytes(pydantic.BaseModel):
    raw: bytes


class EventWithBytes(DomainEvent, frozen=True):
    model: TextBytes


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Opaque(), r"^Opaque cannot be serialised: it is of type Opaque"),
        ({"a": [1, {"b": Opaque()}]}, r"a\[1\]\.b is of type Opaque"),
        ({"a": {Opaque(): 1}}, r"^dict cannot be serialised: "),
        (Custom(Opaque()), r"^Custom cannot be serialised: number is of type Opaque"),
        (EventWithOpaque(model=ModelWithOpaque(inner={"x": [Opaque()]})), r"model\.inner\.x\[0\] is of type Opaque"),
        (DCWithOpaque(b"\xff", Opaque()), r"^DCWithOpaque cannot be serialised: opaque is of type Opaque"),
        (EventWithBytes(model=TextBytes(raw=b"\xff")), r"model\.raw holds bytes that are not UTF-8.*ser_json_bytes"),
        (Opaque, r"cannot be serialised: it is of type type"),
    ],
)
def test_unserialisable_value_is_named_with_its_place(message: Any, told: str) -> None:
    """The error says which value of which type cannot be written, and keeps what refused it as its cause."""
    with pytest.raises(SerializationError, match=told) as caught:
        default_serializer(message)
    assert caught.value.message_type is type(message)
    assert isinstance(caught.value, CQRSError)
    assert isinstance(caught.value, TypeError)
    assert caught.value.__cause__ is not None


def test_circular_message_is_refused() -> None:
    """A message that contains itself is an error, and not an endless loop."""
    loop: dict[str, Any] = {"name": "loop"}
    loop["self"] = [loop]
    with pytest.raises(SerializationError, match=r"self\[0\] contains itself"):
        default_serializer(loop)


class FailsToSerialise(DomainEvent, frozen=True):
    number: int

    @pydantic.field_serializer("number")
    def _broken(self, number: int) -> int:
        raise ValueError("no such number")


def test_failure_of_a_declared_serializer_is_told() -> None:
    """A serializer of the application that fails is what the error tells of."""
    with pytest.raises(SerializationError, match="no such number"):
        default_serializer(FailsToSerialise(number=1))


def test_error_of_to_dict_leaves_as_itself() -> None:
    """What an application's to_dict raises is not disguised."""

    class Broken:
        def to_dict(self) -> dict[str, Any]:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        default_serializer(Broken())


@dataclasses.dataclass(frozen=True)
class LooseEvent(DCEvent):
    amount: decimal.Decimal
    anything: Any = None


def test_dataclass_with_value_of_another_type_is_written_without_a_warning() -> None:
    """Dataclasses do not check what they hold; such a value is written as it is."""
    event = LooseEvent(5, {"raw": [b"\xff"]})  # type: ignore[arg-type]
    assert json.loads(default_serializer(event)) == {"amount": 5, "anything": {"raw": ["_w=="]}}
    assert event.to_dict() == {"amount": 5, "anything": {"raw": [b"\xff"]}}
