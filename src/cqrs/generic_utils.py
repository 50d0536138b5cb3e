"""The arguments of generic handler classes, under the documented import path."""

from __future__ import annotations

from typing import Any

from cqrs._generics import type_arguments


def get_generic_args_for_origin(
    klass: type, origin_classes: tuple[type, ...], min_args: int = 1
) -> tuple[Any, ...] | None:
    """What ``klass`` was parameterised with, for the first of ``origin_classes`` that it derives from.

    :param min_args: how many arguments there must be. None where there are fewer, or none.
    """
    for origin in origin_classes:
        arguments = type_arguments(klass, origin)
        if arguments is not None and len(arguments) >= min_args:
            return arguments
    return None
