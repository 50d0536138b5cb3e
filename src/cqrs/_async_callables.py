"""Whether something can be awaited when it is called, as far as that is known without calling it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any


def is_surely_not_async(function: Callable[..., Any]) -> bool:
    """Whether ``function`` is a plain ``def`` that does not say that it returns an awaitable or async iterator.

    Decorated functions are judged by what they wrap. What is not written in Python passes.
    """
    innermost = inspect.unwrap(function)
    if not inspect.isfunction(innermost):
        return False
    if inspect.iscoroutinefunction(innermost) or inspect.isasyncgenfunction(innermost):
        return False
    return not _promises_async(innermost)


def _promises_async(function: Callable[..., Any]) -> bool:
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        return any(word in annotation for word in ("Awaitable", "Coroutine", "AsyncIterator", "AsyncGenerator"))
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, (Awaitable, AsyncIterator))
