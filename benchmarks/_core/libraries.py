"""Containers of dependency injection libraries, each able to make the handler. Importable in our environment only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import di
import dishka
from dependency_injector import containers, providers

from _core import lines
from _core.containers import NewInstances
from _core.messages import AskHandler
from cqrs.container.plain import PlainContainer


class _Declared(containers.DeclarativeContainer):
    handler = providers.Factory(AskHandler)


def _dishka_container() -> dishka.AsyncContainer:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(AskHandler)
    return dishka.make_async_container(provider, lock_factory=anyio.Lock)


LIBRARIES: Mapping[str, Callable[[], Any]] = {
    lines.TRIVIAL: NewInstances,
    lines.PLAIN: PlainContainer,
    lines.DI: di.Container,
    lines.DEPENDENCY_INJECTOR: _Declared,
    lines.DISHKA: _dishka_container,
}
