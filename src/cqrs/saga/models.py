"""The context of a saga: the data that its steps share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias, cast

import pydantic
import pydantic_core
from pydantic.alias_generators import to_snake
from typing_extensions import Self, TypeVar

from cqrs._message_forms import (
    DATACLASS_CONFIG,
    dataclass_from_dict,
    dataclass_from_json,
    dataclass_to_dict,
    dataclass_to_json,
)
from cqrs._overriding import overrides
from cqrs.exceptions import SerializationError

_DUMPER = "__cqrs_context_dumper__"


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

ContextBuilder: TypeAlias = "type[ContextT] | Callable[[dict[str, Any]], ContextT]"
"""Makes a context of what is stored: its class, or a function that takes the dictionary."""


def dump_context(context: SagaContext) -> dict[str, Any]:
    """``context`` in JSON's types, as storages keep it.

    :raises SerializationError: a value in it has no form in JSON.
    """
    try:
        return _dumper_of(type(context))(context)
    except (pydantic_core.PydanticSerializationError, pydantic.PydanticSchemaGenerationError) as error:
        raise SerializationError(type(context), f"a storage keeps it as JSON, and {error}") from error


def load_context(builder: ContextBuilder[ContextT], stored: dict[str, Any]) -> ContextT:
    """A context made of what :func:`dump_context` gave.

    :raises pydantic.ValidationError: a field is missing or does not convert.
    """
    if not isinstance(builder, type):
        return builder(stored)
    context_type = cast("type[ContextT]", builder)
    if not hasattr(context_type, "from_dict"):
        return context_type(**stored)
    if _has_own_form(context_type):
        return context_type.from_dict(stored)
    return dataclass_from_json(context_type, _by_field_name(context_type, stored))


def _by_field_name(context_type: type[SagaContext], stored: dict[str, Any]) -> dict[str, Any]:
    # python-cqrs stores the fields of a context in camelCase.
    names = {field.name for field in dataclasses.fields(context_type)}
    if stored.keys() <= names:
        return stored
    return {name if name in names else to_snake(name): value for name, value in stored.items()}


def adopt(context: SagaContext, other: SagaContext, unlike: SagaContext | None = None) -> None:
    """Give ``context`` the values of ``other``.

    :param unlike: only those that are different from the values of this one.
    """
    for field in dataclasses.fields(context):
        value = getattr(other, field.name)
        if unlike is None or _differ(getattr(unlike, field.name), value):
            object.__setattr__(context, field.name, value)


def _differ(one: object, other: object) -> bool:
    return type(one) is not type(other) or one != other


# Kept in the class's own namespace: it is chosen once a class and dies with it.
def _dumper_of(context_type: type[SagaContext]) -> Callable[[SagaContext], dict[str, Any]]:
    dumper: Callable[[SagaContext], dict[str, Any]] | None = context_type.__dict__.get(_DUMPER)
    if dumper is None:
        dumper = _dump_own_form if _has_own_form(context_type) else dataclass_to_json
        setattr(context_type, _DUMPER, dumper)
    return dumper


def _dump_own_form(context: SagaContext) -> dict[str, Any]:
    dumped: dict[str, Any] = pydantic_core.to_jsonable_python(context.to_dict(), inf_nan_mode="strings")
    return dumped


def _has_own_form(context_type: type[SagaContext]) -> bool:
    return overrides(context_type, SagaContext, "to_dict") or getattr(
        context_type.from_dict, "__func__", None
    ) is not getattr(SagaContext.from_dict, "__func__", None)
