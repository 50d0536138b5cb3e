"""The context's way into the storage and back: no value is lost or changed, or nothing begins."""

from __future__ import annotations

import dataclasses
import enum
import math
import uuid
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Optional

import pydantic
import pytest
from anyio.lowlevel import checkpoint

from cqrs import Saga, SagaContext, SagaStepHandler
from cqrs.exceptions import SerializationError


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Kind(str, enum.Enum):
    GIFT = "gift"


@dataclasses.dataclass
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclasses.dataclass
class Line:
    sku: str
    price: Money
    tags: set[str] = dataclasses.field(default_factory=set)


class Customer(pydantic.BaseModel):
    name: str
    since: date


@dataclasses.dataclass
class Everything(SagaContext):
    raw: bytes = b""
    price: Decimal = Decimal(0)
    at: datetime = datetime(2000, 1, 1, tzinfo=timezone.utc)
    lasts: timedelta = timedelta()
    order_id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
    colour: Colour = Colour.RED
    level: Level = Level.HIGH
    kind: Kind = Kind.GIFT
    money: Money = dataclasses.field(default_factory=lambda: Money(Decimal(0)))
    lines: list[Line] = dataclasses.field(default_factory=list)
    by_id: dict[uuid.UUID, Money] = dataclasses.field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    maybe: Optional[Money] = None  # noqa: UP045 - the older form is what is tested
    number: float = 0.0
    customer: Customer | None = None
    anything: Any = None


FILLED: dict[str, Any] = {
    "raw": b"\x00\xff\xfe binary",
    "price": Decimal("10.10000000000000000000000000001"),
    "at": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "lasts": timedelta(days=1, microseconds=1),
    "order_id": uuid.UUID(int=2**128 - 1),
    "money": Money(Decimal("0.10"), "CHF"),
    "lines": [Line("a", Money(Decimal(1)), {"x", "y"}), Line("b", Money(Decimal(2)))],
    "by_id": {uuid.UUID(int=5): Money(Decimal("5.5"))},
    "pair": (7, "seven"),
    "maybe": Money(Decimal(-1)),
    "customer": Customer(name="Ada", since=date(1815, 12, 10)),
    "anything": {"nested": [1, None, "two"]},
}

seen: list[Any] = []


class Watch(SagaStepHandler[Everything, None]):
    async def act(self, context: Everything) -> Any:
        await checkpoint()
        seen.append(context)


class EverythingSaga(Saga[Everything]):
    steps = [Watch, Watch]


async def round_trip(lab: Any, context: Everything, build: Any = Everything, saga: Any = EverythingSaga) -> Any:
    """What the second step finds in recovery, where the first one left ``context``."""
    seen.clear()
    lab.context = context
    async with lab.transaction(saga) as transaction:
        await anext(transaction)
    assert seen == [context]
    await lab.recover(saga, build)
    assert await lab.status() == "completed"
    return seen[-1]


@pytest.mark.parametrize("name", FILLED)
async def test_each_kind_of_value_comes_back(lab: Any, name: str) -> None:
    """A field comes back from the storage equal, and of its type."""
    context = Everything(**{name: FILLED[name]})
    found = await round_trip(lab, context)
    assert found is not context
    assert found == context
    assert type(getattr(found, name)) is type(FILLED[name])


async def test_all_of_them_come_back(lab: Any) -> None:
    """A context with everything in it comes back equal."""
    context = Everything(**FILLED)
    assert await round_trip(lab, context) == context


@pytest.mark.parametrize("number", [math.inf, -math.inf, 0.1, 1e308, -0.0])
async def test_floats_come_back(lab: Any, number: float) -> None:
    """Infinite numbers have a form too."""
    found = await round_trip(lab, Everything(number=number))
    assert found.number == number
    assert math.copysign(1, found.number) == math.copysign(1, number)


async def test_a_number_that_is_none_comes_back(lab: Any) -> None:
    """So has what is not a number."""
    seen.clear()
    lab.context = Everything(number=math.nan)
    async with lab.transaction(EverythingSaga) as transaction:
        await anext(transaction)
    await lab.recover(EverythingSaga, Everything)
    assert math.isnan(seen[-1].number)


async def test_a_naive_datetime_stays_naive(lab: Any) -> None:
    """A datetime gets no time zone on the way."""
    naive = datetime(2024, 1, 1, 12)
    assert (await round_trip(lab, Everything(at=naive))).at == naive


async def test_what_is_stored_is_json(lab: Any) -> None:
    """A storage is given JSON's types alone."""
    import json

    lab.context = Everything(**FILLED)
    await lab.run(EverythingSaga)
    stored = await lab.stored()
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored


async def test_a_context_that_is_gone_on_with_gets_what_is_stored(lab: Any) -> None:
    """Where a run goes on with a saga, its own context gets the stored values, converted."""
    lab.context = Everything(**FILLED)
    async with lab.transaction(EverythingSaga) as transaction:
        await anext(transaction)
    lab.context = fresh = Everything()
    await lab.run(EverythingSaga)
    assert fresh == Everything(**FILLED)
    assert seen[-1] is fresh


async def test_a_function_as_context_builder(lab: Any) -> None:
    """``recover_saga`` takes a function that makes the context of the stored dictionary."""
    given: list[Any] = []

    def build(stored: dict[str, Any]) -> Everything:
        given.append(stored)
        return Everything(raw=b"built")

    assert (await round_trip(lab, Everything(), build)).raw == b"built"
    assert isinstance(given[0], dict)
    assert given[0]["price"] == "0"


@dataclasses.dataclass
class OwnForm(SagaContext):
    secret: str = ""
    count: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"s": self.secret[::-1], "n": self.count}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OwnForm:
        return cls(data["s"][::-1], data["n"])


class WatchOwn(SagaStepHandler[OwnForm, None]):
    async def act(self, context: OwnForm) -> Any:
        context.count += 1
        seen.append(context)


class OwnFormSaga(Saga[OwnForm]):
    steps = [WatchOwn, WatchOwn]


async def test_a_context_with_a_form_of_its_own(lab: Any) -> None:
    """A context that overrides ``to_dict`` and ``from_dict`` is stored as they say."""
    lab.context = OwnForm("abc")
    async with lab.transaction(OwnFormSaga) as transaction:
        await anext(transaction)
    assert await lab.stored() == {"s": "cba", "n": 1}
    await lab.recover(OwnFormSaga, OwnForm)
    assert seen[-1] == OwnForm("abc", 2)
    assert await lab.stored() == {"s": "cba", "n": 2}


async def test_the_documented_methods_of_a_context() -> None:
    """``to_dict``, ``from_dict`` and ``model_dump`` work on the fields, nested dataclasses included."""
    context = Everything(**FILLED)
    assert context.to_dict()["money"] == {"amount": Decimal("0.10"), "currency": "CHF"}
    assert context.model_dump() == context.to_dict()
    assert Everything.from_dict(context.to_dict()) == context
    with pytest.raises(pydantic.ValidationError):
        Everything.from_dict({"price": "no number"})


class Unstorable:
    """Has no form in JSON."""


async def test_a_value_without_a_form_at_the_start(lab: Any, how: str) -> None:
    """SerializationError names the context, and nothing has begun."""
    lab.context = Everything(anything=Unstorable())
    options = {} if how == "transaction" else {"context_type": Everything}
    seen.clear()
    with pytest.raises(SerializationError, match=r"Everything.*JSON.*Unstorable"):
        await lab.run(EverythingSaga, how, **options)
    assert seen == []
    assert lab.storage.commits == []


async def test_a_value_without_a_form_that_a_step_puts_there(lab: Any, how: str) -> None:
    """The saga is rolled back, the step that put it there included; the context that was stored before stays."""

    async def spoil(context: Any) -> None:
        context.total = 1
        context.note = Unstorable()

    with pytest.raises(SerializationError):
        await lab.run(lab.saga(lab.step("A"), lab.step("B", spoil), lab.step("C")), how)
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"
    assert (await lab.stored())["note"] is None
    assert {"B completed", "~B completed"} <= set(await lab.history())


async def test_a_value_without_a_form_that_a_compensation_puts_there(lab: Any, how: str) -> None:
    """It keeps no compensation from being logged."""

    async def spoil(context: Any) -> None:
        context.note = Unstorable()

    saga = lab.saga(lab.step("A"), lab.step("B", undo=spoil), lab.step("C", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert lab.log == ["A", "B", "C", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_stored_context_that_no_longer_fits(lab: Any) -> None:
    """Recovery raises what conversion raised, leaves the saga as it is, gives it back and counts the attempt."""

    async with lab.transaction(lab.saga(lab.step("A"), lab.step("B"))) as transaction:
        await anext(transaction)
    with pytest.raises(pydantic.ValidationError):
        await lab.recover(lab.saga(lab.step("A"), lab.step("B")), NewOrder)
    record = await lab.storage.load_saga(lab.id)
    assert (str(record.status), record.locked_by, record.recovery_attempts) == ("running", None, 1)
    assert lab.log == ["A"]


@dataclasses.dataclass
class NewOrder(SagaContext):
    must: int
