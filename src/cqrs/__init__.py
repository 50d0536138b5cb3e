"""Commands, queries, events, streams and sagas with structured concurrency, on asyncio, uvloop and trio.

Every public name is here, and is loaded from the module that defines it when it is first used:
``import cqrs`` itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cqrs.circuit_breaker import ICircuitBreaker
    from cqrs.compressors import Compressor, ZlibCompressor
    from cqrs.container.di import DIContainer
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
    from cqrs.retry import RetryPolicy
    from cqrs.saga.compensation import compensation_errors
    from cqrs.saga.fallback import Fallback
    from cqrs.saga.mediator import SagaMediator
    from cqrs.saga.mermaid import SagaMermaid
    from cqrs.saga.models import ContextT, SagaContext
    from cqrs.saga.parallel import Parallel
    from cqrs.saga.pivot import Pivot
    from cqrs.saga.recovery import recover_saga
    from cqrs.saga.recovery_worker import SagaRecoveryWorker
    from cqrs.saga.saga import Saga
    from cqrs.saga.step import OnUnknown, Resp, SagaStepHandler, SagaStepResult
    from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
    from cqrs.saga.storage.memory import MemorySagaStorage
    from cqrs.saga.storage.protocol import ILeasedSagaStorage, ISagaStorage

_NAMES = {
    "cqrs.circuit_breaker": ("ICircuitBreaker",),
    "cqrs.compressors": (
        "Compressor",
        "ZlibCompressor",
    ),
    "cqrs.container.di": ("DIContainer",),
    "cqrs.container.plain": (
        "Lifetime",
        "PlainContainer",
    ),
    "cqrs.container.protocol": ("Container",),
    "cqrs.container.scope": ("ScopeStrategy",),
    "cqrs.dispatcher.result_stream": ("ResultStream",),
    "cqrs.events.event": (
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
    ),
    "cqrs.events.event_emitter": ("EventEmitter",),
    "cqrs.events.event_handler": ("EventHandler",),
    "cqrs.events.event_processor": ("EventProcessor",),
    "cqrs.events.failure_policy": ("EventFailurePolicy",),
    "cqrs.events.fallback": ("EventHandlerFallback",),
    "cqrs.events.map": ("EventMap",),
    "cqrs.exceptions": ("CQRSError",),
    "cqrs.mediator": (
        "EventMediator",
        "RequestMediator",
        "StreamingRequestMediator",
    ),
    "cqrs.message_brokers": (
        "DevnullMessageBroker",
        "InMemoryMessageBroker",
        "Message",
        "MessageBroker",
    ),
    "cqrs.requests.cor_request_handler": ("CORRequestHandler",),
    "cqrs.requests.fallback": ("RequestHandlerFallback",),
    "cqrs.requests.map": (
        "RequestMap",
        "SagaMap",
    ),
    "cqrs.requests.mermaid": ("CoRMermaid",),
    "cqrs.requests.request": (
        "DCRequest",
        "IRequest",
        "PydanticRequest",
        "Request",
    ),
    "cqrs.requests.request_handler": (
        "RequestHandler",
        "SendStreamRequestHandler",
        "StreamingRequestHandler",
    ),
    "cqrs.response": (
        "DCResponse",
        "IResponse",
        "PydanticResponse",
        "Response",
    ),
    "cqrs.retry": ("RetryPolicy",),
    "cqrs.saga.compensation": ("compensation_errors",),
    "cqrs.saga.fallback": ("Fallback",),
    "cqrs.saga.mediator": ("SagaMediator",),
    "cqrs.saga.mermaid": ("SagaMermaid",),
    "cqrs.saga.models": (
        "ContextT",
        "SagaContext",
    ),
    "cqrs.saga.parallel": ("Parallel",),
    "cqrs.saga.pivot": ("Pivot",),
    "cqrs.saga.recovery": ("recover_saga",),
    "cqrs.saga.recovery_worker": ("SagaRecoveryWorker",),
    "cqrs.saga.saga": ("Saga",),
    "cqrs.saga.step": (
        "OnUnknown",
        "Resp",
        "SagaStepHandler",
        "SagaStepResult",
    ),
    "cqrs.saga.storage.enums": (
        "SagaStatus",
        "SagaStepStatus",
    ),
    "cqrs.saga.storage.memory": ("MemorySagaStorage",),
    "cqrs.saga.storage.protocol": (
        "ILeasedSagaStorage",
        "ISagaStorage",
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_SUBMODULES = frozenset(
    (
        "adapters",
        "circuit_breaker",
        "compressors",
        "container",
        "deserializers",
        "dispatcher",
        "events",
        "exceptions",
        "generic_utils",
        "mediator",
        "message_brokers",
        "middlewares",
        "requests",
        "response",
        "retry",
        "saga",
        "serializers",
        "types",
    )
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("anyio-cqrs")
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    except ImportError as error:
        if not hasattr(error, "extra"):
            raise
        value = _unavailable(name, error)
    globals()[name] = value
    return value


def _unavailable(name: str, error: ImportError) -> type:
    """A class that raises ``error`` when it is used, so that what asks for every name meets no error."""

    def fail(self: object, *_: object, **__: object) -> None:
        raise error

    return type(name, (), {"__init__": fail, "__doc__": str(error), "__module__": __name__})


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_SUBMODULES})


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
    "SagaMediator",
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
    "Fallback",
    "ILeasedSagaStorage",
    "ISagaStorage",
    "MemorySagaStorage",
    "OnUnknown",
    "Parallel",
    "Pivot",
    "Resp",
    "RetryPolicy",
    "Saga",
    "SagaContext",
    "SagaRecoveryWorker",
    "SagaStatus",
    "SagaStepHandler",
    "SagaStepResult",
    "SagaStepStatus",
    "compensation_errors",
    "recover_saga",
    # diagrams and errors
    "CoRMermaid",
    "SagaMermaid",
    "CQRSError",
]
