"""The adapter of the ``dishka`` library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

pytest.importorskip("dishka")

from dishka import Provider, Scope, make_async_container

from cqrs.container.dishka import DishkaContainer
from cqrs.exceptions import (
    ConfigurationError,
    ContainerNotAttachedError,
    DependencyResolutionError,
)


class Pool:
    pass


class Session:
    pass


class Handler:
    def __init__(self, pool: Pool, session: Session) -> None:
        self.pool = pool
        self.session = session


async def connect() -> AsyncIterator[Pool]:
    await anyio.lowlevel.checkpoint()
    yield Pool()


def handlers() -> Any:
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(connect, scope=Scope.APP)
    provider.provide(Session)
    provider.provide(Handler)
    return provider


async def test_what_belongs_to_the_application_is_shared() -> None:
    """APP values are made once by concurrent dispatches and stay; REQUEST values are each dispatch's own."""
    external = make_async_container(handlers(), lock_factory=anyio.Lock)
    container = DishkaContainer()
    container.attach_external_container(external)
    assert container.external_container is external
    got: list[Handler] = []

    async def dispatch() -> None:
        got.append(await container.resolve(Handler))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(dispatch)
    await external.close()
    assert len({id(handler.pool) for handler in got}) == 1
    assert len({id(handler.session) for handler in got}) == 3


async def test_asyncio_lock_is_refused_on_trio(backend_name: str) -> None:
    """dishka's default lock works on asyncio; on trio the error says which one to pass."""
    container = DishkaContainer(make_async_container(handlers()))
    if backend_name == "asyncio":
        assert type(await container.resolve(Handler)) is Handler
        await container.external_container.close()
        return
    with pytest.raises(ConfigurationError, match=r"lock_factory=anyio\.Lock"):
        await container.resolve(Handler)


async def test_a_container_without_locks_works_everywhere() -> None:
    """``lock_factory=None`` is fine on every backend."""
    container = DishkaContainer(make_async_container(handlers(), lock_factory=None))
    assert type(await container.resolve(Handler)) is Handler
    await container.external_container.close()


async def test_a_handler_that_is_not_provided() -> None:
    """The error names the handler and how to provide it."""
    container = DishkaContainer(make_async_container(Provider(), lock_factory=None))
    with pytest.raises(DependencyResolutionError, match=r"resolve Handler: .*provide\(Handler, scope=Scope.REQUEST\)"):
        await container.resolve(Handler)


async def test_a_dependency_that_is_not_provided() -> None:
    """The error keeps dishka's explanation of the path."""
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Handler)
    container = DishkaContainer(make_async_container(provider, lock_factory=None, skip_validation=True))
    with pytest.raises(DependencyResolutionError, match="Pool"):
        await container.resolve(Handler)


async def test_several_errors_while_closing_are_a_group() -> None:
    """When more than one resource fails to close, no failure is lost."""

    def open_pool() -> Iterator[Pool]:
        yield Pool()
        raise OSError("pool")

    def open_session() -> Iterator[Session]:
        yield Session()
        raise OSError("session")

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(open_pool)
    provider.provide(open_session)
    provider.provide(Handler)
    container = DishkaContainer(make_async_container(provider, lock_factory=None))
    with pytest.raises(Exception, match="Cleanup") as caught:
        await container.resolve(Handler)
    assert sorted(str(error) for error in getattr(caught.value, "exceptions")) == ["pool", "session"]  # noqa: B009


async def test_needs_a_container() -> None:
    """Without a container there is a clear error, not an AttributeError."""
    container = DishkaContainer()
    with pytest.raises(ContainerNotAttachedError):
        container.external_container  # noqa: B018
    with pytest.raises(ContainerNotAttachedError):
        await container.resolve(Handler)
