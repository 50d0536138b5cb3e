"""One way to set up each container, so that one contract can be asked of all of them."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest


class Kit:
    """Sets up containers of one library."""

    library: str | None = None

    def build(self, *classes: type, bound: Mapping[type, Callable[..., Any]] = {}) -> Any:
        """A container that makes ``classes`` by their hints, and ``bound`` types by their factories."""
        raise NotImplementedError

    def override(self, container: Any, type_: type, factory: Callable[..., Any]) -> AbstractContextManager[Any]:
        raise NotImplementedError


class PlainKit(Kit):
    def build(self, *classes: type, bound: Mapping[type, Callable[..., Any]] = {}) -> Any:
        from cqrs.container.plain import Lifetime, PlainContainer

        container = PlainContainer()
        for type_, factory in bound.items():
            container.register(type_, factory, lifetime=Lifetime.SCOPED)
        return container

    def override(self, container: Any, type_: type, factory: Callable[..., Any]) -> AbstractContextManager[Any]:
        return container.override(type_, factory)


class DIKit(Kit):
    library = "di"

    def build(self, *classes: type, bound: Mapping[type, Callable[..., Any]] = {}) -> Any:
        import di

        from cqrs.container.di import DIContainer

        container = DIContainer(di.Container())
        for type_, factory in bound.items():
            self.override(container, type_, factory)
        return container

    def override(self, container: Any, type_: type, factory: Callable[..., Any]) -> AbstractContextManager[Any]:
        import di
        from di import dependent

        return container.external_container.bind(di.bind_by_type(dependent.Dependent(factory, scope="request"), type_))


class DishkaKit(Kit):
    library = "dishka"

    def build(self, *classes: type, bound: Mapping[type, Callable[..., Any]] = {}) -> Any:
        import anyio
        from dishka import Provider, Scope, make_async_container

        from cqrs.container.dishka import DishkaContainer

        provider = Provider(scope=Scope.REQUEST)
        for class_ in classes:
            provider.provide(class_)
        for type_, factory in bound.items():
            provider.provide(factory, provides=type_)
        return DishkaContainer(make_async_container(provider, lock_factory=anyio.Lock))


class DependencyInjectorKit(Kit):
    library = "dependency_injector"

    def build(self, *classes: type, bound: Mapping[type, Callable[..., Any]] = {}) -> Any:
        from dependency_injector import containers, providers

        from cqrs.container.dependency_injector import DependencyInjectorCQRSContainer

        factories = {**{class_: class_ for class_ in classes}, **bound}
        made: dict[type, Any] = {}

        def provider(type_: type) -> Any:
            if type_ not in made:
                factory = factories[type_]
                hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
                hints.pop("return", None)
                made[type_] = providers.Factory(factory, *map(provider, hints.values()))
            return made[type_]

        container = containers.DynamicContainer()
        for index, type_ in enumerate(factories):
            setattr(container, f"provider_{index}", provider(type_))
        return DependencyInjectorCQRSContainer(container)

    def override(self, container: Any, type_: type, factory: Callable[..., Any]) -> AbstractContextManager[Any]:
        from dependency_injector import providers

        external = container.external_container
        provider = next(it for it in external.providers.values() if issubclass(it.provides, type_))
        return provider.override(providers.Factory(factory))


def _or_skip(kit: Kit) -> Kit:
    if kit.library is not None:
        pytest.importorskip(kit.library)
        importlib.import_module(f"cqrs.container.{kit.library}")
    return kit


def _id(kit: Kit) -> str:
    return kit.library or "plain"


@pytest.fixture(params=[PlainKit(), DIKit(), DishkaKit(), DependencyInjectorKit()], ids=_id)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each container."""
    return _or_skip(request.param)


@pytest.fixture(params=[PlainKit(), DIKit(), DishkaKit()], ids=_id)
def scoped_kit(request: pytest.FixtureRequest) -> Kit:
    """Each container that has scopes."""
    return _or_skip(request.param)


@pytest.fixture(params=[PlainKit(), DIKit(), DependencyInjectorKit()], ids=_id)
def overriding_kit(request: pytest.FixtureRequest) -> Kit:
    """Each container that can be changed after it has been made."""
    return _or_skip(request.param)
