"""A container for those without a dependency injection library: factories by type, wired by type hints."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, TypeVar

import anyio
from typing_extensions import Self

from cqrs.container._once import Once
from cqrs.container._resources import ResourceStack
from cqrs.container._wiring import Factory, FactoryKind, Lifetime, Node, Provider, Wiring
from cqrs.container.protocol import Container, Resolver
from cqrs.container.scope import CLEANUP_TIMEOUT, DispatchScope
from cqrs.exceptions import ConfigurationError, DependencyResolutionError, ScopeCleanupTimeoutError

T = TypeVar("T")

_logger = logging.getLogger("cqrs")


async def _close(resources: AbstractAsyncContextManager[Any, Any], error: BaseException | None) -> None:
    failure = (None, None, None) if error is None else (type(error), error, error.__traceback__)
    with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True) as budget:
        await resources.__aexit__(*failure)
    if budget.cancelled_caught:
        timeout = ScopeCleanupTimeoutError("PlainContainer", CLEANUP_TIMEOUT)
        if error is None:
            raise timeout
        _logger.error("%s", timeout)


class PlainContainer(Container["PlainContainer"]):
    """Makes instances from factories that are registered by type, and injects by type hints.

    ::

        container = PlainContainer()
        container.register(OrderRepository, SqlOrderRepository, lifetime=Lifetime.SCOPED)
        container.register(Session, open_session, lifetime=Lifetime.SCOPED)  # a generator function
        container.register_instance(Settings, settings)

    A concrete class needs no registration: it is made anew each time, from its own hints. A parameter
    with a default gets the default unless its type is registered.

    What a generator function yields stays open until its scope is left. A singleton is made at its
    first use, once, also when several tasks, threads or event loops want it at the same time. If it
    comes from a generator function, it is closed by :meth:`aclose`, maybe in another task than the one
    that opened it: such a generator must not yield inside a task group or a cancel scope.
    """

    def __init__(self) -> None:
        self._providers: dict[Any, Provider] = {}
        self._overrides: list[tuple[Any, Provider]] = []
        self._nodes: dict[Any, Node] = {}
        self._singletons = Once()
        self._resources = ResourceStack()
        self._lock = threading.RLock()

    @property
    def external_container(self) -> PlainContainer:
        """The container itself, as it wraps no other."""
        return self

    def attach_external_container(self, container: PlainContainer) -> None:
        """Do nothing: there is no other container to wrap.

        :raises ConfigurationError: ``container`` is another one than this.
        """
        if container is not self:
            raise ConfigurationError(
                "PlainContainer wraps no other container: pass the container itself to bootstrap(), "
                "or register on this one."
            )

    def register(
        self, type_: type[Any], factory: Factory | None = None, *, lifetime: Lifetime = Lifetime.TRANSIENT
    ) -> None:
        """Make instances of ``type_`` with ``factory``. Registered again, the later factory counts.

        A singleton that was made from the earlier one is made anew; what it opened is closed by :meth:`aclose`.

        :param factory: what makes the instance. Left out, it is ``type_`` itself.
        :param lifetime: how long an instance is used for.
        """
        with self._lock:
            self._providers[type_] = Provider.of(factory or type_, lifetime)
            self._forget(self._users_of(type_))

    def register_instance(self, type_: type[T], instance: T) -> None:
        """Give ``instance`` wherever ``type_`` is wanted. It is not closed by this container."""
        self.register(type_, lambda: instance)

    @contextmanager
    def override(self, type_: type[Any], factory: Factory, *, lifetime: Lifetime | None = None) -> Generator[None]:
        """Make instances of ``type_`` with ``factory`` instead, within a ``with`` block. Meant for tests.

        Singletons that depend on ``type_`` are made anew in the block, and the former ones are back
        after it. Counts for all tasks that use the container.

        :param lifetime: how long an instance is used for. Left out, it is what ``type_`` is registered with.
        """
        entry = (type_, Provider.of(factory, lifetime or self._lifetime_of(type_)))
        with self._lock:
            self._overrides.append(entry)
            set_aside = self._forget(self._users_of(type_))
        try:
            yield
        finally:
            with self._lock:
                self._overrides = [other for other in self._overrides if other is not entry]
                self._forget(self._users_of(type_))
                self._singletons.values.update(set_aside)

    async def resolve(self, type_: type[T]) -> T:
        """An instance of ``type_``.

        Where that opens something or shares something within a scope, it is done in a scope of its own
        which is left before the instance is returned, so that nothing leaks: use :meth:`scope` to have
        what was opened stay open.

        :raises DependencyResolutionError: ``type_`` or something that it needs cannot be provided.
        """
        node = self._nodes.get(type_) or self._node(type_)
        if node.direct is not None:
            return node.direct()  # type: ignore[no-any-return]
        if node.needs_scope:
            async with DispatchScope(self) as resolver:
                return await resolver.resolve(type_)
        return await _Scope(self).provide(node)  # type: ignore[no-any-return]

    def scope(self) -> AbstractAsyncContextManager[Resolver]:
        """A scope. What generator functions opened in it is closed, in reverse order, when it is left.

        Each of them is thrown the exception that the scope is left with and cannot suppress it. All are
        closed even if one of them raises. Closing is not shielded from cancellation here.
        """
        return _Scope(self)

    def needs_scope(self, type_: type) -> bool:
        """Whether ``type_`` needs a generator function or something scoped. False for what cannot be resolved."""
        try:
            return (self._nodes.get(type_) or self._node(type_)).needs_scope
        except DependencyResolutionError:
            return False

    async def aclose(self) -> None:
        """Close the singletons, in the reverse order of their making. The container stays usable.

        They have ``CLEANUP_TIMEOUT`` seconds (30), also when the caller is cancelled.

        :raises ScopeCleanupTimeoutError: that was not enough.
        """
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        resources, self._resources = self._resources, ResourceStack()
        self._singletons.values.clear()
        await _close(resources, error)

    async def make_singleton(self, node: Node) -> Any:
        """The instance of ``node``, made now if it has not been made yet."""
        return await self._singletons.get(node.key, functools.partial(self._open_singleton, node))

    async def _open_singleton(self, node: Node) -> Any:
        scope = _Scope(self)
        try:
            instance = await scope.make(node)
        except BaseException as error:
            await _close(scope, error)
            raise
        self._resources.push_async_exit(scope)
        return instance

    def _node(self, type_: Any) -> Node:
        with self._lock:
            node = Wiring(self._effective_providers(), self._kept, type_).node(type_, ())
            self._nodes[type_] = node
            return node

    def node(self, type_: Any) -> Node:
        """How ``type_`` is made."""
        return self._nodes.get(type_) or self._node(type_)

    def _kept(self, key: Any, make: Callable[[], Any]) -> Callable[[], Any]:
        instances, lock = self._singletons.values, self._lock

        def get() -> Any:
            try:
                return instances[key]
            except KeyError:
                with lock:
                    if key not in instances:
                        instances[key] = make()
                    return instances[key]

        return get

    def _effective_providers(self) -> Mapping[Any, Provider]:
        return {**self._providers, **dict(self._overrides)}

    def _lifetime_of(self, type_: Any) -> Lifetime:
        provider = self._effective_providers().get(type_)
        return Lifetime.TRANSIENT if provider is None else provider.lifetime

    def _users_of(self, type_: Any) -> list[Any]:
        users: list[Any] = [type_]
        for key in self._singletons.values:
            try:
                uses = self.node(key).uses
            except DependencyResolutionError:
                uses = frozenset({type_})
            if type_ in uses:
                users.append(key)
        return users

    def _forget(self, keys: list[Any]) -> dict[Any, Any]:
        self._nodes = {}
        instances = self._singletons.values
        return {key: instances.pop(key) for key in keys if key in instances}


class _Scope(AbstractAsyncContextManager["_Scope", None]):
    """One scope of a plain container: its shared instances and its open resources."""

    def __init__(self, container: PlainContainer) -> None:
        self._container = container
        self._shared = Once()
        self._resources = ResourceStack()
        self._left = False

    async def __aexit__(self, *failure: object) -> None:
        self._left = True
        resources: Any = self._resources
        await resources.__aexit__(*failure)

    async def resolve(self, type_: type[T]) -> T:
        if self._left:
            raise DependencyResolutionError(type_, "PlainContainer", "its scope has been left.")
        return await self.provide(self._container.node(type_))  # type: ignore[no-any-return]

    async def provide(self, node: Node) -> Any:
        if node.direct is not None:
            return node.direct()
        if node.lifetime is Lifetime.SINGLETON:
            return await self._container.make_singleton(node)
        if node.lifetime is Lifetime.SCOPED:
            return await self._shared.get(node.key, functools.partial(self.make, node))
        return await self.make(node)

    async def make(self, node: Node) -> Any:
        arguments = [await self.provide(needed) for needed in node.needs]
        made = node.call(*arguments)
        if node.kind is FactoryKind.ASYNC:
            return await made
        if node.kind is FactoryKind.GENERATOR:
            return self._resources.enter_context(made)
        if node.kind is FactoryKind.ASYNC_GENERATOR:
            return await self._resources.enter_async_context(made)
        return made


__all__ = ["Factory", "Lifetime", "PlainContainer"]
