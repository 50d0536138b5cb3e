"""The type variables of handlers, under their documented import path."""

from cqrs.requests.request import ReqT, ResT

__all__ = ["ReqT", "ResT"]
