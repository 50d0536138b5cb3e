"""Options as they are given, checked where they are given."""

from __future__ import annotations

import enum
from typing import Any, TypeVar

from cqrs.exceptions import InvalidOptionError

_EnumT = TypeVar("_EnumT", bound=enum.Enum)


def enum_member(option: str, kind: type[_EnumT], value: Any) -> _EnumT:
    """The member of ``kind`` that ``value`` is, or whose value it is, as settings have it.

    :raises InvalidOptionError: there is none.
    """
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
        raise InvalidOptionError(option, value, f"one of {allowed}") from None


def at_least_one(option: str, value: Any) -> int:
    """``value``, where it is a whole number from one on.

    :raises InvalidOptionError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidOptionError(option, value, "a whole number, at least 1")
    return value


def seconds(option: str, value: Any, *, may_be_zero: bool = False) -> float:
    """``value``, where it is a number of seconds greater than zero, ``math.inf`` included.

    :raises InvalidOptionError: it is not.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (value > 0 or (may_be_zero and value == 0)):
        raise InvalidOptionError(option, value, "a number of seconds" + ("" if may_be_zero else " greater than zero"))
    return float(value)
