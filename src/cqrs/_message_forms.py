"""The two forms of requests, responses and events: dataclass and pydantic model, to and from dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import pydantic
import pydantic_core
from typing_extensions import Self

_T = TypeVar("_T")
_ADAPTER = "__cqrs_type_adapter__"

# Bytes and non-finite floats have a form in JSON that from_dict reads again.
DATACLASS_CONFIG = pydantic.ConfigDict(
    arbitrary_types_allowed=True, ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)
"""How the library's dataclasses are converted: set as ``__pydantic_config__``."""


class DataclassMessage:
    """The base of messages that are dataclasses."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = DATACLASS_CONFIG

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """An instance made of its fields, converted to their declared types.

        :raises pydantic.ValidationError: a field is missing or does not convert.
        """
        return dataclass_from_dict(cls, kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The fields under their own names, nested dataclasses as dictionaries."""
        return dataclass_to_dict(self)


class PydanticMessage(pydantic.BaseModel):
    """The base of messages that are pydantic models."""

    @classmethod
    def from_dict(cls, **kwargs: Any) -> Self:
        """An instance made of its fields, validated.

        :raises pydantic.ValidationError: a field is missing or does not convert.
        """
        return cls.model_validate(kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The fields, their values as Python objects."""
        return self.model_dump(mode="python")


def dataclass_to_dict(instance: object) -> dict[str, Any]:
    """The fields of ``instance`` under their own names, nested dataclasses as dictionaries."""
    # A dataclass does not check the values it is given: one of another type is given back as it is.
    dumped: dict[str, Any] = _adapter(type(instance)).dump_python(instance, warnings=False)
    return dumped


def dataclass_from_dict(klass: type[_T], fields: Mapping[str, Any]) -> _T:
    """An instance of ``klass``, its fields converted to their declared types.

    :raises pydantic.ValidationError: a field is missing or does not convert.
    """
    return _adapter(klass).validate_python(fields)


def dataclass_to_json(instance: object) -> dict[str, Any]:
    """The fields of ``instance`` in JSON's types, which :func:`dataclass_from_json` reads again.

    :raises pydantic_core.PydanticSerializationError: a value has no form in JSON.
    """
    dumped: dict[str, Any] = _adapter(type(instance)).dump_python(instance, mode="json", warnings=False)
    return dumped


def dataclass_from_json(klass: type[_T], fields: Mapping[str, Any]) -> _T:
    """An instance of ``klass``, its fields converted from JSON's types to their declared ones.

    :raises pydantic.ValidationError: a field is missing or does not convert.
    """
    # By way of a text: bytes, for one, have a form in JSON that is not recognised in Python's types.
    return _adapter(klass).validate_json(pydantic_core.to_json(fields))


def _adapter(klass: type[_T]) -> pydantic.TypeAdapter[_T]:
    # Kept in the class's own namespace: it is built once a class and dies with it.
    adapter: pydantic.TypeAdapter[_T] | None = klass.__dict__.get(_ADAPTER)
    if adapter is None:
        adapter = pydantic.TypeAdapter(klass)
        setattr(klass, _ADAPTER, adapter)
    return adapter
