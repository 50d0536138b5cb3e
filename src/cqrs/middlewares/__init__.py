"""Code around every handler."""

from cqrs.middlewares.base import Middleware, MiddlewareChain

__all__ = ["Middleware", "MiddlewareChain"]
