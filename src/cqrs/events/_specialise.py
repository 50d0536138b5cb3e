"""Generic dataclasses as classes of their own: ``DCNotificationEvent[Payload]``.

Python gives a generic dataclass with arguments no class of its own, so an instance does not know
its arguments: it can be found neither in a map by its type nor rebuilt from a dictionary.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Any, TypeAlias

from cqrs._generics import is_class, is_open, substitute, type_arguments

_Field: TypeAlias = "dataclasses.Field[Any]"

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
    arguments = typing.get_args(alias)
    fields = _closed_fields(generic, arguments)
    name = f"{generic.__name__}[{', '.join(_name_of(argument) for argument in arguments)}]"

    def body(namespace: dict[str, Any]) -> None:
        namespace.update({field.name: declared for field, _, declared in fields if declared is not None})
        namespace.update(
            __annotations__={field.name: annotation for field, annotation, _ in fields},
            __module__=generic.__module__,
            __qualname__=name,
            __orig_bases__=(alias,),
            __reduce_ex__=_reduce_ex,
        )
        namespace[_ALIAS] = (generic, arguments)

    specialised: Any = types.new_class(name, (generic,), exec_body=body)
    # All but the constructor is inherited, with what the generic class may have written itself.
    return typing.cast("type", _as_frozen(specialised))


_FIELD_OPTIONS = ("default", "default_factory", "init", "repr", "hash", "compare", "metadata", "kw_only")
_as_frozen = dataclasses.dataclass(frozen=True, repr=False, eq=False)


def _closed_fields(generic: type, arguments: tuple[Any, ...]) -> list[tuple[_Field, Any, Any]]:
    """The fields of open types, each with its type filled in and its declaration."""
    hints = typing.get_type_hints(generic, include_extras=True)
    bindings = dict(zip(_parameters(generic), arguments, strict=False))
    closed: list[tuple[_Field, Any, Any]] = []
    for field in dataclasses.fields(typing.cast("Any", generic)):
        if is_open(hints[field.name]):
            annotation = substitute(hints[field.name], _seen_by_owner(generic, field.name, bindings))
            closed.append((field, annotation, _declared_again(field)))
    return closed


def _seen_by_owner(generic: type, field_name: str, bindings: dict[Any, Any]) -> dict[Any, Any]:
    """What the type variables of the class that declares the field stand for."""
    owner = next(base for base in generic.__mro__ if field_name in inspect.get_annotations(base))
    passed_on = type_arguments(generic, owner)
    if passed_on is None:
        return bindings
    return dict(zip(_parameters(owner), (substitute(argument, bindings) for argument in passed_on), strict=False))


def _declared_again(field: _Field) -> Any:
    return dataclasses.field(**{option: getattr(field, option) for option in _FIELD_OPTIONS})


def _parameters(generic: type) -> tuple[Any, ...]:
    return getattr(generic, "__parameters__", ())


def _name_of(argument: Any) -> str:
    return argument.__name__ if is_class(argument) else repr(argument)


# A specialised class cannot be imported by its name, so pickle is told how to make it again.
def _reduce_ex(self: object, protocol: typing.SupportsIndex) -> tuple[Any, ...]:
    plain: tuple[Any, ...] = typing.cast("Any", object.__reduce_ex__(self, protocol))
    alias = vars(type(self)).get(_ALIAS)
    return plain if alias is None else (_make, alias, *plain[2:])


def _make(generic: Any, arguments: tuple[Any, ...]) -> Any:
    return object.__new__(generic[arguments])
