"""Requests and their handlers."""

from cqrs.requests.cor_request_handler import CORRequestHandler, CORRequestHandlerT, build_chain
from cqrs.requests.fallback import RequestHandlerFallback
from cqrs.requests.map import RequestMap, SagaMap
from cqrs.requests.request import DCRequest, IRequest, PydanticRequest, Request
from cqrs.requests.request_handler import RequestHandler, SendStreamRequestHandler, StreamingRequestHandler

__all__ = [
    "CORRequestHandler",
    "CORRequestHandlerT",
    "DCRequest",
    "IRequest",
    "PydanticRequest",
    "Request",
    "RequestHandler",
    "RequestHandlerFallback",
    "RequestMap",
    "SagaMap",
    "SendStreamRequestHandler",
    "StreamingRequestHandler",
    "build_chain",
]
