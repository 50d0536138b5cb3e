"""The order service, put together and run."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

import cqrs
from cqrs.events import bootstrap as event_bootstrap
from cqrs.requests import bootstrap as request_bootstrap
from cqrs.saga import bootstrap as saga_bootstrap
from orders import handlers, order_saga, read_model
from orders.warehouse import Bank, OrderBook, Warehouse


@dataclasses.dataclass(frozen=True)
class Application:
    """The mediators of the service, and what its parts share."""

    requests: cqrs.RequestMediator
    streams: cqrs.StreamingRequestMediator
    sagas: cqrs.SagaMediator
    subscriber: read_model.Subscriber
    broker: cqrs.InMemoryMessageBroker
    warehouse: Warehouse


def assemble() -> Application:
    """Wire everything. No event loop is needed yet."""
    broker, warehouse, container = cqrs.InMemoryMessageBroker(), Warehouse(), cqrs.PlainContainer()
    container.register_instance(Warehouse, warehouse)
    container.register(Bank, lifetime=cqrs.Lifetime.SINGLETON)
    container.register(OrderBook, lifetime=cqrs.Lifetime.SINGLETON)
    container.register(read_model.OrderStatuses, lifetime=cqrs.Lifetime.SINGLETON)
    requests = request_bootstrap.bootstrap(
        di_container=container,
        message_broker=broker,
        commands_mapper=handlers.bind_commands,
        queries_mapper=read_model.bind_queries,
        domain_events_mapper=handlers.bind_domain_events,
        max_concurrent_event_handlers=4,
        concurrent_event_handle_enable=True,
    )
    streams = request_bootstrap.bootstrap_streaming(
        di_container=container,
        message_broker=broker,
        commands_mapper=handlers.bind_streams,
        domain_events_mapper=handlers.bind_domain_events,
    )
    sagas = saga_bootstrap.bootstrap(
        di_container=container,
        message_broker=broker,
        sagas_mapper=order_saga.bind_sagas,
        saga_storage=cqrs.MemorySagaStorage(),
    )
    notifications = event_bootstrap.bootstrap(di_container=container, events_mapper=read_model.bind_notifications)
    subscriber = read_model.Subscriber(broker, notifications)
    return Application(requests, streams, sagas, subscriber, broker, warehouse)


@asynccontextmanager
async def running() -> AsyncGenerator[Application]:
    """The service with its subscriber at work. At the end the subscriber reads what is left, and ends."""
    application = assemble()
    async with anyio.create_task_group() as tasks, application.broker, application.streams, application.sagas:
        await tasks.start(application.subscriber.run)
        yield application
