"""Bound the time that handlers take."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, cast

import anyio

from cqrs.exceptions import HandlerTimeoutError, InvalidOptionError
from cqrs.middlewares.base import HandleType, StreamHandleType


class TimeoutMiddleware:
    """Cancels a handler that takes too long, waits until it has ended, and raises an error of its own.

    The time of a stream runs only while its handler works, not while the reader holds a result. The time of a
    handler that sends its results covers the whole run, waiting for a slow reader included.

    A TimeoutError of the handler's own leaves as itself.

    :param seconds: the time for a message's handler. ``math.inf`` sets no bound.
    :param overrides: other times, in seconds, for classes of messages and their subclasses; the
        nearest base class counts.
    :raises InvalidOptionError: a time is not greater than zero.
    """

    def __init__(self, seconds: float, *, overrides: Mapping[type, float] | None = None) -> None:
        self._seconds = seconds
        self._overrides = dict(overrides or {})
        for bound in (seconds, *self._overrides.values()):
            if not bound > 0:
                raise InvalidOptionError("the timeout", bound, "a number of seconds greater than zero")

    async def __call__(self, request: Any, handle: HandleType) -> Any:
        """Handle ``request`` within its time.

        :raises HandlerTimeoutError: the time was over, and the handler has ended.
        """
        seconds = self._seconds_for(request)
        if seconds == math.inf:
            return await handle(request)
        return await _within(seconds, handle(request), request, seconds)

    async def stream(self, request: Any, handle: StreamHandleType) -> AsyncIterator[Any]:
        """The results of ``handle(request)``, which altogether are made within the time.

        :raises HandlerTimeoutError: the time was over, and the handler has ended.
        """
        seconds = left = self._seconds_for(request)
        async with aclosing(cast("AsyncGenerator[Any]", handle(request))) as results:
            while True:
                began = anyio.current_time()
                try:
                    result = await _within(left, results.__anext__(), request, seconds)
                except StopAsyncIteration:
                    return
                left -= anyio.current_time() - began
                yield result

    def _seconds_for(self, message: object) -> float:
        if self._overrides:
            for base in type(message).__mro__:
                if base in self._overrides:
                    return self._overrides[base]
        return self._seconds


async def _within(seconds: float, work: Awaitable[Any], message: object, granted: float) -> Any:
    with anyio.move_on_after(seconds):
        return await work
    raise HandlerTimeoutError(type(message), granted)
