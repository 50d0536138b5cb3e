"""The asynchronous container of the ``dishka`` library."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from typing_extensions import Self

from cqrs._optional_library import OptionalLibrary
from cqrs.container._backend import is_asyncio
from cqrs.container.protocol import Container, Resolver
from cqrs.container.scope import DispatchScope
from cqrs.exceptions import (
    ConfigurationError,
    ContainerNotAttachedError,
    DependencyResolutionError,
    name_of,
)

with OptionalLibrary("dishka", extra="dishka"):
    from dishka import AsyncContainer
    from dishka.exceptions import ExitError, NoActiveFactoryError, NoFactoryError

T = TypeVar("T")


class DishkaContainer(Container[AsyncContainer]):
    """Resolves from a ``dishka.AsyncContainer``, each dispatch in a ``Scope.REQUEST`` of its own.

    Handlers are provided like everything else: ``provider.provide(CreateOrderHandler, scope=Scope.REQUEST)``.

    The lock that dishka puts into a container by default is one of asyncio's, which fails on trio as soon
    as two tasks want the same container. There, make the container with a portable one, or with none:
    ``make_async_container(..., lock_factory=anyio.Lock)``. Without it, resolving on trio is refused.

    :param container: the container of the application; it can be attached later. Closing it stays with
        the application.
    """

    def __init__(self, container: AsyncContainer | None = None) -> None:
        self._container = container
        self._has_asyncio_lock = container is not None and _has_asyncio_lock(container)

    @property
    def external_container(self) -> AsyncContainer:
        """The ``AsyncContainer`` that is resolved from.

        :raises ContainerNotAttachedError: there is none yet.
        """
        if self._container is None:
            raise ContainerNotAttachedError("DishkaContainer")
        return self._container

    def attach_external_container(self, container: AsyncContainer) -> None:
        """Resolve from ``container`` from now on."""
        self._container = container
        self._has_asyncio_lock = _has_asyncio_lock(container)

    async def resolve(self, type_: type[T]) -> T:
        """An instance of ``type_``, out of a scope of its own which is left before the instance is returned.

        Nothing leaks so, but what was opened in the scope is closed already: use :meth:`scope` to have it
        stay open.

        :raises DependencyResolutionError: ``type_`` or something that it needs is not provided.
        :raises ContainerNotAttachedError: no container is attached.
        :raises ConfigurationError: the container's lock is asyncio's, and this is trio.
        """
        async with DispatchScope(self) as resolver:
            return await resolver.resolve(type_)

    def scope(self) -> AbstractAsyncContextManager[Resolver]:
        """The next scope of the container that is not skipped: by default ``Scope.REQUEST``.

        What generators opened in it is closed, in reverse order, when it is left, all of it even if one of
        them raises. Their ``yield`` returns the exception that the scope is left with, or None: that is
        dishka's way to tell them. Closing is not shielded from cancellation here.

        :raises ContainerNotAttachedError: no container is attached.
        :raises ConfigurationError: the container's lock is asyncio's, and this is trio.
        """
        if self._has_asyncio_lock and not is_asyncio():
            raise ConfigurationError(
                "The lock of the dishka container is asyncio's and fails on trio. "
                "Make the container with make_async_container(..., lock_factory=anyio.Lock)."
            )
        return _DishkaScope(self.external_container())

    def needs_scope(self, type_: type) -> bool:
        """True: dishka's scopes hold its instances as well as its resources."""
        return True


class _DishkaScope(AbstractAsyncContextManager["_DishkaScope", None]):
    """One scope of a dishka container."""

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container

    async def __aenter__(self) -> Self:
        await self._container.__aenter__()
        return self

    async def __aexit__(self, kind: object, failure: BaseException | None, traceback: object) -> None:
        try:
            await _close(self._container, failure)
        except ExitError as group:
            errors: tuple[Exception, ...] = getattr(group, "exceptions", ())
            if len(errors) != 1:
                raise
            raise errors[0] from errors[0].__cause__

    async def resolve(self, type_: type[T]) -> T:
        try:
            return await self._container.get(type_)
        except (NoFactoryError, NoActiveFactoryError) as error:
            raise DependencyResolutionError(type_, "DishkaContainer", _explanation(type_, error)) from error


async def _close(container: AsyncContainer, failure: BaseException | None) -> None:
    try:
        await container.close(failure)
    except Exception:
        raise
    except BaseException:  # a cancellation has stopped dishka's loop over what is open: go on with the rest
        await _close(container, failure)
        raise


def _explanation(type_: Any, error: NoFactoryError | NoActiveFactoryError) -> str:
    if isinstance(error, NoFactoryError) and error.requested.type_hint is type_ and not error.path:
        return f"no provider has it. Provide it: provider.provide({name_of(type_)}, scope=Scope.REQUEST)."
    return str(error)


def _has_asyncio_lock(container: AsyncContainer | None) -> bool:
    while container is not None:
        if type(container.lock).__module__.startswith("asyncio"):
            return True
        container = container.parent_container
    return False
