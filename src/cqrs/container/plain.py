"""A container for those without a dependency injection library: factories by type, wired by type hints."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

from cqrs._options import enum_member
from cqrs.container._once import Once
from cqrs.container._resources import ResourceStack, close_scope
from cqrs.container._wiring import Factory, FactoryKind, Lifetime, Node, Provider, Wiring
from cqrs.container.protocol import Container, Resolver
from cqrs.container.scope import CLEANUP_TIMEOUT, DispatchScope
from cqrs.exceptions import ConfigurationError, DependencyResolutionError, name_of

T = TypeVar("T")


async def _close(resources: AbstractAsyncContextManager[Any, Any], error: BaseException | None) -> None:
    await close_scope(resources, "PlainContainer", error, CLEANUP_TIMEOUT)


def _provider(type_: Any, factory: Factory, lifetime: Any) -> Provider:
    if not callable(factory):
        name = name_of(type_)
        raise ConfigurationError(
            f"The factory of {name} is {factory!r}, which cannot be called. Have an instance given as it is: "
            f"container.register_instance({name}, instance), or container.override({name}, lambda: instance)."
        )
    return Provider.of(factory, enum_member("lifetime", Lifetime, lifetime))


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
        self._set_aside: dict[tuple[int, ...], dict[Any, Any]] = {}
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
        :raises ConfigurationError: ``factory`` cannot be called, as an instance for example.
        :raises InvalidOptionError: ``lifetime`` is not one.
        """
        provider = _provider(type_, type_, lifetime) if factory is None else _provider(type_, factory, lifetime)
        with self._lock:
            with self._rewiring(type_) as users:
                self._providers[type_] = provider
            self._forget(users)
            for instances in self._set_aside.values():
                _pop_all(instances, users)

    def register_instance(self, type_: type[T], instance: T) -> None:
        """Give ``instance`` wherever ``type_`` is wanted. It is not closed by this container."""
        self.register(type_, lambda: instance)

    @contextmanager
    def override(self, type_: type[Any], factory: Factory, *, lifetime: Lifetime | None = None) -> Generator[None]:
        """Make instances of ``type_`` with ``factory`` instead, within a ``with`` block. Meant for tests.

        Singletons that depend on ``type_`` are made anew in the block, and the former ones are back
        after it. Counts for all tasks that use the container.

        :param lifetime: how long an instance is used for. Left out, it is what ``type_`` is registered with.
        :raises ConfigurationError: ``factory`` cannot be called, as an instance for example.
        :raises InvalidOptionError: ``lifetime`` is not one.
        """
        entry = (type_, _provider(type_, factory, self._lifetime_of(type_) if lifetime is None else lifetime))
        with self._lock:
            self._override_with([*self._overrides, entry], type_)
        try:
            yield
        finally:
            with self._lock:
                self._override_with([other for other in self._overrides if other is not entry], type_)

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
        with self._lock:
            resources, self._resources = self._resources, ResourceStack()
            self._forget(self._singletons.all_keys())
            self._set_aside = {}
        await _close(resources, error)

    async def make_singleton(self, node: Node) -> Any:
        """The instance of ``node``, made now if it has not been made yet."""
        return await self._singletons.get(node.key, functools.partial(self._open_singleton, node.key))

    async def _open_singleton(self, key: Any) -> Any:
        scope = _Scope(self)
        try:
            # Not the node that was asked for: an override can have begun or ended since that was made.
            instance = await scope.make(self.node(key))
        except BaseException as error:
            await _close(scope, error)
            raise
        self._resources.push_async_exit(scope)
        return instance

    def _node(self, type_: Any) -> Node:
        with self._lock:
            keep = functools.partial(self._kept, self._nodes)
            node = Wiring(self._effective_providers(), keep, type_).node(type_, ())
            self._nodes[type_] = node
            return node

    def node(self, type_: Any) -> Node:
        """How ``type_`` is made."""
        return self._nodes.get(type_) or self._node(type_)

    def _kept(self, nodes: dict[Any, Node], key: Any, make: Callable[[], Any]) -> Callable[[], Any]:
        instances, lock = self._singletons.values, self._lock

        def get() -> Any:
            try:
                return instances[key]
            except KeyError:
                with lock:
                    if key in instances:
                        return instances[key]
                    if nodes is not self._nodes:  # an override can have begun or ended since
                        return self._made_now(key, make)
                    instances[key] = make()
                    return instances[key]

        return get

    def _made_now(self, key: Any, make: Callable[[], Any]) -> Any:
        current = self.node(key)
        return make() if current.direct is None else current.direct()

    def _effective_providers(self) -> Mapping[Any, Provider]:
        return {**self._providers, **dict(self._overrides)}

    def _lifetime_of(self, type_: Any) -> Lifetime:
        provider = self._effective_providers().get(type_)
        return Lifetime.TRANSIENT if provider is None else provider.lifetime

    def _override_with(self, overrides: list[tuple[Any, Provider]], type_: Any) -> None:
        former = _identities(self._overrides)
        with self._rewiring(type_) as users:
            self._overrides = overrides
        self._set_aside[former] = self._forget(users)
        current = _identities(overrides)
        restored = self._set_aside.pop(current, {})
        self._forget(restored)
        self._singletons.values.update(restored)
        # Overrides can end in any order: what was made under one that has ended is never wanted again.
        self._set_aside = {under: kept for under, kept in self._set_aside.items() if set(under) <= set(current)}

    @contextmanager
    def _rewiring(self, type_: Any) -> Generator[set[Any]]:
        """Gives, after the block, the singletons that use ``type_``, before the change that is made in it or since."""
        users = self._users_of(type_)
        yield users
        self._nodes = {}
        users |= self._users_of(type_)

    def _users_of(self, type_: Any) -> set[Any]:
        return {type_, *(key for key in self._singleton_keys() if type_ in self._used_by(key, type_))}

    def _singleton_keys(self) -> set[Any]:
        return {*self._singletons.all_keys()}.union(*self._set_aside.values())

    def _used_by(self, key: Any, otherwise: Any) -> Collection[Any]:
        try:
            return self.node(key).uses
        except DependencyResolutionError:
            return (otherwise,)

    def _forget(self, keys: Collection[Any]) -> dict[Any, Any]:
        instances = self._singletons.values
        forgotten = {key: instances[key] for key in keys if key in instances}
        for key in keys:
            self._singletons.forget(key)
        return forgotten


def _identities(overrides: list[tuple[Any, Provider]]) -> tuple[int, ...]:
    return tuple(map(id, overrides))


def _pop_all(instances: dict[Any, Any], keys: Collection[Any]) -> None:
    for key in keys:
        instances.pop(key, None)


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
