"""JSON by the schema of a message's class."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import pydantic
import pydantic_core

_WRITER = "__cqrs_json_writer__"

# For values of undeclared types; what a class declares for its own fields goes first.
_DEFAULTS = pydantic_core.core_schema.CoreConfig(ser_json_bytes="base64", ser_json_inf_nan="strings")


def schema_json(message: object, unset: AbstractSet[str]) -> bytes:
    """``message`` as JSON, without the fields in ``unset``; each nested model by its own configuration."""
    # Dataclasses do not check the values they are given: a value of another type is written as it is.
    return _writer(type(message)).to_json(message, exclude=set(unset) or None, warnings=False)


def schema_dump(message: object) -> Any:
    """``message`` as Python objects, after the serializers that its class declares."""
    return _writer(type(message)).to_python(message, warnings=False)


def _writer(klass: type) -> pydantic_core.SchemaSerializer:
    # Kept in the class's own namespace: it is built once a class and dies with it.
    writer: pydantic_core.SchemaSerializer | None = klass.__dict__.get(_WRITER)
    if writer is None:
        writer = pydantic_core.SchemaSerializer(pydantic.TypeAdapter(klass).core_schema, _DEFAULTS)
        setattr(klass, _WRITER, writer)
    return writer
