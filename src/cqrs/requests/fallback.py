"""A handler with a second one to fall back on."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic

from typing_extensions import TypeVar

from cqrs._generics import is_class, type_arguments
from cqrs.circuit_breaker import ICircuitBreaker
from cqrs.exceptions import RequestHandlerTypeError, name_of
from cqrs.requests._binding import SINGLE_KINDS, STREAMING_KINDS, check_handler
from cqrs.requests.request import IRequest
from cqrs.requests.request_handler import RequestHandler, SendStreamRequestHandler, StreamingRequestHandler

HandledT = TypeVar("HandledT", bound=IRequest[Any], default=Any)
"""The request that both handlers take."""


@dataclasses.dataclass(frozen=True)
class RequestHandlerFallback(Generic[HandledT]):
    """Bound in place of a handler: ``fallback`` handles the request when ``primary`` failed.

    :param primary: the handler that is tried first.
    :param fallback: the handler of the same request, response and kind that is tried after it.
    :param failure_exceptions: the errors that lead to the fallback; any error where it is empty.
    :param circuit_breaker: guards the primary; while its circuit is open the fallback is used at once.
    :raises RequestHandlerTypeError: the two are not handlers of one kind, request and response.

    A stream that fails after results were handed out goes on with all results of the fallback.
    """

    primary: type[
        RequestHandler[HandledT, Any] | StreamingRequestHandler[HandledT, Any] | SendStreamRequestHandler[HandledT, Any]
    ]
    fallback: type[
        RequestHandler[HandledT, Any] | StreamingRequestHandler[HandledT, Any] | SendStreamRequestHandler[HandledT, Any]
    ]
    failure_exceptions: tuple[type[Exception], ...] = ()
    circuit_breaker: ICircuitBreaker | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self) -> None:
        for handler in (self.primary, self.fallback):
            check_handler(handler, SINGLE_KINDS)
        if issubclass(self.primary, STREAMING_KINDS) != issubclass(self.fallback, STREAMING_KINDS):
            raise RequestHandlerTypeError(
                f"{name_of(self.primary)} and {name_of(self.fallback)} must be of one kind: "
                f"both handle a request or both stream results."
            )
        for position, what in enumerate(("request", "response")):
            self._check_same(position, what)

    @property
    def is_streaming(self) -> bool:
        """Whether both stream results."""
        return issubclass(self.primary, STREAMING_KINDS)

    def _check_same(self, position: int, what: str) -> None:
        primary, fallback = _argument(self.primary, position), _argument(self.fallback, position)
        if is_class(primary) and is_class(fallback) and primary is not fallback:
            raise RequestHandlerTypeError(
                f"{name_of(self.primary)} and {name_of(self.fallback)} must have the same {what} type: "
                f"the primary has {name_of(primary)}, the fallback {name_of(fallback)}."
            )


def _argument(handler: type, position: int) -> Any:
    for kind in SINGLE_KINDS:
        arguments = type_arguments(handler, kind)
        if arguments is not None and len(arguments) > position:
            return arguments[position]
    return None
