"""Mediators for requests and streams, set up in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cqrs._bootstrap import adapted_container, chain_of, filled, run_on_startup, with_logging
from cqrs.container.scope import ScopeStrategy
from cqrs.events.event_emitter import EventEmitter
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.mediator import RequestMediator, StreamingRequestMediator
from cqrs.message_brokers.devnull import DevnullMessageBroker
from cqrs.message_brokers.protocol import MessageBroker
from cqrs.middlewares.base import Middleware
from cqrs.requests.map import RequestMap


def setup_event_emitter(
    container: Any,
    domain_events_mapper: Callable[[EventMap], None] | None = None,
    message_broker: MessageBroker | None = None,
    middlewares: Iterable[Middleware[Any, Any]] = (),
) -> EventEmitter:
    """An emitter for the events that ``domain_events_mapper`` binds.

    :param container: a container, as for :func:`bootstrap`.
    :param message_broker: where notification events go; by default nowhere.
    :param middlewares: what runs around each event handler.
    """
    return EventEmitter(
        filled(EventMap(), domain_events_mapper),
        adapted_container(container),
        DevnullMessageBroker() if message_broker is None else message_broker,
        chain_of(middlewares),
    )


def setup_mediator(
    event_emitter: EventEmitter,
    container: Any,
    middlewares: Iterable[Middleware[Any, Any]],
    commands_mapper: Callable[[RequestMap], None] | None = None,
    queries_mapper: Callable[[RequestMap], None] | None = None,
    event_map: EventMap | None = None,
    max_concurrent_event_handlers: int = 1,
    concurrent_event_handle_enable: bool = True,
    **options: Any,
) -> RequestMediator:
    """A mediator around an emitter. ``options`` are the keyword parameters of ``RequestMediator``."""
    return RequestMediator(
        request_map=filled(RequestMap(), commands_mapper, queries_mapper),
        container=adapted_container(container),
        event_emitter=event_emitter,
        middleware_chain=chain_of(middlewares),
        event_map=event_emitter.event_map if event_map is None else event_map,
        max_concurrent_event_handlers=max_concurrent_event_handlers,
        concurrent_event_handle_enable=concurrent_event_handle_enable,
        **options,
    )


def setup_streaming_mediator(
    event_emitter: EventEmitter,
    container: Any,
    middlewares: Iterable[Middleware[Any, Any]],
    commands_mapper: Callable[[RequestMap], None] | None = None,
    queries_mapper: Callable[[RequestMap], None] | None = None,
    domain_events_mapper: Callable[[EventMap], None] | None = None,
    max_concurrent_event_handlers: int = 10,
    concurrent_event_handle_enable: bool = True,
    **options: Any,
) -> StreamingRequestMediator:
    """A streaming mediator around an emitter. ``options`` are the keyword parameters of ``StreamingRequestMediator``.

    :param domain_events_mapper: binds further events in the emitter's map.
    """
    return StreamingRequestMediator(
        request_map=filled(RequestMap(), commands_mapper, queries_mapper),
        container=adapted_container(container),
        event_emitter=event_emitter,
        middleware_chain=chain_of(middlewares),
        event_map=filled(event_emitter.event_map, domain_events_mapper),
        max_concurrent_event_handlers=max_concurrent_event_handlers,
        concurrent_event_handle_enable=concurrent_event_handle_enable,
        **options,
    )


def bootstrap(
    di_container: Any = None,
    message_broker: MessageBroker | None = None,
    middlewares: Sequence[Middleware[Any, Any]] | None = None,
    commands_mapper: Callable[[RequestMap], None] | None = None,
    domain_events_mapper: Callable[[EventMap], None] | None = None,
    queries_mapper: Callable[[RequestMap], None] | None = None,
    on_startup: Iterable[Callable[[], Any]] | None = None,
    max_concurrent_event_handlers: int = 1,
    concurrent_event_handle_enable: bool = False,
    *,
    event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
    on_event_error: EventErrorHook | None = None,
    scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
) -> RequestMediator:
    """A mediator for commands and queries.

    :param di_container: a container of ``di``, ``dependency-injector`` or ``dishka``, one of
        :mod:`cqrs.container`, or any object with ``async def resolve(self, type_)``. None makes handlers
        from their constructors.
    :param message_broker: where notification events go; by default nowhere.
    :param middlewares: what runs around each handler, the first one outermost. Logging is added innermost.
    :param commands_mapper: binds commands. :param queries_mapper: binds queries.
    :param domain_events_mapper: binds events.
    :param on_startup: called first, in order.

    The other parameters are those of :class:`~cqrs.mediator.RequestMediator`.

    :raises ConfigurationError: something is wired wrongly; each error says what and how to mend it.
    """
    run_on_startup(on_startup)
    container, around = adapted_container(di_container), with_logging(middlewares)
    return setup_mediator(
        setup_event_emitter(container, domain_events_mapper, message_broker, around),
        container,
        around,
        commands_mapper,
        queries_mapper,
        None,
        max_concurrent_event_handlers,
        concurrent_event_handle_enable,
        event_failure_policy=event_failure_policy,
        on_event_error=on_event_error,
        scope_strategy=scope_strategy,
    )


def bootstrap_streaming(
    di_container: Any = None,
    message_broker: MessageBroker | None = None,
    middlewares: Sequence[Middleware[Any, Any]] | None = None,
    commands_mapper: Callable[[RequestMap], None] | None = None,
    domain_events_mapper: Callable[[EventMap], None] | None = None,
    queries_mapper: Callable[[RequestMap], None] | None = None,
    on_startup: Iterable[Callable[[], Any]] | None = None,
    max_concurrent_event_handlers: int = 10,
    concurrent_event_handle_enable: bool = False,
    *,
    event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
    on_event_error: EventErrorHook | None = None,
    scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
) -> StreamingRequestMediator:
    """A mediator for streaming requests. The parameters, and what is raised, are those of :func:`bootstrap`."""
    run_on_startup(on_startup)
    container, around = adapted_container(di_container), with_logging(middlewares)
    return setup_streaming_mediator(
        setup_event_emitter(container, domain_events_mapper, message_broker, around),
        container,
        around,
        commands_mapper,
        queries_mapper,
        None,
        max_concurrent_event_handlers,
        concurrent_event_handle_enable,
        event_failure_policy=event_failure_policy,
        on_event_error=on_event_error,
        scope_strategy=scope_strategy,
    )
