"""Whether somebody put another method in the place of one of ours: in a subclass, or on an instance as tests do."""

from __future__ import annotations

from typing import Any


def is_overridden(instance: object, base: type[Any], method: str) -> bool:
    """Whether ``instance`` has a ``method`` of its own, and not that of ``base``."""
    return overrides(type(instance), base, method) or method in getattr(instance, "__dict__", ())


def overrides(klass: type[Any], base: type[Any], method: str) -> bool:
    """Whether ``klass`` has a ``method`` of its own, and not that of ``base``."""
    return getattr(klass, method, None) is not getattr(base, method)
