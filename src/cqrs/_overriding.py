"""Whether somebody put another method in the place of one of ours: in a subclass, or on an instance as tests do."""

from __future__ import annotations

import inspect
from typing import Any


def is_overridden(instance: object, base: type[Any], method: str) -> bool:
    """Whether ``instance`` has a ``method`` of its own, and not that of ``base``."""
    return inspect.getattr_static(instance, method, None) is not inspect.getattr_static(base, method)
