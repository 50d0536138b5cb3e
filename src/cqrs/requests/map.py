"""Which handler handles which request, and which saga runs for which context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard, cast

from typing_extensions import TypeVar

from cqrs._registry import BindOnceRegistry
from cqrs.exceptions import SagaDoesNotExist
from cqrs.requests._binding import (
    SINGLE_KINDS,
    check_chain,
    check_handler,
    check_handles,
    check_is_no_link,
    check_request_type,
)
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.fallback import RequestHandlerFallback
from cqrs.requests.request import IRequest
from cqrs.requests.request_handler import RequestHandler, SendStreamRequestHandler, StreamingRequestHandler
from cqrs.saga._binding import check_saga
from cqrs.saga.models import SagaContext
from cqrs.saga.saga import Saga

RequestT = TypeVar("RequestT", bound=IRequest[Any])
ContextT = TypeVar("ContextT", bound=SagaContext)

RequestBinding: TypeAlias = (
    type[RequestHandler[Any, Any] | StreamingRequestHandler[Any, Any] | SendStreamRequestHandler[Any, Any]]
    | Sequence[type[CORRequestHandler[Any, Any]]]
    | RequestHandlerFallback[Any]
)
"""What can be bound to a request: a handler, a chain of handlers, or a handler with a fallback."""


class RequestMap(BindOnceRegistry[type[IRequest[Any]], RequestBinding]):
    """Request types and what handles them, one binding a request."""

    _rebind_hint = "A request has one handler: remove one of the two bind() calls."

    def bind(
        self,
        request_type: type[RequestT],
        handler_type: type[
            RequestHandler[RequestT, Any]
            | StreamingRequestHandler[RequestT, Any]
            | SendStreamRequestHandler[RequestT, Any]
        ]
        | Sequence[type[CORRequestHandler[RequestT, Any]]]
        | RequestHandlerFallback[RequestT],
    ) -> None:
        """Let ``handler_type`` handle requests of ``request_type``.

        :param handler_type: a handler class, a sequence of ``CORRequestHandler`` classes in their
            order, or a ``RequestHandlerFallback``.
        :raises RequestHandlerTypeError: it is none of these, or handles another request or response.
        :raises AlreadyBoundError: the request has a handler already.
        """
        self[request_type] = handler_type

    def __setitem__(self, request_type: type[IRequest[Any]], binding: RequestBinding, /) -> None:
        check_request_type(request_type)
        for handler in _handlers_in(binding):
            check_handles(handler, request_type)
        super().__setitem__(request_type, binding)


def _is_chain(binding: RequestBinding) -> TypeGuard[Sequence[type[CORRequestHandler[Any, Any]]]]:
    return isinstance(binding, Sequence) and not isinstance(binding, str)


def _handlers_in(binding: RequestBinding) -> Sequence[type]:
    """The handler classes of ``binding``, checked for their kind."""
    if isinstance(binding, RequestHandlerFallback):
        return binding.primary, binding.fallback
    if _is_chain(binding):
        check_chain(binding)
        return tuple(binding)
    check_is_no_link(binding)
    check_handler(binding, SINGLE_KINDS)
    return (cast("type", binding),)


class SagaMap(BindOnceRegistry[type[SagaContext], type[Saga[Any]]]):
    """Saga contexts and the sagas that run for them.

    A context may be bound to several sagas, as an application does that replaces a saga by a new
    version: the one bound last runs for new contexts, the earlier ones stay known, so that runs of
    them that are in storage can be recovered.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sagas: dict[type[SagaContext], list[type[Saga[Any]]]] = {}

    def bind(self, context_type: type[ContextT], handler_type: type[Saga[ContextT]]) -> None:
        """Let ``handler_type`` run for contexts of ``context_type`` from now on.

        :raises SagaTypeError: it is not a saga for this context.
        """
        self[context_type] = handler_type

    def __setitem__(self, context_type: type[SagaContext], saga_type: type[Saga[Any]], /) -> None:
        check_saga(context_type, saga_type)
        known = self._sagas.setdefault(context_type, [])
        if saga_type in known:
            known.remove(saga_type)
        known.append(saga_type)
        self._put(context_type, saga_type)

    def sagas_of(self, context_type: type[SagaContext]) -> Sequence[type[Saga[Any]]]:
        """All sagas bound to ``context_type``, the one that runs for new contexts last.

        :raises SagaDoesNotExist: none is bound.
        """
        try:
            return tuple(self._sagas[context_type])
        except KeyError:
            raise SagaDoesNotExist(context_type) from None
