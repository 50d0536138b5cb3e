"""A container for those without a dependency injection library: factories by type, wired by type hints."""

from __future__ import annotations

import enum
import functools
import inspect
import logging
import sys
import threading
import types
import typing
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import anyio
from typing_extensions import Self

from cqrs.container.protocol import Container, Resolver
from cqrs.container.scope import CLEANUP_TIMEOUT, DispatchScope
from cqrs.exceptions import ConfigurationError, DependencyResolutionError, ScopeCleanupTimeoutError, name_of

T = TypeVar("T")

Factory: TypeAlias = Callable[..., Any]
"""A class, a function, an async function, a generator function or an async generator function."""

_logger = logging.getLogger("cqrs")


class Lifetime(enum.Enum):
    """How long an instance is used for."""

    TRANSIENT = "transient"
    """A new instance wherever it is injected."""

    SCOPED = "scoped"
    """One instance a scope; where no scope is open, one a resolution."""

    SINGLETON = "singleton"
    """One instance a container."""


class ResourceStack(AsyncExitStack):
    """Open resources, closed in reverse order, each of them told of the exception that ends the scope.

    A resource can replace that exception, as a ``finally`` that raises does, but not hide it: neither
    from the resources below it, which would commit what failed, nor from the caller.
    """

    def enter_context(self, cm: AbstractContextManager[T, Any]) -> T:
        """Open ``cm`` and keep it open until the stack is closed."""
        return super().enter_context(_Outspoken(cm))

    async def enter_async_context(self, cm: AbstractAsyncContextManager[T, Any]) -> T:
        """Open ``cm`` and keep it open until the stack is closed."""
        return await super().enter_async_context(_AsyncOutspoken(cm))


class _Outspoken(AbstractContextManager[T, None]):
    """A context manager that hides no exception."""

    def __init__(self, resource: AbstractContextManager[T, Any]) -> None:
        self._resource: Any = resource

    def __enter__(self) -> T:
        return self._resource.__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *failure: object) -> None:
        self._resource.__exit__(*failure)


class _AsyncOutspoken(AbstractAsyncContextManager[T, None]):
    def __init__(self, resource: AbstractAsyncContextManager[T, Any]) -> None:
        self._resource: Any = resource

    async def __aenter__(self) -> T:
        return await self._resource.__aenter__()  # type: ignore[no-any-return]

    async def __aexit__(self, *failure: object) -> None:
        await self._resource.__aexit__(*failure)


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
        self._providers: dict[Any, _Provider] = {}
        self._overrides: list[tuple[Any, _Provider]] = []
        self._nodes: dict[Any, _Node] = {}
        self._singletons = _Once()
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

        :param factory: what makes the instance. Left out, it is ``type_`` itself.
        :param lifetime: how long an instance is used for.
        """
        with self._lock:
            self._providers[type_] = _Provider.of(factory or type_, lifetime)
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
        entry = (type_, _Provider.of(factory, lifetime or self._lifetime_of(type_)))
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

    async def make_singleton(self, node: _Node) -> Any:
        """The instance of ``node``, made now if it has not been made yet."""
        return await self._singletons.get(node.key, functools.partial(self._open_singleton, node))

    async def _open_singleton(self, node: _Node) -> Any:
        scope = _Scope(self)
        try:
            instance = await scope.make(node)
        except BaseException as error:
            await _close(scope, error)
            raise
        self._resources.push_async_exit(scope)
        return instance

    def _node(self, type_: Any) -> _Node:
        with self._lock:
            node = _Wiring(self._effective_providers(), self._kept, type_).node(type_, ())
            self._nodes[type_] = node
            return node

    def node(self, type_: Any) -> _Node:
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

    def _effective_providers(self) -> Mapping[Any, _Provider]:
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
        self._shared = _Once()
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

    async def provide(self, node: _Node) -> Any:
        if node.direct is not None:
            return node.direct()
        if node.lifetime is Lifetime.SINGLETON:
            return await self._container.make_singleton(node)
        if node.lifetime is Lifetime.SCOPED:
            return await self._shared.get(node.key, functools.partial(self.make, node))
        return await self.make(node)

    async def make(self, node: _Node) -> Any:
        arguments = [await self.provide(needed) for needed in node.needs]
        made = node.call(*arguments)
        if node.kind is _Kind.ASYNC:
            return await made
        if node.kind is _Kind.GENERATOR:
            return self._resources.enter_context(made)
        if node.kind is _Kind.ASYNC_GENERATOR:
            return await self._resources.enter_async_context(made)
        return made


class _Once:
    """Values by key, each made once however many tasks, threads and event loops ask for it at a time.

    If its maker fails or is cancelled, the next that asks makes it.
    """

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self._makers: dict[Any, _Maker] = {}
        self._guard = threading.Lock()

    async def get(self, key: Any, make: Callable[[], Awaitable[Any]]) -> Any:
        if key in self.values:
            return self.values[key]
        candidate = _Maker()
        while True:
            with self._guard:
                if key in self.values:
                    return self.values[key]
                maker = self._makers.setdefault(key, candidate)
            if maker is candidate:
                return await self._make(key, make, maker)
            await maker.wait()

    async def _make(self, key: Any, make: Callable[[], Awaitable[Any]], maker: _Maker) -> Any:
        try:
            value = await make()
            with self._guard:
                self.values[key] = value
            return value
        finally:
            with self._guard:
                del self._makers[key]
            maker.done.set()


class _Maker:
    """Somebody who is making a value."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self._thread = threading.get_ident()

    async def wait(self) -> None:
        if self._thread == threading.get_ident():
            await self.done.wait()
        else:  # an event cannot be awaited from another event loop
            await anyio.sleep(0.005)


class _Kind(enum.Enum):
    PLAIN = enum.auto()
    ASYNC = enum.auto()
    GENERATOR = enum.auto()
    ASYNC_GENERATOR = enum.auto()

    @classmethod
    def of(cls, factory: Factory) -> _Kind:
        function = _function_behind(factory)
        if inspect.isasyncgenfunction(function):
            return cls.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(function):
            return cls.GENERATOR
        return cls.ASYNC if inspect.iscoroutinefunction(function) else cls.PLAIN


def _function_behind(factory: Any) -> Any:
    while isinstance(factory, functools.partial):
        factory = factory.func
    if inspect.isclass(factory) or inspect.isroutine(factory):
        return factory
    return type(factory).__call__


@dataclass(frozen=True)
class _Provider:
    factory: Factory
    lifetime: Lifetime
    kind: _Kind

    @classmethod
    def of(cls, factory: Factory, lifetime: Lifetime) -> _Provider:
        return cls(factory, lifetime, _Kind.of(factory))


@dataclass(frozen=True, eq=False)
class _Node:
    """How one type is made, and from what."""

    key: Any
    call: Factory
    kind: _Kind
    lifetime: Lifetime
    needs: tuple[_Node, ...]
    uses: frozenset[Any]
    needs_scope: bool
    direct: Callable[[], Any] | None
    """Makes the instance without awaiting anything; None where that cannot be done."""


class _Wiring:
    """Finds out how a type is made."""

    def __init__(
        self,
        providers: Mapping[Any, _Provider],
        keep: Callable[[Any, Callable[[], Any]], Callable[[], Any]],
        root: Any,
    ) -> None:
        self._providers = providers
        self._keep = keep
        self._root = root

    def node(self, type_: Any, users: tuple[Any, ...]) -> _Node:
        path = (*users, type_)
        if type_ in users:
            raise self._error(path, "they need each other. Break the cycle, for example by injecting a factory.")
        provider = self._provider(type_, path)
        positional, named = self._needs(provider.factory, path)
        needs = (*positional, *named.values())
        needs_scope = self._needs_scope(provider, needs, path)
        call = _called_with_positions(provider.factory, len(positional), tuple(named))
        return _Node(
            key=type_,
            call=_OPENERS.get(provider.kind, _as_is)(call),
            kind=provider.kind,
            lifetime=provider.lifetime,
            needs=needs,
            uses=frozenset({type_}).union(*(needed.uses for needed in needs)),
            needs_scope=needs_scope,
            direct=self._direct(type_, provider, call, needs),
        )

    def _provider(self, type_: Any, path: tuple[Any, ...]) -> _Provider:
        provider = self._providers.get(type_) or self._providers.get(typing.get_origin(type_))
        if provider is None:
            provider = _Provider.of(typing.get_origin(type_) or type_, Lifetime.TRANSIENT)
        if obstacle := _why_not_callable(provider.factory):
            raise self._error(
                path,
                f"{name_of(type_)} {obstacle}. Say what makes it: container.register({name_of(type_)}, factory).",
            )
        return provider

    def _needs_scope(self, provider: _Provider, needs: tuple[_Node, ...], path: tuple[Any, ...]) -> bool:
        if provider.lifetime is Lifetime.SINGLETON:
            self._refuse_scoped(needs, path)
            return False
        opens = provider.kind in _OPENERS
        return opens or provider.lifetime is Lifetime.SCOPED or any(needed.needs_scope for needed in needs)

    def _refuse_scoped(self, needs: tuple[_Node, ...], path: tuple[Any, ...]) -> None:
        for needed in needs:
            if needed.lifetime is Lifetime.SCOPED:
                raise self._error(
                    (*path, needed.key),
                    f"the singleton would keep {name_of(needed.key)} beyond its scope. "
                    f"Register both as singletons or both as scoped.",
                )
            if needed.lifetime is Lifetime.TRANSIENT:
                self._refuse_scoped(needed.needs, (*path, needed.key))

    def _direct(
        self, type_: Any, provider: _Provider, call: Factory, needs: tuple[_Node, ...]
    ) -> Callable[[], Any] | None:
        makers = [needed.direct for needed in needs if needed.direct is not None]
        if provider.kind is not _Kind.PLAIN or provider.lifetime is Lifetime.SCOPED or len(makers) < len(needs):
            return None
        make = _composed(call, makers)
        return self._keep(type_, make) if provider.lifetime is Lifetime.SINGLETON else make

    def _needs(self, factory: Factory, path: tuple[Any, ...]) -> tuple[list[_Node], dict[str, _Node]]:
        positional: list[_Node] = []
        named: dict[str, _Node] = {}
        skipped = False
        for parameter in self._parameters(factory, path):
            wanted = self._wanted(parameter, factory, path)
            if wanted is _NOTHING:
                skipped = True
            elif parameter.kind is parameter.KEYWORD_ONLY or skipped:
                named[parameter.name] = self.node(wanted, path)
            else:
                positional.append(self.node(wanted, path))
        return positional, named

    def _parameters(self, factory: Factory, path: tuple[Any, ...]) -> list[inspect.Parameter]:
        try:
            parameters = inspect.signature(factory).parameters.values()
        except (TypeError, ValueError) as error:
            raise self._error(path, "its parameters cannot be read. Register a function that makes it.") from error
        return [parameter for parameter in parameters if parameter.kind not in _VARIADIC]

    def _wanted(self, parameter: inspect.Parameter, factory: Factory, path: tuple[Any, ...]) -> Any:
        optional = parameter.default is not parameter.empty
        if parameter.annotation is parameter.empty:
            return _NOTHING if optional else self._unannotated(parameter, path)
        try:
            wanted = _without_none(_resolved(parameter.annotation, _namespace(factory)))
        except (NameError, AttributeError, SyntaxError, TypeError) as error:
            if optional:
                return _NOTHING
            raise self._error(
                path,
                f"the annotation {parameter.annotation!r} of parameter {parameter.name!r} is not known here ({error}). "
                f"Define that name at module level, outside of 'if TYPE_CHECKING', or register a function "
                f"without parameters.",
            ) from error
        return _NOTHING if optional and not self._is_registered(wanted, parameter) else wanted

    def _is_registered(self, wanted: Any, parameter: inspect.Parameter) -> bool:
        # What comes after a positional-only parameter that keeps its default cannot be passed by name.
        return wanted in self._providers and parameter.kind is not parameter.POSITIONAL_ONLY

    def _unannotated(self, parameter: inspect.Parameter, path: tuple[Any, ...]) -> Any:
        raise self._error(
            path, f"parameter {parameter.name!r} has no annotation. Annotate it with a type, or give it a default."
        )

    def _error(self, path: tuple[Any, ...], reason: str) -> DependencyResolutionError:
        return DependencyResolutionError(
            self._root, "PlainContainer", f"{' -> '.join(name_of(step) for step in path)}: {reason}"
        )


_NOTHING: Any = object()

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

_OPENERS: Mapping[_Kind, Callable[[Factory], Factory]] = {
    _Kind.GENERATOR: contextmanager,
    _Kind.ASYNC_GENERATOR: asynccontextmanager,
}


def _as_is(call: Factory) -> Factory:
    return call


def _why_not_callable(factory: Any) -> str | None:
    if not isinstance(factory, type):
        return None if callable(factory) and not _is_new_type(factory) else "is not a class"
    if getattr(factory, "_is_protocol", False):
        return "is a protocol"
    if inspect.isabstract(factory):
        return "is abstract"
    return "is a built-in type" if factory.__module__ == "builtins" else None


def _is_new_type(factory: Any) -> bool:
    return hasattr(factory, "__supertype__")


def _called_with_positions(factory: Factory, positional: int, names: tuple[str, ...]) -> Factory:
    if not names:
        return factory

    def call(*arguments: Any) -> Any:
        return factory(*arguments[:positional], **dict(zip(names, arguments[positional:], strict=True)))

    return call


def _composed(call: Factory, makers: list[Callable[[], Any]]) -> Callable[[], Any]:
    match makers:
        case []:
            return call
        case [first]:
            return lambda: call(first())
        case [first, second]:
            return lambda: call(first(), second())
        case _:
            return lambda: call(*[make() for make in makers])


def _resolved(annotation: Any, namespace: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, globalns=namespace)["it"]


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return members[0] if len(members) == 1 else hint
    return hint


def _namespace(factory: Any) -> dict[str, Any]:
    """The names that the annotations of ``factory`` can refer to."""
    function = inspect.unwrap(_function_behind(factory))
    if not isinstance(function, type):
        return getattr(function, "__globals__", {})
    namespace: dict[str, Any] = {}
    for base in reversed(function.__mro__):  # the fields of a dataclass can come from several modules
        namespace.update(vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {})
    constructor = inspect.unwrap(inspect.getattr_static(function, "__init__"))
    return {**namespace, **getattr(constructor, "__globals__", {})}
