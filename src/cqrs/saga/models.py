"""The context of a saga: the data that its steps share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic
from typing_extensions import Self, TypeVar

from cqrs._message_forms import DATACLASS_CONFIG, dataclass_from_dict, dataclass_to_dict


@dataclasses.dataclass
class SagaContext:
    """The base of saga contexts. Subclasses are dataclasses."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = DATACLASS_CONFIG

    def to_dict(self) -> dict[str, Any]:
        """The context as a dictionary of its fields, nested dataclasses included."""
        return dataclass_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A context made of its fields, converted to their declared types.

        :raises pydantic.ValidationError: a field is missing or does not convert.
        """
        return dataclass_from_dict(cls, data)

    def model_dump(self) -> dict[str, Any]:
        """The same as :meth:`to_dict`."""
        return self.to_dict()


ContextT = TypeVar("ContextT", bound=SagaContext)
"""The context that a saga and its steps share."""
