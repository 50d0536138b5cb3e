"""What may be bound to a request, and why not."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from cqrs._async_callables import is_surely_not_async
from cqrs._generics import concrete_class, is_class
from cqrs.exceptions import RequestHandlerTypeError, name_of
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.request import IRequest
from cqrs.requests.request_handler import RequestHandler, SendStreamRequestHandler, StreamingRequestHandler

SINGLE_KINDS: tuple[type, ...] = (RequestHandler, StreamingRequestHandler, SendStreamRequestHandler)
STREAMING_KINDS: tuple[type, ...] = (StreamingRequestHandler, SendStreamRequestHandler)
ALL_KINDS: tuple[type, ...] = (*SINGLE_KINDS, CORRequestHandler)


def check_request_type(request_type: object) -> None:
    """:raises RequestHandlerTypeError: ``request_type`` is not a class that requests can have."""
    if not is_class(request_type):
        raise RequestHandlerTypeError(
            f"{request_type!r} is not a class: bind the class of the request, not an instance or an alias of it."
        )


def check_handler(handler: object, kinds: tuple[type, ...]) -> None:
    """:raises RequestHandlerTypeError: ``handler`` is not an async handler class of one of ``kinds``."""
    expected = " or ".join(kind.__name__ for kind in kinds)
    if not is_class(handler):
        raise RequestHandlerTypeError(
            f"{handler!r} is not a handler class: bind the class, a subclass of {expected}, "
            f"and let the container make it."
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


def check_is_no_link(handler: object) -> None:
    """:raises RequestHandlerTypeError: ``handler`` is a link of a chain, bound without its chain."""
    if isinstance(handler, type) and issubclass(handler, CORRequestHandler):
        raise RequestHandlerTypeError(
            f"{handler.__qualname__} is a link of a chain: bind a list, [{handler.__qualname__}]."
        )


def check_handles(handler: type, request_type: type) -> None:
    """:raises RequestHandlerTypeError: ``handler`` is declared for another request, or another response."""
    for kind in ALL_KINDS:
        handled = concrete_class(handler, kind, 0)
        if handled is not None and not issubclass(request_type, handled):
            raise RequestHandlerTypeError(
                f"{name_of(handler)} handles {name_of(handled)} and cannot be bound to {name_of(request_type)}: "
                f"declare it as {kind.__name__}[{request_type.__name__}, ...]."
            )
        _check_answers(handler, kind, request_type)


def _check_answers(handler: type, kind: type, request_type: type) -> None:
    declared = concrete_class(request_type, IRequest, 0)
    given = concrete_class(handler, kind, 1)
    if declared is None or given is None or given is object or issubclass(given, declared):
        return
    raise RequestHandlerTypeError(
        f"{name_of(handler)} answers {name_of(given)}, but {name_of(request_type)} asks for {name_of(declared)}: "
        f"change the response of one of the two."
    )


def is_sending_handler(handler: type) -> bool:
    """Whether ``handler`` is a coroutine that sends its results, rather than a generator that yields them."""
    return inspect.iscoroutinefunction(_handle_of(handler)) or issubclass(handler, SendStreamRequestHandler)


def _check_handle_is_async(handler: type[Any]) -> None:
    if "handle" in getattr(handler, "__abstractmethods__", ()):
        raise RequestHandlerTypeError(f"{name_of(handler)} does not implement handle().")
    handle = _handle_of(handler)
    streams = issubclass(handler, STREAMING_KINDS)
    if is_surely_not_async(handle):
        shape = "async def handle(self, request) with yield in it" if streams else "async def handle(self, request)"
        raise RequestHandlerTypeError(f"{name_of(handler)}.handle is not async: write '{shape}'.")
    if not streams and inspect.isasyncgenfunction(handle):
        raise RequestHandlerTypeError(
            f"{name_of(handler)}.handle yields, which only a stream can: derive it from StreamingRequestHandler."
        )
    if streams and inspect.iscoroutinefunction(handle) and len(inspect.signature(handle).parameters) < 3:
        raise RequestHandlerTypeError(
            f"{name_of(handler)}.handle neither yields nor takes a stream to send into: put yield in it, "
            f"or derive it from SendStreamRequestHandler and write 'async def handle(self, request, results)'."
        )


def _handle_of(handler: type) -> Any:
    handle = inspect.getattr_static(handler, "handle")
    return inspect.unwrap(getattr(handle, "__func__", handle))
