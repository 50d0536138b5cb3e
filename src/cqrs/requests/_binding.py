"""What may be bound to a request, and why not."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from cqrs._async_callables import is_surely_not_async
from cqrs._generics import concrete_argument
from cqrs.exceptions import RequestHandlerTypeError, name_of
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.request import IRequest
from cqrs.requests.request_handler import RequestHandler, SendStreamRequestHandler, StreamingRequestHandler

SINGLE_KINDS = (RequestHandler, StreamingRequestHandler, SendStreamRequestHandler)
STREAMING_KINDS = (StreamingRequestHandler, SendStreamRequestHandler)
ALL_KINDS = (*SINGLE_KINDS, CORRequestHandler)


def check_request_type(request_type: Any) -> None:
    """:raises RequestHandlerTypeError: ``request_type`` is not a class that requests can have."""
    if not isinstance(request_type, type):
        raise RequestHandlerTypeError(
            f"{request_type!r} is not a class: bind the class of the request, not an instance or an alias of it."
        )


def check_handler(handler: Any, kinds: tuple[type, ...]) -> None:
    """:raises RequestHandlerTypeError: ``handler`` is not an async handler class of one of ``kinds``."""
    expected = " or ".join(kind.__name__ for kind in kinds)
    if not isinstance(handler, type):
        raise RequestHandlerTypeError(
            f"{handler!r} is not a handler class: bind the class, a subclass of {expected}, and let the container make it."
        )
    if not issubclass(handler, kinds):
        raise RequestHandlerTypeError(f"{name_of(handler)} is not a handler of this kind: derive it from {expected}.")
    _check_handle_is_async(handler)


def check_chain(links: Sequence[Any]) -> None:
    """:raises RequestHandlerTypeError: ``links`` is not a chain of different CORRequestHandler classes."""
    if not links:
        raise RequestHandlerTypeError("A chain needs at least one CORRequestHandler; an empty list was bound.")
    for link in links:
        check_handler(link, (CORRequestHandler,))
    if len(set(links)) != len(links):
        raise RequestHandlerTypeError(
            f"A chain holds each handler once: {', '.join(name_of(link) for link in links)} repeats one. "
            f"Derive a class for the second place."
        )


def check_handles(handler: type, request_type: type) -> None:
    """:raises RequestHandlerTypeError: ``handler`` is declared for another request, or another response."""
    for kind in ALL_KINDS:
        handled = concrete_argument(handler, kind, 0)
        if isinstance(handled, type) and not issubclass(request_type, handled):
            raise RequestHandlerTypeError(
                f"{name_of(handler)} handles {name_of(handled)} and cannot be bound to {name_of(request_type)}: "
                f"declare it as {kind.__name__}[{request_type.__name__}, ...]."
            )
        _check_answers(handler, kind, request_type)


def _check_answers(handler: type, kind: type, request_type: type) -> None:
    declared = _class_of(concrete_argument(request_type, IRequest, 0)) if issubclass(request_type, IRequest) else None
    given = _class_of(concrete_argument(handler, kind, 1))
    if declared is None or given is None or issubclass(given, declared):
        return
    raise RequestHandlerTypeError(
        f"{name_of(handler)} answers {name_of(given)}, but {name_of(request_type)} asks for {name_of(declared)}: "
        f"change the response of one of the two."
    )


def _class_of(annotation: Any) -> type | None:
    """``annotation`` where it is a plain class, whose relation to another is certain."""
    if annotation is None:
        return None
    return annotation if isinstance(annotation, type) and annotation is not object else None


def _check_handle_is_async(handler: type) -> None:
    handle = inspect.getattr_static(handler, "handle")
    if is_surely_not_async(getattr(handle, "__func__", handle)):
        generator = issubclass(handler, StreamingRequestHandler)
        shape = "async def handle(self, request) with yield in it" if generator else "async def handle(self, request)"
        raise RequestHandlerTypeError(f"{name_of(handler)}.handle is not async: write '{shape}'.")
