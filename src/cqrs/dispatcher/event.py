"""From an event that came in to its handlers, and on to the events that follow from it."""

from __future__ import annotations

from cqrs.container.protocol import Resolver
from cqrs.container.scope import DispatchScope, ScopeStrategy, check_scope_strategy
from cqrs.events.event import IEvent
from cqrs.events.event_emitter import HandlerEmitter
from cqrs.events.event_processor import EventProcessor
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.message_brokers.protocol import MessageBroker
from cqrs.middlewares.base import MiddlewareChain


class EventDispatcher:
    """Tells handlers of events of any kind, notification events included.

    :param message_broker: where notification events go that follow from an event and have no handler here.
    """

    def __init__(
        self,
        event_map: EventMap,
        container: Resolver,
        middleware_chain: MiddlewareChain | None = None,
        *,
        message_broker: MessageBroker | None = None,
        max_concurrent_event_handlers: int = 1,
        concurrent_event_handle_enable: bool = False,
        failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
        on_error: EventErrorHook | None = None,
        scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
    ) -> None:
        check_scope_strategy(scope_strategy, concurrent_event_handle_enable)
        self._container = container
        self._shares_scope = scope_strategy is ScopeStrategy.SEND
        self._processor = EventProcessor(
            event_map,
            HandlerEmitter(event_map, container, message_broker, middleware_chain),
            max_concurrent_event_handlers,
            concurrent_event_handle_enable,
            failure_policy=failure_policy,
            on_error=on_error,
        )

    async def dispatch(self, event: IEvent) -> None:
        """Tell the handlers of ``event``, and those of all events that follow from it.

        :raises Exception: a failure, as the failure policy says; several leave as an ``ExceptionGroup``.

        Cancelled, it cancels the handlers that run and waits for them.
        """
        if not self._shares_scope:
            await self._processor.emit_events((event,))
            return
        async with DispatchScope(self._container) as resolver:
            await self._processor.emit_events((event,), resolver)
