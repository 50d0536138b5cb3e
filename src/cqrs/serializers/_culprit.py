"""What in a message has no JSON form, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias, cast

import pydantic_core

from cqrs.exceptions import name_of

FaultOf: TypeAlias = Callable[[object], "str | None"]
"""What is wrong with a value that has no parts."""


@dataclasses.dataclass(frozen=True)
class Culprit:
    """A value that cannot be written, and the path to it."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path or 'it'} {self.why}"


def find_culprit(value: object) -> Culprit | None:
    """The first value in ``value`` that has no JSON form; None where each has one.

    Bytes come last: most of them can be written, and which ones is not to be seen from here.
    """
    return _search(value, "", (), _unknown) or _search(value, "", (), _not_text)


def _search(value: object, path: str, above: tuple[int, ...], fault_of: FaultOf) -> Culprit | None:
    if id(value) in above:
        return Culprit(path, "contains itself.")
    parts = _parts(value)
    if parts is None:
        fault = fault_of(value)
        return Culprit(path, fault) if fault else None
    for name, part in parts:
        found = _search(part, path + name if path else name.lstrip("."), (*above, id(value)), fault_of)
        if found is not None:
            return found
    return None


def _parts(value: object) -> Iterator[tuple[str, object]] | None:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return ((f".{key}" if isinstance(key, str) else f"[{key!r}]", part) for key, part in items)
    if isinstance(value, (str, bytes, bytearray, type)):
        return None
    if isinstance(value, (Sequence, AbstractSet)):
        return ((f"[{index}]", part) for index, part in enumerate(cast("Iterable[object]", value)))
    if dataclasses.is_dataclass(value):
        return ((f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value))
    return None


def _unknown(value: object) -> str | None:
    try:
        pydantic_core.to_json(value, bytes_mode="base64")
    except (ValueError, TypeError):
        return (
            f"is of type {name_of(type(value))}, which has no JSON form: give its class a to_dict(), "
            f"declare a serializer for the field, or convert it before."
        )
    return None


def _not_text(value: object) -> str | None:
    if not isinstance(value, (bytes, bytearray)):
        return None
    try:
        value.decode()
    except UnicodeDecodeError:
        return (
            "holds bytes that are not UTF-8. Give the model that declares it "
            "model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')."
        )
    return None
