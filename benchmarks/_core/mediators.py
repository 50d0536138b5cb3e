"""Mediators: by hand over a container, or from the bootstrap with a container of the library ``di``."""

from __future__ import annotations

import importlib
from typing import Any

import di

import cqrs
from _core.messages import Ask, AskHandler, Count, CountHandler, Publish, PublishHandler, Ticked
from _core.sagas import Order, OrderSaga


def by_hand(
    container: Any, request_handler: type = AskHandler, event_handler: type | None = None, limit: int = 10
) -> Any:
    """A request mediator without middlewares, whose events run ``limit`` at a time."""
    event_map = cqrs.EventMap()
    if event_handler is not None:
        event_map.bind(Ticked, event_handler)
    return cqrs.RequestMediator(
        request_map=_requests(request_handler),
        container=container,
        event_emitter=cqrs.EventEmitter(event_map=event_map, container=container),
        event_map=event_map,
        max_concurrent_event_handlers=limit,
        concurrent_event_handle_enable=True,
    )


def streaming_by_hand(container: Any) -> Any:
    """A streaming mediator without middlewares."""
    return cqrs.StreamingRequestMediator(
        request_map=_streams(),
        container=container,
        event_emitter=cqrs.EventEmitter(event_map=cqrs.EventMap(), container=container),
    )


def bootstrapped(container: Any = None) -> Any:
    """A request mediator as an application gets it: with the logging middleware."""
    return _bootstraps().bootstrap(
        di_container=di.Container() if container is None else container,
        commands_mapper=lambda requests: requests.bind(Ask, AskHandler),
    )


def streaming_bootstrapped() -> Any:
    """A streaming mediator as an application gets it."""
    return _bootstraps().bootstrap_streaming(
        di_container=di.Container(),
        commands_mapper=lambda requests: requests.bind(Count, CountHandler),
    )


def sagas(container: Any = None) -> Any:
    """A saga mediator as an application gets it, over a storage in memory."""
    bootstrap = importlib.import_module("cqrs.saga.bootstrap").bootstrap
    return bootstrap(
        di_container=di.Container() if container is None else container,
        sagas_mapper=lambda sagas: sagas.bind(Order, OrderSaga),
        saga_storage=importlib.import_module("cqrs.saga.storage.memory").MemorySagaStorage(),
    )


def _requests(request_handler: type) -> Any:
    requests = cqrs.RequestMap()
    requests.bind(Ask, request_handler)
    requests.bind(Publish, PublishHandler)
    return requests


def _streams() -> Any:
    requests = cqrs.RequestMap()
    requests.bind(Count, CountHandler)
    return requests


def _bootstraps() -> Any:
    try:
        return importlib.import_module("cqrs.requests.bootstrap")
    except ModuleNotFoundError:
        return importlib.import_module("cqrs.bootstrap.requests")  # where 5.x has it
