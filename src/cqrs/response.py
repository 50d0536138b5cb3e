"""Responses: what a request handler gives back."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

from typing_extensions import Self

from cqrs._message_forms import DataclassMessage, PydanticMessage


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
class DCResponse(DataclassMessage, IResponse):
    """A response that is a dataclass."""


class PydanticResponse(PydanticMessage, IResponse):
    """A response that is a pydantic model. ``Response`` is this class."""


Response = PydanticResponse
