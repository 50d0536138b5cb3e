"""Dependency injection containers. Each adapter is a module of its own, named after its library."""

from cqrs.container.protocol import Container, Resolver, ScopedContainer
from cqrs.container.scope import ScopeStrategy

__all__ = ["Container", "Resolver", "ScopeStrategy", "ScopedContainer"]
