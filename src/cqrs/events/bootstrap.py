"""A mediator for events, set up in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cqrs._bootstrap import adapted_container, chain_of, filled, run_on_startup, with_logging
from cqrs.container.scope import ScopeStrategy
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.mediator import EventMediator
from cqrs.message_brokers.protocol import MessageBroker
from cqrs.middlewares.base import Middleware


def setup_mediator(
    container: Any,
    middlewares: Iterable[Middleware[Any, Any]],
    events_mapper: Callable[[EventMap], None] | None = None,
    **options: Any,
) -> EventMediator:
    """A mediator for the events that ``events_mapper`` binds.

    :param options: the keyword parameters of ``EventMediator``.
    """
    return EventMediator(
        filled(EventMap(), events_mapper), adapted_container(container), chain_of(middlewares), **options
    )


def bootstrap(
    di_container: Any = None,
    middlewares: Sequence[Middleware[Any, Any]] | None = None,
    events_mapper: Callable[[EventMap], None] | None = None,
    on_startup: Iterable[Callable[[], Any]] | None = None,
    *,
    message_broker: MessageBroker | None = None,
    max_concurrent_event_handlers: int = 1,
    concurrent_event_handle_enable: bool = False,
    event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
    on_event_error: EventErrorHook | None = None,
    scope_strategy: ScopeStrategy = ScopeStrategy.HANDLER,
) -> EventMediator:
    """A mediator for events that came in, from a broker for example.

    :param di_container: a container, as for :func:`cqrs.requests.bootstrap.bootstrap`.
    :param middlewares: what runs around each handler, the first one outermost. Logging is added innermost.
    :param events_mapper: binds events.
    :param on_startup: called first, in order.

    The other parameters are those of :class:`~cqrs.mediator.EventMediator`.

    :raises ConfigurationError: something is wired wrongly; each error says what and how to mend it.
    """
    run_on_startup(on_startup)
    return setup_mediator(
        di_container,
        with_logging(middlewares),
        events_mapper,
        message_broker=message_broker,
        max_concurrent_event_handlers=max_concurrent_event_handlers,
        concurrent_event_handle_enable=concurrent_event_handle_enable,
        event_failure_policy=event_failure_policy,
        on_event_error=on_event_error,
        scope_strategy=scope_strategy,
    )
