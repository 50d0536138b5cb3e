"""Messages as JSON."""

from __future__ import annotations

from typing import Any

import pydantic
import pydantic_core

from cqrs._message_forms import DataclassMessage, PydanticMessage
from cqrs.events.event import ENVELOPE, DCNotificationEvent, PydanticNotificationEvent
from cqrs.exceptions import SerializationError
from cqrs.serializers._culprit import find_culprit
from cqrs.serializers._schema import schema_dump, schema_json

_FORMS_BY_SCHEMA = frozenset(
    kind.to_dict for kind in (DataclassMessage, PydanticMessage, DCNotificationEvent, PydanticNotificationEvent)
)

_WITH_ENVELOPE: tuple[type, ...] = (DCNotificationEvent, PydanticNotificationEvent)


def default_serializer(message: Any) -> bytes:
    """``message`` as JSON in UTF-8.

    An object with ``to_dict()`` is written as the dictionary that it gives, one with ``model_dump()``
    likewise, anything else as it is. Dates, decimals, UUIDs, enums, sets, dataclasses and pydantic
    models are written so that the type they are declared with reads them again.

    Bytes inside a message are URL-safe base64, which ``from_dict`` of the library's dataclasses reads
    again. A pydantic model writes its own bytes as its configuration says: text by default, for which
    they must be UTF-8; with ``ser_json_bytes="base64"`` and ``val_json_bytes="base64"`` any bytes
    survive. Infinity and NaN are the strings that a float is read from; a pydantic model writes
    null for them unless ``ser_json_inf_nan`` says otherwise.

    :param message: what to write; bytes are taken as written already and pass unchanged.
    :raises SerializationError: something in it has no JSON form; the error names its type and where it is.
    """
    if isinstance(message, (bytes, bytearray)):
        return bytes(message)
    if _is_written_by_schema(message):
        return _by_schema(message)
    return _by_value(message, _plain_form(message))


def _is_written_by_schema(message: object) -> bool:
    to_dict = getattr(type(message), "to_dict", None)
    return isinstance(message, pydantic.BaseModel) if to_dict is None else to_dict in _FORMS_BY_SCHEMA


def _by_schema(message: object) -> bytes:
    try:
        return schema_json(message, _unset_fields(message))
    except (ValueError, RecursionError) as error:
        raise SerializationError(type(message), _reason(error, message)) from error


def _by_value(message: object, form: object) -> bytes:
    try:
        return pydantic_core.to_json(form, bytes_mode="base64", inf_nan_mode="strings", fallback=_nested_form)
    except (ValueError, TypeError, RecursionError) as error:
        raise SerializationError(type(message), str(find_culprit(form) or error)) from error


def _unset_fields(message: object) -> set[str]:
    return {name for name in ENVELOPE if not getattr(message, name)} if isinstance(message, _WITH_ENVELOPE) else set()


def _plain_form(message: object) -> object:
    for method in ("to_dict", "model_dump"):
        dump = getattr(message, method, None)
        if callable(dump) and not isinstance(message, type):
            return dump()
    return message


def _nested_form(value: object) -> object:
    form = _plain_form(value)
    if form is value:
        raise TypeError(f"{type(value).__qualname__} has no JSON form")
    return form


def _reason(error: Exception, message: object) -> str:
    try:
        dump = schema_dump(message)
    except (ValueError, RecursionError):  # A serializer that the class declares has failed: the error tells of it.
        return str(error)
    return str(find_culprit(dump) or error)
