"""From a request to its handler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cqrs._invocation import Entry, FallbackPlan, Plan, handler_plan
from cqrs.container.protocol import Resolver
from cqrs.dispatcher.models import RequestDispatchResult
from cqrs.events.event_source import discard_events, take_events
from cqrs.exceptions import RequestHandlerDoesNotExist, RequestHandlerTypeError, name_of
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests.fallback import RequestHandlerFallback
from cqrs.requests.map import RequestMap
from cqrs.requests.request import IRequest
from cqrs.requests.request_handler import SendStreamRequestHandler, StreamingRequestHandler


class RequestDispatcher:
    """Handles requests by what is bound to their type. What is bound is compiled on first use."""

    def __init__(
        self, request_map: RequestMap, container: Resolver, middleware_chain: MiddlewareChain | None = None
    ) -> None:
        self._request_map = request_map
        self._container = container
        self._middlewares = MiddlewareChain() if middleware_chain is None else middleware_chain
        self._entries: dict[type, Entry] = {}

    async def dispatch(self, request: IRequest[Any]) -> RequestDispatchResult[Any]:
        """Handle ``request``; give its response and the events to publish.

        :raises RequestHandlerDoesNotExist: nothing is bound to it.
        """
        acquire, argument = self.entry(type(request))
        invocation = await acquire(argument)
        try:
            response = await invocation.handle(request)
        except BaseException:
            discard_events(invocation)
            raise
        return RequestDispatchResult(response, take_events(invocation))

    def entry(self, request_type: type) -> Entry:
        """The way to an invocation for requests of ``request_type``.

        :raises RequestHandlerDoesNotExist: nothing is bound to it.
        :raises RequestHandlerTypeError: a streaming handler is bound to it.
        """
        entry = self._entries.get(request_type)
        if entry is None:
            entry = self._entries[request_type] = self.plan(request_type).entry(self._container)
        return entry

    def plan(self, request_type: type) -> Plan:
        """How requests of ``request_type`` are handled; raises as :meth:`entry` does."""
        binding = self._request_map.get(request_type)
        if binding is None:
            raise RequestHandlerDoesNotExist(request_type, tuple(self._request_map))
        if isinstance(binding, RequestHandlerFallback):
            return FallbackPlan(
                binding, self._plan_of(binding.primary), self._plan_of(binding.fallback), self._container
            )
        return self._plan_of(binding)

    def _plan_of(self, handler_types: type[Any] | Sequence[type[Any]]) -> Plan:
        name = name_of(handler_types)
        if isinstance(handler_types, type) and issubclass(
            handler_types, (StreamingRequestHandler, SendStreamRequestHandler)
        ):
            raise RequestHandlerTypeError(
                f"{name} streams its results: send the request through StreamingRequestMediator.stream()."
            )
        return handler_plan(handler_types, self._container, self._middlewares)
