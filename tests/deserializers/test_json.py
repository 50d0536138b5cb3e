"""JsonDeserializer, alone and as the other half of default_serializer."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from typing import Annotated, Any, Generic

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeVar

from cqrs.deserializers import DeserializeJsonError, JsonDeserializer
from cqrs.events.event import DCDomainEvent, DCEvent, DCNotificationEvent, DomainEvent, IEvent, NotificationEvent
from cqrs.exceptions import BindingError, CQRSError
from cqrs.requests.request import DCRequest, Request
from cqrs.response import DCResponse, Response
from cqrs.serializers import default_serializer

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Inner:
    raw: bytes
    when: dt.datetime
    deeper: list[Inner] = dataclasses.field(default_factory=list)


class Line(pydantic.BaseModel):
    amount: decimal.Decimal
    tags: frozenset[str] = frozenset()


class Order(pydantic.BaseModel):
    order_id: uuid.UUID
    lines: list[Line]
    placed: dt.date


class RawModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")

    raw: bytes
    number: float = 0.0


class TextModel(pydantic.BaseModel):
    raw: bytes


@dataclasses.dataclass(frozen=True)
class Everything(DCDomainEvent):
    amount: decimal.Decimal
    at: dt.datetime
    day: dt.date
    took: dt.timedelta
    raw: bytes
    key: uuid.UUID
    colour: Colour
    members: set[int]
    pair: tuple[int, str]
    by_colour: dict[Colour, bytes]
    maybe: decimal.Decimal | None
    inner: Inner
    model: Order | None = None
    number: float = 0.0


@dataclasses.dataclass(frozen=True)
class Moved(DCDomainEvent, Generic[T]):
    to: T


class Shipped(DomainEvent, frozen=True):
    colour: Colour
    order: Order
    parcels: set[int]
    weight: decimal.Decimal | None = None


class RawEvent(DomainEvent, frozen=True):
    model: RawModel


class TextEvent(DomainEvent, frozen=True):
    model: TextModel


class Custom(IEvent):
    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def to_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Custom:
        return cls(kwargs["number"])


class Buy(Request[None]):
    amount: decimal.Decimal


@dataclasses.dataclass
class BuyDC(DCRequest[None]):
    raw: bytes


class Bought(Response):
    at: dt.datetime


@dataclasses.dataclass
class BoughtDC(DCResponse):
    raw: bytes


ORDER = Order(
    order_id=uuid.UUID(int=7),
    lines=[Line(amount=decimal.Decimal("1.10"), tags=frozenset({"a"}))],
    placed=dt.date(2030, 1, 2),
)
AWARE = dt.datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=dt.timezone.utc)
NAIVE = dt.datetime(2030, 1, 2, 3, 4, 5, 678)
INNER = Inner(b"\xff\x00\xfb", AWARE, [Inner(b"", NAIVE)])
EVERYTHING = Everything(
    decimal.Decimal("1.10"),
    AWARE,
    dt.date(2030, 1, 2),
    dt.timedelta(days=1, microseconds=5),
    b"\xff\xfe\xfb\xef",
    uuid.UUID(int=3),
    Colour.RED,
    {1, 2},
    (1, "x"),
    {Colour.BLUE: b"\x80"},
    None,
    INNER,
    ORDER,
    math.inf,
)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Everything, EVERYTHING),
        (Moved[int], Moved[int](5)),
        (Moved[Inner], Moved[Inner](INNER)),
        (Moved[bytes], Moved[bytes](b"\xff")),
        (Shipped, Shipped(colour=Colour.BLUE, order=ORDER, parcels={1, 2})),
        (RawEvent, RawEvent(model=RawModel(raw=b"\xff\xfe", number=math.inf))),
        (TextEvent, TextEvent(model=TextModel(raw="ü".encode()))),
        (NotificationEvent[Order], NotificationEvent[Order](event_name="Placed", payload=ORDER)),
        (NotificationEvent[RawModel], NotificationEvent[RawModel](event_name="R", payload=RawModel(raw=b"\xff"))),
        (NotificationEvent[int], NotificationEvent[int](event_name="N", payload=1, event_timestamp=NAIVE)),
        (DCNotificationEvent[Order], DCNotificationEvent[Order]("Placed", ORDER, headers={"a": "b"})),
        (DCNotificationEvent[Inner], DCNotificationEvent[Inner]("Placed", INNER, correlation_id="c")),
        (DCNotificationEvent[RawModel], DCNotificationEvent[RawModel]("R", RawModel(raw=b"\xff"))),
        (DCNotificationEvent[TextModel], DCNotificationEvent[TextModel]("R", TextModel(raw=b"text"))),
        (Custom, Custom(3)),
        (Buy, Buy(amount=decimal.Decimal("9.99"))),
        (BuyDC, BuyDC(b"\xff")),
        (Bought, Bought(at=AWARE)),
        (BoughtDC, BoughtDC(b"\xff")),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_message_survives_json(kind: Any, message: Any) -> None:
    """What default_serializer writes, JsonDeserializer reads as the same message."""
    written = default_serializer(message)
    result = JsonDeserializer(kind)(written)
    assert result == message
    assert type(result) is type(message)
    assert JsonDeserializer(kind)(written.decode()) == message


@given(
    raw=st.binary(),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    number=st.floats(allow_nan=False),
    when=st.datetimes(timezones=st.none() | st.just(dt.timezone.utc)),
    text=st.text(),
)
def test_dataclass_event_survives_json_whatever_it_holds(
    raw: bytes, amount: decimal.Decimal, number: float, when: dt.datetime, text: str
) -> None:
    """Any bytes, decimal, float, time and text survive in a dataclass event, alone and nested."""
    event = dataclasses.replace(
        EVERYTHING, raw=raw, amount=amount, number=number, inner=Inner(raw, when), pair=(1, text)
    )
    assert JsonDeserializer(Everything)(default_serializer(event)) == event


@given(payload=st.builds(RawModel, raw=st.binary(), number=st.floats(allow_nan=False)), name=st.text())
def test_pydantic_event_survives_json_whatever_it_holds(payload: RawModel, name: str) -> None:
    """Any bytes and floats survive in a payload whose model asks for base64 and strings."""
    event = NotificationEvent[RawModel](event_name=name, payload=payload)
    assert JsonDeserializer(NotificationEvent[RawModel])(default_serializer(event)) == event


def test_json_is_json_that_anybody_reads() -> None:
    """Infinity is written as a string, since JSON has no number for it."""
    assert json.loads(default_serializer(EVERYTHING), parse_constant=pytest.fail)["number"] == "Infinity"


def test_nothing_gives_nothing() -> None:
    """A message without a body is None."""
    assert JsonDeserializer[Custom](Custom)(None) is None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"\xff", ""),
        ("nonsense", "expected"),
        (b"[1]", "a JSON object is expected, not an array"),
        (b'"text"', "a JSON object is expected, not a string"),
        (b"1.5", "a JSON object is expected, not a number"),
        (b"true", "a JSON object is expected, not a boolean"),
        (b"null", "a JSON object is expected, not null"),
        (b"{}", "number"),
        (b'{"cls": 1, "number": 2}', "cls"),
        (5, ""),
    ],
)
def test_unreadable_data_is_returned_as_an_error_value(data: Any, told: str) -> None:
    """Whatever is wrong with the data is returned, with the data, and never raised."""
    result = JsonDeserializer(Custom)(data)
    assert isinstance(result, DeserializeJsonError)
    assert told in result.error_message
    assert issubclass(result.error_type, Exception)
    assert result.message_data == data


def test_invalid_member_is_told_with_its_name() -> None:
    """The error of a model names the field that does not fit."""
    data = b'{"event_name": "Placed", "payload": {"order_id": "no"}}'
    result = JsonDeserializer(NotificationEvent[Order])(data)
    assert isinstance(result, DeserializeJsonError)
    assert result.error_type is pydantic.ValidationError
    assert "payload.order_id" in result.error_message


def test_error_value_is_frozen_and_no_exception() -> None:
    """The documented error is a frozen dataclass, compared by its fields."""
    error = DeserializeJsonError("bad", ValueError, b"x")
    assert error == DeserializeJsonError(error_message="bad", error_type=ValueError, message_data=b"x")
    assert not isinstance(error, BaseException)
    with pytest.raises(dataclasses.FrozenInstanceError):
        error.error_message = "good"  # type: ignore[misc]


def test_cancellation_and_exit_are_not_bad_data() -> None:
    """What is no Exception leaves a deserializer as itself."""

    class Exits(Custom):
        @classmethod
        def from_dict(cls, **kwargs: Any) -> Custom:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        JsonDeserializer(Exits)(b"{}")


def test_model_without_from_dict_is_refused_at_once() -> None:
    """A deserializer that could never work is not made."""
    with pytest.raises(BindingError, match="int has no from_dict") as caught:
        JsonDeserializer(int)  # type: ignore[type-var]
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, CQRSError)


@dataclasses.dataclass(frozen=True)
class Wired(DCEvent):
    read_camel_case = True

    user_id: int
    address_line2: Annotated[str, pydantic.Field(max_length=5)]


def test_camel_case_is_read_where_an_event_asks_for_it() -> None:
    """Other producers' spelling is read; the constraints of a field hold."""
    assert JsonDeserializer(Wired)(b'{"userId": 1, "addressLine2": "x"}') == Wired(1, "x")
    assert isinstance(JsonDeserializer(Wired)(b'{"userId": 1, "addressLine2": "too long"}'), DeserializeJsonError)
