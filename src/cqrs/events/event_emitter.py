"""From an event to those who are told of it: handlers in this process, or the message broker."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from cqrs._invocation import FallbackPlan, Plan, handler_plan
from cqrs.container.protocol import Resolver
from cqrs.events.event import IDomainEvent, IEvent, INotificationEvent
from cqrs.events.event_source import discard_events, unpublished
from cqrs.events.fallback import EventHandlerFallback
from cqrs.events.map import EventBinding, EventMap
from cqrs.exceptions import EventTypeError, InvalidOptionError, MessageBrokerNotConfiguredError, name_of
from cqrs.message_brokers.protocol import Message, MessageBroker
from cqrs.middlewares.base import MiddlewareChain

Delivery: TypeAlias = Callable[[IEvent, Resolver | None], Awaitable[Sequence[IEvent]]]
"""Tells one handler, or the broker, of an event; gives the events that follow from it.

Handlers come from the resolver, or, where it is None, from the emitter's container.
"""

_logger = logging.getLogger("cqrs")


class EmitsEvents(Protocol):
    """Anything that can tell of an event."""

    async def emit(self, event: IEvent) -> Sequence[IEvent]:
        """Tell all who are to know of ``event``; give the events that follow from it."""
        ...


class EventEmitter:
    """Tells handlers of domain events, and the message broker of notification events.

    :param event_map: which handlers are told of which event.
    :param container: where the handlers come from.
    :param message_broker: where notification events go.
    :param middleware_chain: what runs around each event handler.
    """

    def __init__(
        self,
        event_map: EventMap,
        container: Resolver,
        message_broker: MessageBroker | None = None,
        middleware_chain: MiddlewareChain | None = None,
    ) -> None:
        _check_broker(message_broker)
        self._event_map = event_map
        self._container = container
        self._message_broker = message_broker
        self._middlewares = MiddlewareChain() if middleware_chain is None else middleware_chain
        self._deliveries: dict[type, Sequence[Delivery]] = {}
        self._revision = event_map.revision

    @property
    def event_map(self) -> EventMap:
        """Which handlers are told of which event."""
        return self._event_map

    @property
    def container(self) -> Resolver:
        """Where the handlers come from."""
        return self._container

    async def emit(self, event: IEvent) -> Sequence[IEvent]:
        """Tell all who are to know of ``event``, one after the other; give the events that follow from it.

        :raises MessageBrokerNotConfiguredError: it is for a broker, and there is none.
        :raises Exception: what the first handler that failed raised; those after it are not told.
        """
        following: list[IEvent] = []
        for deliver in self.deliveries(type(event)):
            following.extend(await deliver(event, None))
        return following

    def deliveries(self, event_type: type[Any]) -> Sequence[Delivery]:
        """Who is told of events of ``event_type``, in order. Compiled on first use, and after each binding."""
        if self._revision != self._event_map.revision:
            self._deliveries.clear()
            self._revision = self._event_map.revision
        deliveries = self._deliveries.get(event_type)
        if deliveries is None:
            deliveries = self._deliveries[event_type] = self._compile(event_type)
        return deliveries

    def _compile(self, event_type: type[Any]) -> Sequence[Delivery]:
        if issubclass(event_type, INotificationEvent) and not issubclass(event_type, IDomainEvent):
            return (self._send_to_broker,)
        deliveries = self._to_handlers(event_type)
        if issubclass(event_type, INotificationEvent):
            return (*deliveries, self._send_to_broker)
        if not deliveries:
            _tell_of_none(event_type)
        return deliveries

    def _to_handlers(self, event_type: type[Any]) -> Sequence[Delivery]:
        bindings = self._event_map.handlers_of(event_type)
        return [_to_handler(self._plan(binding), self._container) for binding in bindings]

    def _plan(self, binding: EventBinding) -> Plan:
        if isinstance(binding, EventHandlerFallback):
            primary, fallback = (
                handler_plan(handler, self._container, self._middlewares)
                for handler in (binding.primary, binding.fallback)
            )
            return FallbackPlan(binding, primary, fallback, self._container)
        return handler_plan(binding, self._container, self._middlewares)

    async def _send_to_broker(self, event: Any, _: Resolver | None) -> Sequence[IEvent]:
        if self._message_broker is None:
            raise MessageBrokerNotConfiguredError(event)
        await self._message_broker.send_message(message_of(event))
        return ()


class HandlerEmitter(EventEmitter):
    """Tells handlers of every event that has any, and the broker of the notification events that have none.

    What the reader's side needs: the notification events that it is given came out of the broker.
    """

    def _compile(self, event_type: type[Any]) -> Sequence[Delivery]:
        if deliveries := self._to_handlers(event_type):
            return deliveries
        has_broker = self._message_broker is not None
        if not has_broker and INotificationEvent in event_type.__mro__:
            _tell_of_none(event_type)
            return ()
        return super()._compile(event_type)


def _check_broker(broker: object) -> None:
    if broker is not None and (isinstance(broker, type) or not hasattr(broker, "send_message")):
        raise InvalidOptionError("message_broker", broker, "an instance with 'async def send_message(self, message)'")


def _tell_of_none(event_type: type[Any]) -> None:
    """:raises EventTypeError: there is no handler, because there is no event."""
    if not issubclass(event_type, IEvent):
        raise EventTypeError(event_type)
    name = name_of(event_type)
    _logger.warning("Handlers for event %s not found. Bind one: mapper.bind(%s, YourHandler)", name, name)


def message_of(event: INotificationEvent[Any]) -> Message:
    """The message that carries ``event``."""
    return Message(
        message_name=type(event).__name__,
        topic=event.topic,
        payload=event.to_dict(),
        message_id=event.event_id,
        partition_key=getattr(event, "partition_key", None),
        correlation_id=getattr(event, "correlation_id", None),
        causation_id=getattr(event, "causation_id", None),
        occurred_at=event.event_timestamp,
        headers=getattr(event, "headers", {}),
    )


def _to_handler(plan: Plan, container: Resolver) -> Delivery:
    acquire, argument = plan.entry(container)

    async def deliver(event: IEvent, resolver: Resolver | None) -> Sequence[IEvent]:
        invocation = await (acquire(argument) if resolver is None else plan.acquire(resolver))
        try:
            await invocation.handle(event)
        except BaseException:
            discard_events(invocation)
            raise
        recorded = invocation.events
        return unpublished(invocation, recorded) if recorded else ()

    return deliver
