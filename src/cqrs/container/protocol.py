"""What the library asks of a dependency injection container."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
C = TypeVar("C")


class Resolver(Protocol):
    """Gives instances by their type."""

    async def resolve(self, type_: type[T]) -> T:
        """An instance of ``type_``.

        :raises cqrs.exceptions.DependencyResolutionError: it cannot be provided.
        """
        raise NotImplementedError


class Container(Resolver, Protocol[C]):
    """The documented container: wraps a container of some library and resolves from it."""

    @property
    def external_container(self) -> C:
        """The container that is wrapped."""
        raise NotImplementedError

    def attach_external_container(self, container: C) -> None:
        """Wrap ``container``."""
        raise NotImplementedError


@runtime_checkable
class ScopedContainer(Protocol):
    """A container whose instances can live in scopes. Where a container has these methods, they are used.

    Each dispatch opens a scope, resolves its handler from it, and closes it when the handler is done.
    """

    def scope(self) -> AbstractAsyncContextManager[Resolver]:
        """A new scope. What is opened in it is closed, in reverse order, when it is left.

        Left with an exception, its resources are told of that exception.
        """
        ...

    def needs_scope(self, type_: type) -> bool:
        """Whether resolving ``type_`` opens something that must be closed, or shares it within a scope.

        Where it answers False, ``resolve`` is called on the container itself and no scope is opened.
        Asked at each dispatch, so it must be cheap and must know of later bindings.
        """
        ...
