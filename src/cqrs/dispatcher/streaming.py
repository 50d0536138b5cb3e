"""From a streaming request to its handler's results."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from cqrs._stream_invocation import ClosedEarly, FallbackStreamPlan, StreamPlan, stream_plan, take_stream_events
from cqrs.container.protocol import Resolver
from cqrs.dispatcher.models import RequestDispatchResult
from cqrs.exceptions import RequestHandlerDoesNotExist, RequestHandlerTypeError, StreamUsageError, name_of
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests._binding import STREAMING_KINDS
from cqrs.requests.fallback import RequestHandlerFallback
from cqrs.requests.map import RequestMap
from cqrs.requests.request import IRequest


class StreamingRequestDispatcher:
    """Streams requests by what is bound to their type. What is bound is compiled on first use."""

    def __init__(
        self, request_map: RequestMap, container: Resolver, middleware_chain: MiddlewareChain | None = None
    ) -> None:
        self._request_map = request_map
        self._container = container
        self._middlewares = MiddlewareChain() if middleware_chain is None else middleware_chain
        self._plans: dict[type, StreamPlan] = {}

    async def dispatch(self, request: IRequest[Any]) -> AsyncGenerator[RequestDispatchResult[Any], None]:
        """Give each result with the events that were recorded before it.

        Events recorded after the last result are not given; ``StreamingRequestMediator`` publishes those as well.

        :raises RequestHandlerDoesNotExist: nothing is bound to it.
        :raises RequestHandlerTypeError: what is bound to it does not stream.
        :raises StreamUsageError: its handler sends its results, which takes a task of its own.
        """
        plan = self.plan(type(request))
        if plan.is_push:
            raise StreamUsageError(f"The handler of {name_of(type(request))} sends its results: use a mediator.")
        run = await plan.acquire(self._container)
        async with ClosedEarly(run.handle(request)) as items:
            async for item in items:
                yield RequestDispatchResult(item, take_stream_events(run))

    def plan(self, request_type: type) -> StreamPlan:
        """How requests of ``request_type`` are streamed; raises as :meth:`dispatch` does."""
        plan = self._plans.get(request_type)
        if plan is None:
            plan = self._plans[request_type] = self._compile(request_type)
        return plan

    def _compile(self, request_type: type) -> StreamPlan:
        binding = self._request_map.get(request_type)
        if binding is None:
            raise RequestHandlerDoesNotExist(request_type, tuple(self._request_map))
        if isinstance(binding, RequestHandlerFallback):
            return FallbackStreamPlan(
                binding, self._plan_of(binding.primary), self._plan_of(binding.fallback), self._container
            )
        return self._plan_of(binding)

    def _plan_of(self, handler_type: Any) -> StreamPlan:
        if not (isinstance(handler_type, type) and issubclass(handler_type, STREAMING_KINDS)):
            raise RequestHandlerTypeError(
                f"{name_of(handler_type)} does not stream: derive it from StreamingRequestHandler, "
                f"or send the request through RequestMediator.send()."
            )
        return stream_plan(handler_type, self._container, self._middlewares)
