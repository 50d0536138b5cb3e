"""Generic dataclasses as classes of their own: ``DCNotificationEvent[Payload]``.

Python gives a generic dataclass with arguments no class of its own, so an instance does not know
its arguments: it can be found neither in a map by its type nor rebuilt from a dictionary.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from cqrs._generics import is_open, substitute

_CACHE = "__cqrs_specialised__"
_ALIAS = "__cqrs_alias__"


def specialised_dataclass(generic: type, alias: Any) -> Any:
    """The class for ``alias`` of the dataclass ``generic``; the alias itself while a type variable is open.

    The same arguments always give the same class.
    """
    arguments = typing.get_args(alias)
    if any(is_open(argument) for argument in arguments):
        return alias
    known: dict[Any, type] | None = generic.__dict__.get(_CACHE)
    if known is None:
        known = {}
        setattr(generic, _CACHE, known)
    if arguments not in known:
        known[arguments] = _specialise(generic, alias)
    return known[arguments]


def _specialise(generic: type, alias: Any) -> type:
    bindings = dict(zip(getattr(generic, "__parameters__", ()), typing.get_args(alias), strict=False))
    hints = typing.get_type_hints(generic, include_extras=True)
    annotations = {
        field.name: substitute(hints[field.name], bindings)
        for field in dataclasses.fields(typing.cast(Any, generic))
        if is_open(hints[field.name])
    }
    names = ", ".join(getattr(argument, "__name__", repr(argument)) for argument in typing.get_args(alias))
    name = f"{generic.__name__}[{names}]"

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(
            {field: default for field, default in _defaults(generic).items() if field in annotations},
            __annotations__=annotations,
            __module__=generic.__module__,
            __qualname__=name,
            __reduce__=_reduce,
            __hash__=generic.__hash__,
            **{_ALIAS: (generic, typing.get_args(alias))},
        )

    return dataclasses.dataclass(frozen=True)(types.new_class(name, (generic,), exec_body=body))


def _defaults(generic: type) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, generic)):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = dataclasses.field(default_factory=field.default_factory)
    return defaults


# A specialised class cannot be imported by its name, so pickle is told how to make it again.
def _reduce(self: Any) -> tuple[Any, ...]:
    generic, arguments = getattr(type(self), _ALIAS)
    return _rebuild, (generic, arguments, dict(vars(self)))


def _rebuild(generic: Any, arguments: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    instance = object.__new__(generic[arguments])
    instance.__dict__.update(fields)
    return instance
