"""What mediators have in common when they are made."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

from cqrs.container.protocol import Container
from cqrs.container.scope import FALLBACK_IN_SHARED_SCOPE, ScopeStrategy, is_scoped
from cqrs.events.event_emitter import EmitsEvents, EventEmitter
from cqrs.events.event_processor import EventProcessor
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.fallback import EventHandlerFallback
from cqrs.events.map import EventMap
from cqrs.exceptions import ConfigurationError
from cqrs.requests.fallback import RequestHandlerFallback
from cqrs.requests.map import RequestMap


def taken_by(dispatcher_type: type[Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of ``options`` that the constructor of ``dispatcher_type`` takes.

    An application's own dispatcher may take the documented parameters alone.
    """
    parameters = inspect.signature(dispatcher_type).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}


def event_processor_for(
    container: Container[Any],
    event_emitter: EmitsEvents | None,
    event_map: EventMap | None,
    max_concurrent_event_handlers: int,
    concurrent_event_handle_enable: bool,
    failure_policy: EventFailurePolicy,
    on_error: EventErrorHook | None,
) -> EventProcessor:
    """The processor of a mediator's events. An emitter that was left out is made for the events that are bound."""
    if event_emitter is None and event_map is not None:
        event_emitter = EventEmitter(event_map, container)
    return EventProcessor(
        EventMap() if event_map is None else event_map,
        event_emitter,
        max_concurrent_event_handlers,
        concurrent_event_handle_enable,
        failure_policy=failure_policy,
        on_error=on_error,
    )


def check_fallbacks(
    strategy: ScopeStrategy, container: Container[Any], request_map: RequestMap, event_map: EventMap | None
) -> None:
    """:raises ConfigurationError: a primary and its fallback would share a scope."""
    if strategy is not ScopeStrategy.SEND or not is_scoped(container):
        return
    of_events = [] if event_map is None else list(event_map.values())
    bound: list[object] = [*request_map.values(), *itertools.chain.from_iterable(of_events)]
    if any(isinstance(binding, (RequestHandlerFallback, EventHandlerFallback)) for binding in bound):
        raise ConfigurationError(FALLBACK_IN_SHARED_SCOPE)
