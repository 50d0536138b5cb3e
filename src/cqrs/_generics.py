"""What a class was parameterised with: ``RequestHandler[CreateOrder, OrderCreated]`` and its subclasses."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from typing_extensions import TypeVar, get_original_bases


def type_arguments(klass: type, origin: type) -> tuple[Any, ...] | None:
    """The arguments that ``klass`` gives the generic class ``origin``, however far down its bases.

    Type variables that stay open come back as themselves; None where ``klass`` does not
    derive from ``origin`` or derives from it without naming arguments.
    """
    if klass is origin:
        return None
    for base in _parameterised_bases(klass):
        base_origin = typing.get_origin(base) or base
        if not (is_class(base_origin) and issubclass(base_origin, origin)):
            continue
        # Some aliases give None for the type of None, others that type.
        arguments = tuple(types.NoneType if argument is None else argument for argument in typing.get_args(base))
        if base_origin is origin:
            return arguments or None
        inherited = type_arguments(base_origin, origin)
        if inherited is not None:
            return tuple(substitute(argument, _bindings(base_origin, arguments)) for argument in inherited)
    return None


def concrete_argument(klass: type, origin: type, position: int) -> Any | None:
    """The argument at ``position`` where it is a class or special form; None where it is open, ``Any`` or absent."""
    arguments = type_arguments(klass, origin)
    if arguments is None or len(arguments) <= position:
        return None
    argument = arguments[position]
    unknown = argument is Any or is_open(argument) or isinstance(argument, (str, typing.ForwardRef))
    return None if unknown else argument


def concrete_class(klass: type, origin: type, position: int) -> type | None:
    """The argument at ``position`` where it is a plain class, so that ``issubclass`` can be asked of it."""
    argument = concrete_argument(klass, origin, position)
    return argument if is_class(argument) else None


def is_open(annotation: Any) -> bool:
    """Whether a type variable is left in ``annotation``."""
    return isinstance(annotation, TypeVar) or bool(getattr(annotation, "__parameters__", ()))


def substitute(annotation: Any, bindings: Mapping[Any, Any]) -> Any:
    """``annotation`` with its type variables replaced by what ``bindings`` holds for them."""
    if isinstance(annotation, TypeVar):
        return bindings.get(annotation, annotation)
    parameters: tuple[Any, ...] = getattr(annotation, "__parameters__", ())
    if not parameters or is_class(annotation):
        return annotation
    return annotation[tuple(bindings.get(parameter, parameter) for parameter in parameters)]


def _parameterised_bases(klass: type) -> Sequence[Any]:
    try:
        return get_original_bases(klass)
    except TypeError:
        return klass.__bases__


def _bindings(generic: type, arguments: Sequence[Any]) -> dict[Any, Any]:
    parameters: tuple[Any, ...] = getattr(generic, "__parameters__", ())
    return dict(zip(parameters, arguments, strict=False))


def is_class(annotation: Any) -> TypeGuard[type]:
    """Whether ``annotation`` is a class of which ``issubclass`` can be asked.

    ``list[int]``, to Python 3.10, and ``Any``, to later ones, are classes too; here they are not.
    """
    return isinstance(annotation, type) and annotation is not Any and not is_generic_alias(annotation)


def is_generic_alias(annotation: Any) -> bool:
    """Whether ``annotation`` is a class with arguments that Python kept apart from the class itself."""
    return isinstance(annotation, types.GenericAlias) or typing.get_origin(annotation) is not None
