"""Responses: what a request handler gives back."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import pydantic
from typing_extensions import Self

from cqrs._dataclass_codec import DATACLASS_CONFIG, dataclass_from_dict, dataclass_to_dict


class IResponse(abc.ABC):
    """What every response can do. Implement it for responses that are neither pydantic nor dataclass."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The response as a dictionary of its fields."""

    @classmethod
    @abc.abstractmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """A response made of its fields."""


@dataclasses.dataclass
class DCResponse(IResponse):
    """A response that is a dataclass."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = DATACLASS_CONFIG

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """A response made of its fields, converted to their declared types.

        :raises pydantic.ValidationError: a field is missing or does not convert.
        """
        return dataclass_from_dict(cls, kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The response as a dictionary of its fields, nested dataclasses included."""
        return dataclass_to_dict(self)


class PydanticResponse(pydantic.BaseModel, IResponse):
    """A response that is a pydantic model. ``Response`` is this class."""

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """A response made of its fields, validated.

        :raises pydantic.ValidationError: a field is missing or does not convert.
        """
        return cls.model_validate(kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The response as a dictionary of its fields, values as Python objects."""
        return self.model_dump(mode="python")


Response = PydanticResponse
