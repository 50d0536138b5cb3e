"""From messages to their handlers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cqrs.dispatcher.event import EventDispatcher
    from cqrs.dispatcher.models import RequestDispatchResult, SagaDispatchResult
    from cqrs.dispatcher.request import RequestDispatcher
    from cqrs.dispatcher.saga import SagaDispatcher
    from cqrs.dispatcher.streaming import StreamingRequestDispatcher

_MODULE_OF = {
    "EventDispatcher": "event",
    "RequestDispatchResult": "models",
    "RequestDispatcher": "request",
    "SagaDispatchResult": "models",
    "SagaDispatcher": "saga",
    "StreamingRequestDispatcher": "streaming",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: these stand on much that imports other modules of this package.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


__all__ = [
    "EventDispatcher",
    "RequestDispatchResult",
    "RequestDispatcher",
    "SagaDispatchResult",
    "SagaDispatcher",
    "StreamingRequestDispatcher",
]
