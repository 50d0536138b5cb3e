"""Log what is handled."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

from cqrs.middlewares.base import HandleType, StreamHandleType

_logger = logging.getLogger("cqrs")

_PLAIN = (str, int, float, bool, type(None))


class LoggingMiddleware:
    """Logs each message before it is handled, and its response or its failure after.

    Records go to the logger ``cqrs`` at level DEBUG and carry
    ``extra={"request_json_fields": {"request": {...}}, "to_mask": True}`` (``"response"`` after, ``"error"``
    on failure) for formatters that write JSON and mask secrets. While DEBUG is off it asks the
    logger once and does nothing else.

    A failure is raised on unchanged. A cancellation is none, and is not logged.
    """

    async def __call__(self, request: Any, handle: HandleType) -> Any:
        """Handle ``request``, and log it.

        :raises Exception: what the handler raised.
        """
        if not _logger.isEnabledFor(logging.DEBUG):
            return await handle(request)
        name = type(request).__name__
        _logger.debug("Handle %s request", name, extra=_extra("request", request))
        try:
            response = await handle(request)
        except Exception as error:
            _logger.debug("Request %s failed", name, exc_info=True, extra=_extra("error", error))
            raise
        _logger.debug("Request %s handled", name, extra=_extra("response", response))
        return response

    def stream(self, request: Any, handle: StreamHandleType) -> AsyncIterator[Any]:
        """The results of ``request``, logged at the beginning and at the end; the results themselves are not."""
        items = handle(request)
        return _logged(request, items) if _logger.isEnabledFor(logging.DEBUG) else items


async def _logged(request: Any, items: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    name = type(request).__name__
    _logger.debug("Handle %s request", name, extra=_extra("request", request))
    try:
        async with aclosing(cast(AsyncGenerator[Any, None], items)):
            async for item in items:
                yield item
    except Exception as error:
        _logger.debug("Request %s failed", name, exc_info=True, extra=_extra("error", error))
        raise
    _logger.debug("Request %s handled", name, extra=_extra("response", None))


def _extra(key: str, value: object) -> Mapping[str, object]:
    return {"request_json_fields": {key: _fields(value)}, "to_mask": True}


def _fields(value: Any) -> object:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_fields(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if not hasattr(value, "to_dict"):
        return repr(value)
    try:
        return value.to_dict()
    except Exception as error:  # noqa: BLE001 - a message that cannot be shown was handled all the same
        return f"<to_dict() of {type(value).__name__} failed: {error!r}>"
