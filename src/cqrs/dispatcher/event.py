"""From an event that came in to its handlers, and on to the events that follow from it."""

from __future__ import annotations

import logging
from typing import Any

from cqrs._options import enum_member
from cqrs._overriding import is_overridden
from cqrs.container.protocol import Resolver
from cqrs.container.scope import DispatchScope, ScopeStrategy, check_scope_strategy
from cqrs.events.event import IEvent, INotificationEvent
from cqrs.events.event_emitter import HandlerEmitter
from cqrs.events.event_processor import EventProcessor
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.exceptions import name_of
from cqrs.message_brokers.protocol import MessageBroker
from cqrs.middlewares.base import MiddlewareChain

_logger = logging.getLogger("cqrs")


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
        scope_strategy = enum_member("scope_strategy", ScopeStrategy, scope_strategy)
        failure_policy = enum_member("event_failure_policy", EventFailurePolicy, failure_policy)
        check_scope_strategy(
            scope_strategy,
            is_concurrent=concurrent_event_handle_enable,
            isolates=failure_policy is EventFailurePolicy.ISOLATE,
            has_own_dispatch=is_overridden(self, EventDispatcher, "dispatch"),
        )
        self._event_map = event_map
        self._message_broker = message_broker
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
        if self._would_go_back(type(event)):
            _logger.warning("Handlers for event %s not found", name_of(type(event)))
            return
        if not self._shares_scope:
            await self._processor.emit_events((event,))
            return
        async with DispatchScope(self._container) as resolver:
            await self._processor.emit_events((event,), resolver)

    def _would_go_back(self, event_type: type[Any]) -> bool:
        # Sent to the broker that it came from, it would come in again and again.
        return (
            self._message_broker is not None
            and not self._event_map.handlers_of(event_type)
            and issubclass(event_type, INotificationEvent)
        )
