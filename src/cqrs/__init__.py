"""Commands, queries, events, streams and sagas with structured concurrency, on asyncio, uvloop and trio.

Every public name is here; it is defined in the module that its import line names. Names that need an
optional library are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cqrs.circuit_breaker import ICircuitBreaker
from cqrs.compressors import Compressor, ZlibCompressor
from cqrs.container.plain import Lifetime, PlainContainer
from cqrs.container.protocol import Container
from cqrs.container.scope import ScopeStrategy
from cqrs.dispatcher.result_stream import ResultStream
from cqrs.events.event import (
    DCDomainEvent,
    DCEvent,
    DCNotificationEvent,
    DomainEvent,
    Event,
    IDomainEvent,
    IEvent,
    INotificationEvent,
    NotificationEvent,
    PydanticDomainEvent,
    PydanticEvent,
    PydanticNotificationEvent,
)
from cqrs.events.event_emitter import EventEmitter
from cqrs.events.event_handler import EventHandler
from cqrs.events.event_processor import EventProcessor
from cqrs.events.failure_policy import EventFailurePolicy
from cqrs.events.fallback import EventHandlerFallback
from cqrs.events.map import EventMap
from cqrs.exceptions import CQRSError
from cqrs.mediator import EventMediator, RequestMediator, StreamingRequestMediator
from cqrs.message_brokers import DevnullMessageBroker, InMemoryMessageBroker, Message, MessageBroker
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.fallback import RequestHandlerFallback
from cqrs.requests.map import RequestMap, SagaMap
from cqrs.requests.mermaid import CoRMermaid
from cqrs.requests.request import DCRequest, IRequest, PydanticRequest, Request
from cqrs.requests.request_handler import RequestHandler, SendStreamRequestHandler, StreamingRequestHandler
from cqrs.response import DCResponse, IResponse, PydanticResponse, Response
from cqrs.saga.models import ContextT, SagaContext
from cqrs.saga.saga import Saga
from cqrs.saga.step import Resp, SagaStepHandler, SagaStepResult

if TYPE_CHECKING:
    from cqrs.container.di import DIContainer

_LOADED_ON_FIRST_USE = {"DIContainer": "cqrs.container.di"}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LOADED_ON_FIRST_USE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_ON_FIRST_USE})


__all__ = [
    # messages
    "DCRequest",
    "IRequest",
    "PydanticRequest",
    "Request",
    "DCResponse",
    "IResponse",
    "PydanticResponse",
    "Response",
    "DCDomainEvent",
    "DCEvent",
    "DCNotificationEvent",
    "DomainEvent",
    "Event",
    "IDomainEvent",
    "IEvent",
    "INotificationEvent",
    "NotificationEvent",
    "PydanticDomainEvent",
    "PydanticEvent",
    "PydanticNotificationEvent",
    # handlers
    "CORRequestHandler",
    "EventHandler",
    "EventHandlerFallback",
    "ICircuitBreaker",
    "RequestHandler",
    "RequestHandlerFallback",
    "SendStreamRequestHandler",
    "StreamingRequestHandler",
    # maps
    "EventMap",
    "RequestMap",
    "SagaMap",
    # mediators
    "EventEmitter",
    "EventFailurePolicy",
    "EventMediator",
    "EventProcessor",
    "RequestMediator",
    "ResultStream",
    "StreamingRequestMediator",
    # containers
    "Container",
    "DIContainer",
    "Lifetime",
    "PlainContainer",
    "ScopeStrategy",
    # brokers and codecs
    "Compressor",
    "DevnullMessageBroker",
    "InMemoryMessageBroker",
    "Message",
    "MessageBroker",
    "ZlibCompressor",
    # sagas
    "ContextT",
    "Resp",
    "Saga",
    "SagaContext",
    "SagaStepHandler",
    "SagaStepResult",
    # diagrams and errors
    "CoRMermaid",
    "CQRSError",
]
