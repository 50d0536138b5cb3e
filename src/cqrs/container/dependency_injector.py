"""The containers of the ``dependency-injector`` library."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import anyio

from cqrs._optional_library import OptionalLibrary
from cqrs.container._backend import is_asyncio
from cqrs.container.protocol import Container
from cqrs.exceptions import ContainerNotAttachedError, DependencyResolutionError, name_of

with OptionalLibrary("dependency-injector", extra="dependency-injector", package="dependency_injector"):
    from dependency_injector import containers, providers

T = TypeVar("T")


class DependencyInjectorCQRSContainer(Container[containers.Container]):
    """Resolves from a ``dependency-injector`` container, by finding the provider of a type.

    A provider provides its class, or the class that its function is annotated to return. For a type
    there is taken, nested containers included:

    1. the factory or singleton of exactly that class; of several, the one declared last;
    2. the factory or singleton of a subclass; of several, the one whose class was declared first;
    3. in the same order, a callable, coroutine, resource, dependency or object of that class.

    Which provider that is, is found once a type. An ``override()`` or ``reset_override()`` of a provider
    or container is honoured whenever it happens, as is a provider that is added for a type which had none.

    The library has no scopes for requests: its resources belong to the container, and the application
    opens and closes them (``init_resources()``, ``shutdown_resources()``). Its asynchronous mode is made of
    asyncio futures. So on trio an ``async def`` can be a factory, a callable or a coroutine that is resolved
    itself, but neither a singleton, nor a resource, nor injected into something else.

    :param container: the container to resolve from; it can be attached later.
    """

    def __init__(self, container: containers.Container | None = None) -> None:
        self._container = container
        self._found: dict[Any, Callable[[], Any]] = {}

    @property
    def external_container(self) -> containers.Container:
        """The container that is resolved from.

        :raises ContainerNotAttachedError: there is none yet.
        """
        if self._container is None:
            raise ContainerNotAttachedError("DependencyInjectorCQRSContainer")
        return self._container

    def attach_external_container(self, container: containers.Container) -> None:
        """Resolve from ``container`` from now on."""
        self._container = container
        self._found = {}

    async def resolve(self, type_: type[T]) -> T:
        """An instance of ``type_``. What its provider does asynchronously is awaited.

        Cancelled meanwhile, the call is left at once, while asyncio futures that the library has started
        run on: others may be waiting for the same singleton.

        :raises DependencyResolutionError: no provider is found, or it needs asyncio and runs on trio.
        :raises ContainerNotAttachedError: no container is attached.
        """
        provide = self._found.get(type_) or self._find(type_)
        try:
            instance = provide()
        except RuntimeError as error:
            if "event loop" in str(error) and not is_asyncio():
                raise _needs_asyncio(type_) from error
            raise
        # Asks the class, as inspect.isawaitable does at four times the cost.
        if hasattr(instance.__class__, "__await__"):
            instance = await _awaited(type_, instance)
        return instance  # type: ignore[no-any-return]

    def _find(self, type_: Any) -> Callable[[], Any]:
        found = self._found[type_] = _provider_of(type_, self.external_container)
        return found


def _provider_of(type_: Any, container: Any) -> Callable[[], Any]:
    every = list(_all_providers(container))
    makers = {kind: it for it in every if (kind := _class_of_maker(it)) is not None}
    others = {kind: it for it in every if (kind := _class_of_other(it)) is not None}
    provider = _best(type_, makers) or _best(type_, others)
    if provider is not None:
        return provider
    known = ", ".join(sorted(name_of(kind) for kind in {*makers, *others})) or "nothing"
    raise _failure(
        type_,
        f"the container has no provider for it. Declare one: "
        f"{getattr(type_, '__name__', 'it').lower()} = providers.Factory({name_of(type_)}, ...). Provided: {known}.",
    )


def _best(type_: Any, candidates: dict[type, Callable[[], Any]]) -> Callable[[], Any] | None:
    if type_ in candidates:
        return candidates[type_]
    return next((candidates[kind] for kind in candidates if _is_subclass(kind, type_)), None)


def _is_subclass(kind: type, type_: Any) -> bool:
    try:
        return issubclass(kind, type_)
    except TypeError:  # a protocol that cannot be checked at run time
        return type_ in kind.__mro__


def _all_providers(container: Any) -> Iterator[Any]:
    for provider in container.providers.values():
        if isinstance(provider, providers.Container):
            yield from _all_providers(provider)
        else:
            yield provider


def _class_of_maker(provider: Any) -> type | None:
    return _class_made_by(provider.provides) if _is(provider, providers.Factory, providers.BaseSingleton) else None


def _class_of_other(provider: Any) -> type | None:
    if _is(provider, providers.Dependency):
        kind: type = provider.instance_of
        return None if kind is object else kind
    if _is(provider, providers.Callable, providers.BaseResource):
        return _class_made_by(provider.provides)
    if _is(provider, providers.Object) and not _is(provider, providers.Configuration, providers.DependenciesContainer):
        provided: object = provider.provides
        return None if provided is None else type(provided)
    return None


def _is(provider: Any, *kinds: type) -> bool:
    return isinstance(provider, kinds)


def _class_made_by(provides: Any) -> type | None:
    """The class itself, or the one that a function returns or a generator function yields."""
    if inspect.isclass(provides):
        return provides
    if not inspect.isroutine(provides):
        return None
    function = inspect.unwrap(provides)
    hint = _return_hint(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        hint = next(iter(typing.get_args(hint)), None)
    origin = typing.get_origin(hint) or hint
    return origin if inspect.isclass(origin) and origin is not type(None) else None


def _return_hint(function: Any) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return getattr(function, "__annotations__", {}).get("return")


async def _awaited(type_: Any, pending: Any) -> Any:
    if not hasattr(pending, "add_done_callback"):
        return await pending
    if not is_asyncio():
        pending.cancel()
        raise _needs_asyncio(type_)
    return await _result_of(pending)


async def _result_of(future: Any) -> Any:
    # Awaiting the future itself would hand a cancellation on to it, and with it to everybody who waits
    # for the same singleton, now and later.
    if not future.done():
        done = anyio.Event()
        wake = functools.partial(_wake, done)
        future.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            future.remove_done_callback(wake)
    return future.result()


def _wake(event: anyio.Event, _future: object) -> None:
    event.set()


def _needs_asyncio(type_: Any) -> DependencyResolutionError:
    return _failure(
        type_,
        "its provider works asynchronously, and dependency-injector can do that on asyncio only. On trio an "
        "'async def' can be resolved itself, but be neither singleton, nor resource, nor injected.",
    )


def _failure(type_: Any, reason: str) -> DependencyResolutionError:
    return DependencyResolutionError(type_, "DependencyInjectorCQRSContainer", reason)
