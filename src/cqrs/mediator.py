"""Mediators: what an application sends its requests and events through."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from cqrs._invocation import Entry, Invocation
from cqrs._mediation import check_fallbacks, event_processor_for, taken_by
from cqrs._options import enum_member
from cqrs._overriding import is_overridden, overrides
from cqrs.container.protocol import Container, Resolver
from cqrs.container.scope import DispatchScope, ScopeStrategy, check_scope_strategy
from cqrs.dispatcher._stream_source import DispatchedSource, PlannedSource
from cqrs.dispatcher.event import EventDispatcher
from cqrs.dispatcher.request import RequestDispatcher
from cqrs.dispatcher.result_stream import ResultSource, ResultStream, StreamHome
from cqrs.dispatcher.streaming import StreamingRequestDispatcher
from cqrs.events.event import IEvent
from cqrs.events.event_emitter import EmitsEvents
from cqrs.events.event_processor import EventProcessor
from cqrs.events.event_source import discard_events, unpublished
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.message_brokers.protocol import MessageBroker
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests.map import RequestMap
from cqrs.requests.request import IRequest, ResponseT

if TYPE_CHECKING:
    from cqrs.saga.mediator import SagaMediator


class RequestMediator:
    """Sends commands and queries to their handlers, then handles the events that they recorded.

    :param request_map: what handles which request.
    :param container: where handlers come from.
    :param event_emitter: tells of events; where it is left out and ``event_map`` binds some, one is made for it.
    :param middleware_chain: what runs around each request handler.
    :param event_map: which handlers are told of which event.
    :param max_concurrent_event_handlers: how many events are handled at once, over all calls in one event loop.
    :param concurrent_event_handle_enable: False handles the events of a call one after the other, in order.
    :param dispatcher_type: a subclass of RequestDispatcher, to dispatch in another way.
    :param event_failure_policy: what the failure of one event handler means for the others, and for ``send``.
    :param on_event_error: told of each failure under ``EventFailurePolicy.ISOLATE``.
    :param scope_strategy: what shares a scope of the container.
    :raises ConfigurationError: a scope would be shared by handlers that run concurrently, or the limit is below one.
    """

    def __init__(
        self,
        request_map: RequestMap,
        container: Container[Any],
        event_emitter: EmitsEvents | None = None,
        middleware_chain: MiddlewareChain | None = None,
        event_map: EventMap | None = None,
        max_concurrent_event_handlers: int = 1,
        concurrent_event_handle_enable: bool = True,
        *,
        dispatcher_type: type[RequestDispatcher] = RequestDispatcher,
        event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
        on_event_error: EventErrorHook | None = None,
        scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
    ) -> None:
        scope_strategy = enum_member("scope_strategy", ScopeStrategy, scope_strategy)
        event_failure_policy = enum_member("event_failure_policy", EventFailurePolicy, event_failure_policy)
        check_scope_strategy(
            scope_strategy,
            is_concurrent=concurrent_event_handle_enable,
            isolates=event_failure_policy is EventFailurePolicy.ISOLATE,
            has_own_dispatch=overrides(dispatcher_type, RequestDispatcher, "dispatch"),
        )
        check_fallbacks(scope_strategy, container, request_map, event_map)
        self._container = container
        self._scope_strategy = scope_strategy
        self._event_processor = event_processor_for(
            container,
            event_emitter,
            event_map,
            max_concurrent_event_handlers,
            concurrent_event_handle_enable,
            event_failure_policy,
            on_event_error,
        )
        self._dispatcher = dispatcher_type(
            request_map=request_map, container=container, middleware_chain=middleware_chain
        )
        self._entries: dict[type, Entry] = {}

    async def send(self, request: IRequest[ResponseT]) -> ResponseT:
        """Handle ``request``, then its events and all that follows from them, and return its response.

        :raises RequestHandlerDoesNotExist: no handler is bound to it.
        :raises Exception: what its handler raised, or an event handler, as the failure policy says;
            several failures of event handlers leave as an ``ExceptionGroup``.

        When it has returned or raised, nothing that it started is running. Cancelled, it cancels all that is below it.
        """
        try:
            acquire, argument = self._entries[type(request)]
        except KeyError:
            acquire, argument = self._compile(type(request))
        invocation = await acquire(argument)
        try:
            response: ResponseT = await invocation.handle(request)
        except BaseException:
            discard_events(invocation)
            raise
        recorded = invocation.events
        if recorded:
            await self._event_processor.emit_events(unpublished(invocation, recorded))
        return response

    def _compile(self, request_type: type) -> Entry:
        if is_overridden(self._dispatcher, RequestDispatcher, "dispatch"):
            entry = Entry(_dispatched, self._dispatcher)
        elif self._scope_strategy is ScopeStrategy.SEND:
            plan = self._dispatcher.plan(request_type)

            async def acquire(container: Resolver) -> Invocation:
                return _InOneScope(container, plan.acquire, self._event_processor)

            entry = Entry(acquire, self._container)
        else:
            entry = self._dispatcher.entry(request_type)
        self._entries[request_type] = entry
        return entry


class _InOneScope:
    """A request and all its events, in one scope of the container."""

    events: Sequence[IEvent] = ()

    def __init__(self, container: Resolver, acquire: Any, events: EventProcessor) -> None:
        self._container = container
        self._acquire = acquire
        self._processor = events

    async def handle(self, request: Any, /) -> Any:
        async with DispatchScope(self._container) as resolver:
            invocation = await self._acquire(resolver)
            try:
                response = await invocation.handle(request)
            except BaseException:
                discard_events(invocation)
                raise
            recorded = invocation.events
            if recorded:
                await self._processor.emit_events(unpublished(invocation, recorded), resolver)
        return response


class _Dispatched:
    """A request on its way through a dispatcher of the application's own."""

    events: Sequence[IEvent] = ()

    def __init__(self, dispatcher: RequestDispatcher) -> None:
        self._dispatcher = dispatcher

    async def handle(self, request: Any, /) -> Any:
        result = await self._dispatcher.dispatch(request)
        self.events = result.events
        return result.response


async def _dispatched(dispatcher: RequestDispatcher) -> _Dispatched:
    return _Dispatched(dispatcher)


class EventMediator:
    """Sends events that came in, from a broker for example, to their handlers.

    :param event_map: which handlers are told of which event; notification events among them.
    :param container: where handlers come from.
    :param middleware_chain: what runs around each event handler.
    :param dispatcher_type: a subclass of EventDispatcher, to dispatch in another way.
    :param message_broker: where notification events go that follow from an event and have no handler here.

    The other parameters are those of :class:`RequestMediator`.
    """

    def __init__(
        self,
        event_map: EventMap,
        container: Container[Any],
        middleware_chain: MiddlewareChain | None = None,
        *,
        dispatcher_type: type[EventDispatcher] = EventDispatcher,
        message_broker: MessageBroker | None = None,
        max_concurrent_event_handlers: int = 1,
        concurrent_event_handle_enable: bool = False,
        event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
        on_event_error: EventErrorHook | None = None,
        scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
    ) -> None:
        options: dict[str, Any] = {
            "message_broker": message_broker,
            "max_concurrent_event_handlers": max_concurrent_event_handlers,
            "concurrent_event_handle_enable": concurrent_event_handle_enable,
            "failure_policy": event_failure_policy,
            "on_error": on_event_error,
            "scope_strategy": scope_strategy,
        }
        self._dispatcher = dispatcher_type(
            event_map=event_map,
            container=container,
            middleware_chain=middleware_chain,
            **taken_by(dispatcher_type, options),
        )

    async def send(self, event: IEvent) -> None:
        """Tell the handlers of ``event``, and those of all events that follow from it.

        :raises Exception: a failure, as the failure policy says; several leave as an ``ExceptionGroup``.

        When it has returned or raised, nothing that it started is running. Cancelled, it cancels all that is below it.
        """
        await self._dispatcher.dispatch(event)

    async def emit(self, event: IEvent) -> None:
        """The same as :meth:`send`."""
        await self.send(event)


class StreamingRequestMediator:
    """Streams the results of requests; the events of a result are handled before it is handed out.

    ``async with mediator:`` around the application gives it a task group, in which streams end that were
    left and not closed. The parameters are those of :class:`RequestMediator`.
    """

    def __init__(
        self,
        request_map: RequestMap,
        container: Container[Any],
        event_emitter: EmitsEvents | None = None,
        middleware_chain: MiddlewareChain | None = None,
        event_map: EventMap | None = None,
        max_concurrent_event_handlers: int = 1,
        concurrent_event_handle_enable: bool = True,
        *,
        dispatcher_type: type[StreamingRequestDispatcher] = StreamingRequestDispatcher,
        event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
        on_event_error: EventErrorHook | None = None,
        scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
    ) -> None:
        scope_strategy = enum_member("scope_strategy", ScopeStrategy, scope_strategy)
        event_failure_policy = enum_member("event_failure_policy", EventFailurePolicy, event_failure_policy)
        check_scope_strategy(
            scope_strategy,
            is_concurrent=concurrent_event_handle_enable,
            isolates=event_failure_policy is EventFailurePolicy.ISOLATE,
            has_own_dispatch=overrides(dispatcher_type, StreamingRequestDispatcher, "dispatch"),
        )
        check_fallbacks(scope_strategy, container, request_map, event_map)
        self._container = container
        self._shares_scope = scope_strategy is ScopeStrategy.SEND
        self._event_processor = event_processor_for(
            container,
            event_emitter,
            event_map,
            max_concurrent_event_handlers,
            concurrent_event_handle_enable,
            event_failure_policy,
            on_event_error,
        )
        self._dispatcher = dispatcher_type(
            request_map=request_map, container=container, middleware_chain=middleware_chain
        )
        self._home = StreamHome()

    async def __aenter__(self) -> Self:
        await self._home.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._home.__aexit__(exc_type, exc, traceback)

    def stream(self, request: IRequest[ResponseT], *, max_buffer_size: float = 0) -> ResultStream[ResponseT]:
        """The results of ``request``: see :class:`~cqrs.dispatcher.result_stream.ResultStream`.

        :param max_buffer_size: how many results the handler may be ahead in pipelined mode.

        :raises RequestHandlerDoesNotExist: no handler is bound to the request.
        :raises RequestHandlerTypeError: its handler does not stream.

        Consuming the results raises what the handler or an event handler raised.
        """
        return ResultStream(self._source(request), type(request), max_buffer_size, self._home)

    def _source(self, request: IRequest[Any]) -> ResultSource:
        if is_overridden(self._dispatcher, StreamingRequestDispatcher, "dispatch"):
            return DispatchedSource(self._dispatcher, request, self._event_processor)
        plan = self._dispatcher.plan(type(request))
        return PlannedSource(plan, request, self._container, self._event_processor, self._shares_scope)


def __getattr__(name: str) -> Any:
    # Loaded on first use: who sends requests has no need of what runs sagas.
    if name != "SagaMediator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("cqrs.saga.mediator").SagaMediator


__all__ = ["EventMediator", "RequestMediator", "SagaMediator", "StreamingRequestMediator"]
