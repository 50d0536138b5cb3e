"""A mediator for sagas, set up in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cqrs._bootstrap import adapted_container, chain_of, filled, run_on_startup, with_logging
from cqrs.events.event_emitter import EventEmitter
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.message_brokers.protocol import MessageBroker
from cqrs.middlewares.base import Middleware
from cqrs.requests.bootstrap import setup_event_emitter
from cqrs.requests.map import SagaMap
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.options import COMPENSATION_TIMEOUT, LEASE_DURATION
from cqrs.saga.storage.protocol import ISagaStorage


def setup_saga_mediator(
    event_emitter: EventEmitter,
    container: Any,
    middlewares: Iterable[Middleware[Any, Any]],
    sagas_mapper: Callable[[SagaMap], None] | None = None,
    event_map: EventMap | None = None,
    max_concurrent_event_handlers: int = 1,
    concurrent_event_handle_enable: bool = True,
    saga_storage: ISagaStorage | None = None,
    **options: Any,
) -> SagaMediator:
    """A mediator around an emitter. ``options`` are the keyword parameters of ``SagaMediator``."""
    return SagaMediator(
        saga_map=filled(SagaMap(), sagas_mapper),
        container=adapted_container(container),
        event_emitter=event_emitter,
        middleware_chain=chain_of(middlewares),
        event_map=event_emitter.event_map if event_map is None else event_map,
        max_concurrent_event_handlers=max_concurrent_event_handlers,
        concurrent_event_handle_enable=concurrent_event_handle_enable,
        storage=saga_storage,
        **options,
    )


def bootstrap(
    di_container: Any = None,
    message_broker: MessageBroker | None = None,
    middlewares: Sequence[Middleware[Any, Any]] | None = None,
    sagas_mapper: Callable[[SagaMap], None] | None = None,
    domain_events_mapper: Callable[[EventMap], None] | None = None,
    on_startup: Iterable[Callable[[], Any]] | None = None,
    saga_storage: ISagaStorage | None = None,
    max_concurrent_event_handlers: int = 1,
    concurrent_event_handle_enable: bool = True,
    *,
    compensation_retry_count: int = 3,
    compensation_retry_delay: float = 1.0,
    compensation_retry_backoff: float = 2.0,
    compensation_timeout: float = COMPENSATION_TIMEOUT,
    lease_duration: float = LEASE_DURATION,
    event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
    on_event_error: EventErrorHook | None = None,
) -> SagaMediator:
    """A mediator for sagas.

    :param sagas_mapper: binds sagas to their contexts.
    :param saga_storage: where sagas are kept. None: in memory, so that nothing outlives the process.

    The other parameters are those of :func:`cqrs.requests.bootstrap.bootstrap` and of
    :class:`~cqrs.saga.mediator.SagaMediator`. Middlewares run around ``act`` of each step, and around event handlers.

    :raises ConfigurationError: something is wired wrongly; each error says what and how to mend it.
    """
    run_on_startup(on_startup)
    container, around = adapted_container(di_container), with_logging(middlewares)
    return setup_saga_mediator(
        setup_event_emitter(container, domain_events_mapper, message_broker, around),
        container,
        around,
        sagas_mapper,
        None,
        max_concurrent_event_handlers,
        concurrent_event_handle_enable,
        saga_storage,
        compensation_retry_count=compensation_retry_count,
        compensation_retry_delay=compensation_retry_delay,
        compensation_retry_backoff=compensation_retry_backoff,
        compensation_timeout=compensation_timeout,
        lease_duration=lease_duration,
        event_failure_policy=event_failure_policy,
        on_event_error=on_event_error,
    )
