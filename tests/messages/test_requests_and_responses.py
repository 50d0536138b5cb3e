"""Requests and responses of all three kinds."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import pickle
import uuid
from typing import Any, Generic

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeVar

import cqrs
from cqrs._generics import concrete_argument, type_arguments

T = TypeVar("T")


class CreateUserCommand(cqrs.Request):
    username: str
    email: str


class UserResponse(cqrs.Response):
    user_id: str
    username: str


@dataclasses.dataclass
class CreateProductCommand(cqrs.DCRequest):
    name: str
    price: float


@dataclasses.dataclass
class ProductResponse(cqrs.DCResponse):
    product_id: str
    name: str


class CustomRequest(cqrs.IRequest):
    def __init__(self, user_id: str, action: str) -> None:
        self.user_id = user_id
        self.action = action

    def to_dict(self) -> dict:
        return {"user_id": self.user_id, "action": self.action}

    @classmethod
    def from_dict(cls, **kwargs) -> CustomRequest:
        return cls(user_id=kwargs["user_id"], action=kwargs["action"])


class CustomResponse(cqrs.IResponse):
    def __init__(self, result: str, status: int) -> None:
        self.result = result
        self.status = status

    def to_dict(self) -> dict:
        return {"result": self.result, "status": self.status}

    @classmethod
    def from_dict(cls, **kwargs) -> CustomResponse:
        return cls(result=kwargs["result"], status=kwargs["status"])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (CreateUserCommand, {"username": "u", "email": "e"}),
        (UserResponse, {"user_id": "1", "username": "u"}),
        (CreateProductCommand, {"name": "n", "price": 1.5}),
        (ProductResponse, {"product_id": "1", "name": "n"}),
        (CustomRequest, {"user_id": "1", "action": "a"}),
        (CustomResponse, {"result": "r", "status": 1}),
    ],
)
def test_documented_kinds_go_to_dictionaries_and_back(kind: Any, fields: dict[str, Any]) -> None:
    """from_dict(**to_dict()) gives the same message again, for each documented kind."""
    message = kind.from_dict(**fields)
    assert type(message) is kind
    assert message.to_dict() == fields
    assert kind(**fields).to_dict() == fields
    assert kind.from_dict(**message.to_dict()).to_dict() == fields


def test_documented_kinds_are_requests_and_responses() -> None:
    """All are told by the interfaces; Request and Response are the pydantic kinds."""
    assert cqrs.Request is cqrs.PydanticRequest
    assert cqrs.Response is cqrs.PydanticResponse
    for kind in (CreateUserCommand, CreateProductCommand, CustomRequest):
        assert issubclass(kind, cqrs.IRequest)
    for kind in (UserResponse, ProductResponse, CustomResponse):
        assert issubclass(kind, cqrs.IResponse)


@dataclasses.dataclass
class Item:
    sku: uuid.UUID
    price: decimal.Decimal


@dataclasses.dataclass
class Buy(cqrs.DCRequest[ProductResponse]):
    items: list[Item]
    buyer: CreateUserCommand
    note: str | None = None


ITEM = Item(uuid.UUID(int=1), decimal.Decimal("1.10"))
BUY = Buy([ITEM], CreateUserCommand(username="u", email="e"))


def test_dataclass_request_converts_nested_fields() -> None:
    """Nested dataclasses and models become dictionaries and come back, strings become declared types."""
    dumped = BUY.to_dict()
    assert dumped["items"] == [{"sku": uuid.UUID(int=1), "price": decimal.Decimal("1.10")}]
    assert dumped["buyer"] == {"username": "u", "email": "e"}
    assert Buy.from_dict(**dumped) == BUY
    assert Buy.from_dict(items=[{"sku": str(ITEM.sku), "price": "1.10"}], buyer=dumped["buyer"]) == BUY


@pytest.mark.parametrize("fields", [{}, {"items": "no", "buyer": {}}])
def test_fields_that_do_not_convert_are_told(fields: dict[str, Any]) -> None:
    """A missing or wrong field is pydantic's validation error."""
    with pytest.raises(pydantic.ValidationError):
        Buy.from_dict(**fields)
    with pytest.raises(pydantic.ValidationError):
        CreateUserCommand.from_dict(**fields)
    with pytest.raises(pydantic.ValidationError):
        UserResponse.from_dict(**fields)


@given(
    st.lists(st.builds(Item, sku=st.uuids(), price=st.decimals(allow_nan=False, allow_infinity=False))),
    st.none() | st.text(),
)
def test_any_dataclass_request_goes_to_a_dictionary_and_back(items: list[Item], note: str | None) -> None:
    """from_dict(**to_dict()) is the identity."""
    request = Buy(items, BUY.buyer, note)
    assert Buy.from_dict(**request.to_dict()) == request


@pytest.mark.parametrize(
    "message", [BUY, BUY.buyer, ProductResponse("1", "n"), UserResponse(user_id="1", username="u")]
)
def test_messages_can_be_pickled_and_copied(message: Any) -> None:
    """Pickle and deepcopy give an equal message of the same type."""
    for twin in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert twin == message
        assert type(twin) is type(message)


class Created(cqrs.Response):
    number: int


class Create(cqrs.Request[Created]):
    number: int


class Page(cqrs.Request, Generic[T]):
    items: list[T]


class TypedPage(cqrs.Request[list[T]], Generic[T]):
    item: T


@dataclasses.dataclass
class CreateDC(cqrs.DCRequest[Created]):
    number: int


class ForwardNamed(cqrs.Request["Created | None"]):
    number: int


@pytest.mark.parametrize("kind", [Create, CreateDC])
def test_named_response_can_be_read_from_the_request(kind: Any) -> None:
    """Naming the response makes no difference to instances, and can be read from the class."""
    assert concrete_argument(kind, cqrs.IRequest, 0) is Created
    assert kind(number=1).to_dict() == {"number": 1}
    assert kind.from_dict(number="1").number == 1


@pytest.mark.parametrize("kind", [CreateUserCommand, CreateProductCommand, CustomRequest, Page, ForwardNamed])
def test_request_that_names_no_class_as_response_asks_for_none(kind: Any) -> None:
    """Where no response is named, or only by a string, nothing is known about it."""
    assert concrete_argument(kind, cqrs.IRequest, 0) is None


def test_generic_request_of_the_user_still_validates() -> None:
    """A generic pydantic request keeps pydantic's own generics."""
    assert Page[int](items=["1"]).items == [1]
    with pytest.raises(pydantic.ValidationError):
        Page[int](items=["no"])
    assert Page[int].from_dict(items=["2"]).to_dict() == {"items": [2]}
    assert TypedPage[int](item="3").item == 3


def test_named_response_makes_no_new_model_class() -> None:
    """cqrs.Request[Created] stands in no method resolution order."""
    assert Create.__mro__[1] is cqrs.PydanticRequest
    assert Create.model_json_schema()["title"] == "Create"


class Base(Generic[T]):
    pass


class Middle(Base[list[T]], Generic[T]):
    pass


class Leaf(Middle[int]):
    pass


class BelowLeaf(Leaf):
    pass


def test_type_arguments_are_found_through_all_bases() -> None:
    """Arguments are followed down the bases, type variables filled in on the way."""
    assert type_arguments(Leaf, Base) == (list[int],)
    assert type_arguments(BelowLeaf, Base) == (list[int],)
    assert type_arguments(BelowLeaf, Middle) == (int,)
    assert type_arguments(Base, Base) is None
    assert type_arguments(int, Base) is None
    assert concrete_argument(Middle, Base, 0) is None
    assert concrete_argument(Leaf, Base, 1) is None


class GenericRequest(cqrs.Request, Generic[T]):
    """A request that a user made generic."""

    value: T


NumberRequest = GenericRequest[int]


def test_a_generic_request_survives_pickle() -> None:
    """pydantic finds the name under which a class with arguments was made."""
    request = NumberRequest(value=1)
    assert pickle.loads(pickle.dumps(request)) == request
