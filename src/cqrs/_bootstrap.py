"""What all bootstraps have in common: the container is adapted, the start-up functions run, the maps filled."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from cqrs.container.protocol import Container
from cqrs.exceptions import ConfigurationError
from cqrs.middlewares.base import Middleware, MiddlewareChain
from cqrs.middlewares.logging import LoggingMiddleware

_MapT = TypeVar("_MapT")


def adapted_container(container: Any) -> Container[Any]:
    """``container`` as this library's protocol has it.

    None becomes a plain container; a container of ``di``, ``dependency-injector`` or ``dishka`` is wrapped.

    :raises ConfigurationError: it is neither of these nor has a ``resolve`` method.
    """
    if container is None:
        from cqrs.container.plain import PlainContainer

        return PlainContainer()
    if _is_of("di", "Container", container):
        from cqrs.container.di import DIContainer

        return DIContainer(container)
    if _is_of("dependency_injector.containers", "Container", container):
        from cqrs.container.dependency_injector import DependencyInjectorCQRSContainer

        return DependencyInjectorCQRSContainer(container)
    if _is_of("dishka", "AsyncContainer", container):
        from cqrs.container.dishka import DishkaContainer

        return DishkaContainer(container)
    if isinstance(container, type):
        raise ConfigurationError(f"{container.__qualname__} is a class, not a container: pass an instance of it.")
    if not callable(getattr(container, "resolve", None)):
        raise ConfigurationError(
            f"{type(container).__qualname__} cannot resolve handlers: pass a container of di, dependency-injector "
            f"or dishka, a cqrs.container.plain.PlainContainer, or an object with 'async def resolve(self, type_)'."
        )
    resolver: Container[Any] = container
    return resolver


def _is_of(module: str, name: str, instance: object) -> bool:
    # A library that nobody has imported has no instances, and is not imported to find that out.
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(instance, kind)


def run_on_startup(on_startup: Iterable[Callable[[], Any]] | None) -> None:
    """Call each function, in order."""
    for function in on_startup or ():
        _finished(function(), function, "on_startup")


def filled(map_: _MapT, *mappers: Callable[[_MapT], None] | None) -> _MapT:
    """``map_``, after each mapper has bound what it binds."""
    for mapper in mappers:
        if mapper is not None:
            _finished(mapper(map_), mapper, "mapper")
    return map_


def _finished(result: object, function: object, role: str) -> None:
    """:raises ConfigurationError: ``function`` is async, so it has done nothing yet."""
    if inspect.iscoroutine(result):
        result.close()
        name = getattr(function, "__qualname__", repr(function))
        raise ConfigurationError(f"{name} is async, and a bootstrap cannot await it: make the {role} function a 'def'.")


def chain_of(middlewares: Iterable[Middleware[Any, Any]]) -> MiddlewareChain:
    """``middlewares`` as a chain, the first one outermost.

    :raises MiddlewareTypeError: one of them is not an async callable.
    """
    chain = MiddlewareChain()
    chain.set(middlewares)
    return chain


def with_logging(middlewares: Sequence[Middleware[Any, Any]] | None) -> list[Middleware[Any, Any]]:
    """``middlewares`` and, innermost, one that logs, where there is none among them."""
    listed = list(middlewares or ())
    if not any(isinstance(middleware, LoggingMiddleware) for middleware in listed):
        listed.append(LoggingMiddleware())
    return listed
