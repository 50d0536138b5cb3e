"""Requests: commands and queries.

``class CreateOrder(cqrs.Request[OrderCreated])`` names the response, and type checkers infer
``await mediator.send(CreateOrder(...))`` from it. Plain ``cqrs.Request`` stays valid and gives ``Any``.
"""

from __future__ import annotations

import abc
import dataclasses
import types
from typing import Any, Generic

import pydantic
from typing_extensions import Self, TypeVar

from cqrs._message_forms import DataclassMessage, PydanticMessage

ResponseT = TypeVar("ResponseT", default=Any)
"""The response that a request asks for."""

ReqT = TypeVar("ReqT", bound="IRequest[Any]", contravariant=True)
"""The request that a handler takes."""

ResT = TypeVar("ResT", covariant=True)
"""The response that a handler gives."""


# Invariant on purpose: with a covariant parameter a checker would join two responses and let a
# handler with another response pass.
class IRequest(abc.ABC, Generic[ResponseT]):
    """What every request can do. Implement it for requests that are neither pydantic nor dataclass."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The request as a dictionary of its fields."""

    @classmethod
    @abc.abstractmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """A request made of its fields."""


@dataclasses.dataclass
class DCRequest(DataclassMessage, IRequest[ResponseT]):
    """A request that is a dataclass."""


class PydanticRequest(PydanticMessage, IRequest[ResponseT]):
    """A request that is a pydantic model. ``Request`` is this class."""

    # Naming the response is for type checkers and for bind(); it makes no new model class.
    def __class_getitem__(cls, params: Any) -> Any:
        return types.GenericAlias(cls, params)

    # Models that users make generic themselves go to pydantic, without a detour: it looks at who calls it,
    # to find out under which name the new class can be pickled.
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__class_getitem__" not in cls.__dict__:
            cls.__class_getitem__ = pydantic.BaseModel.__dict__["__class_getitem__"]  # type: ignore[method-assign]


# ResponseT is no field of the model. Without this, pydantic would ask every generic subclass to
# list it: ``class Page(Request, Generic[T])`` would raise TypeError.
PydanticRequest.__pydantic_generic_metadata__["parameters"] = ()

Request = PydanticRequest
