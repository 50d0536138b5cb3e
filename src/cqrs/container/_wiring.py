"""How a type is made, and from what: found out once, from type hints."""

from __future__ import annotations

import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from cqrs.exceptions import DependencyResolutionError, name_of

Factory: TypeAlias = Callable[..., Any]
"""A class, a function, an async function, a generator function or an async generator function."""


class Lifetime(enum.Enum):
    """How long an instance is used for."""

    TRANSIENT = "transient"
    """A new instance wherever it is injected."""

    SCOPED = "scoped"
    """One instance a scope; where no scope is open, one a resolution."""

    SINGLETON = "singleton"
    """One instance a container."""


class FactoryKind(enum.Enum):
    """How a factory makes its instance."""

    PLAIN = enum.auto()
    ASYNC = enum.auto()
    GENERATOR = enum.auto()
    ASYNC_GENERATOR = enum.auto()

    @classmethod
    def of(cls, factory: Factory) -> FactoryKind:
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
class Provider:
    """What makes instances of a type, and how long each is used for."""

    factory: Factory
    lifetime: Lifetime
    kind: FactoryKind

    @classmethod
    def of(cls, factory: Factory, lifetime: Lifetime) -> Provider:
        return cls(factory, lifetime, FactoryKind.of(factory))


@dataclass(frozen=True, eq=False)
class Node:
    """How one type is made, and from what."""

    key: Any
    call: Factory
    kind: FactoryKind
    lifetime: Lifetime
    needs: tuple[Node, ...]
    uses: frozenset[Any]
    needs_scope: bool
    direct: Callable[[], Any] | None
    """Makes the instance without awaiting anything; None where that cannot be done."""


class Wiring:
    """Finds out how a type is made."""

    def __init__(
        self,
        providers: Mapping[Any, Provider],
        keep: Callable[[Any, Callable[[], Any]], Callable[[], Any]],
        root: Any,
    ) -> None:
        self._providers = providers
        self._keep = keep
        self._root = root

    def node(self, type_: Any, users: tuple[Any, ...]) -> Node:
        path = (*users, type_)
        if type_ in users:
            raise self._error(path, "they need each other. Break the cycle, for example by injecting a factory.")
        provider = self._provider(type_, path)
        positional, named = self._needs(provider.factory, path)
        needs = (*positional, *named.values())
        needs_scope = self._needs_scope(provider, needs, path)
        call = _called_with_positions(provider.factory, len(positional), tuple(named))
        return Node(
            key=type_,
            call=_OPENERS.get(provider.kind, _as_is)(call),
            kind=provider.kind,
            lifetime=provider.lifetime,
            needs=needs,
            uses=frozenset({type_}).union(*(needed.uses for needed in needs)),
            needs_scope=needs_scope,
            direct=self._direct(type_, provider, call, needs),
        )

    def _provider(self, type_: Any, path: tuple[Any, ...]) -> Provider:
        provider = self._providers.get(type_) or self._providers.get(typing.get_origin(type_))
        if provider is None:
            provider = Provider.of(typing.get_origin(type_) or type_, Lifetime.TRANSIENT)
        if obstacle := _why_not_callable(provider.factory):
            raise self._error(
                path,
                f"{name_of(type_)} {obstacle}. Say what makes it: {self._remedy(path)}.",
            )
        return provider

    def _remedy(self, path: tuple[Any, ...]) -> str:
        unregistered = [step for step in path[1:-1] if step not in self._providers]
        steps = [path[-1], *unregistered[:1]]
        return ", or what makes what needs it: ".join(f"container.register({name_of(it)}, factory)" for it in steps)

    def _needs_scope(self, provider: Provider, needs: tuple[Node, ...], path: tuple[Any, ...]) -> bool:
        if provider.lifetime is Lifetime.SINGLETON:
            self._refuse_scoped(needs, path)
            return False
        opens = provider.kind in _OPENERS
        return opens or provider.lifetime is Lifetime.SCOPED or any(needed.needs_scope for needed in needs)

    def _refuse_scoped(self, needs: tuple[Node, ...], path: tuple[Any, ...]) -> None:
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
        self, type_: Any, provider: Provider, call: Factory, needs: tuple[Node, ...]
    ) -> Callable[[], Any] | None:
        makers = [needed.direct for needed in needs if needed.direct is not None]
        if provider.kind is not FactoryKind.PLAIN or provider.lifetime is Lifetime.SCOPED or len(makers) < len(needs):
            return None
        make = _composed(call, makers)
        return self._keep(type_, make) if provider.lifetime is Lifetime.SINGLETON else make

    def _needs(self, factory: Factory, path: tuple[Any, ...]) -> tuple[list[Node], dict[str, Node]]:
        positional: list[Node] = []
        named: dict[str, Node] = {}
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

_OPENERS: Mapping[FactoryKind, Callable[[Factory], Factory]] = {
    FactoryKind.GENERATOR: contextmanager,
    FactoryKind.ASYNC_GENERATOR: asynccontextmanager,
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
