"""The adapter of the ``dependency-injector`` library."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

pytest.importorskip("dependency_injector")

from dependency_injector import containers, providers

from cqrs.container.dependency_injector import DependencyInjectorCQRSContainer
from cqrs.exceptions import ContainerNotAttachedError, DependencyResolutionError


class Service(abc.ABC):
    @abc.abstractmethod
    def name(self) -> str: ...


class ServiceImplementation(Service):
    def name(self) -> str:
        return "first"


class OtherImplementation(Service):
    def name(self) -> str:
        return "other"


class Fake(Service):
    def name(self) -> str:
        return "fake"


class Named(Protocol):
    label: str


class Mailer:
    def __init__(self, host: str = "localhost") -> None:
        self.host = host


class Pool:
    pass


class Clock:
    pass


class Tracer:
    pass


class Handler:
    def __init__(self, service: Service) -> None:
        self.service = service


def make_mailer(host: str) -> Mailer:
    return Mailer(host)


async def make_pool() -> Pool:
    await anyio.lowlevel.checkpoint()
    return Pool()


def open_clock() -> Iterator[Clock]:
    yield Clock()


class Mail(containers.DeclarativeContainer):
    mailer = providers.Singleton(make_mailer, "mail.example")


class ApplicationContainer(containers.DeclarativeContainer):
    config = providers.Configuration()
    service = providers.Factory(ServiceImplementation)
    other = providers.Factory(OtherImplementation)
    mail = providers.Container(Mail)
    pool = providers.Coroutine(make_pool)
    clock = providers.Resource(open_clock)
    tracer = providers.Object(Tracer())
    handler = providers.Factory(Handler, service)


async def test_documented_construction() -> None:
    """The container is passed to the constructor, or attached."""
    for container in (
        DependencyInjectorCQRSContainer(ApplicationContainer()),
        DependencyInjectorCQRSContainer(),
    ):
        if container._container is None:
            container.attach_external_container(ApplicationContainer())
        assert type(await container.resolve(Handler)) is Handler
        assert container.external_container.handler.provides is Handler


async def test_the_first_declared_of_several_subclasses_is_taken() -> None:
    """An abstraction is provided by the first declared of its implementations, an implementation by itself."""
    container = DependencyInjectorCQRSContainer(ApplicationContainer())
    assert (await container.resolve(Service)).name() == "first"
    assert (await container.resolve(OtherImplementation)).name() == "other"


async def test_the_last_declared_of_one_class_is_taken() -> None:
    """Of several providers of exactly one class the last one counts."""

    class Several(containers.DeclarativeContainer):
        one = providers.Factory(Mailer, "one")
        two = providers.Factory(Mailer, "two")

    assert (await DependencyInjectorCQRSContainer(Several()).resolve(Mailer)).host == "two"


async def test_nested_containers_and_functions() -> None:
    """A provider of a nested container is found by what its function is annotated to return; singletons stay."""
    container = DependencyInjectorCQRSContainer(ApplicationContainer())
    mailer = await container.resolve(Mailer)
    assert mailer.host == "mail.example"
    assert await container.resolve(Mailer) is mailer


async def test_other_kinds_of_providers() -> None:
    """Coroutines, resources, objects and dependencies are found where no factory or singleton provides the type."""

    class WithDependency(ApplicationContainer):
        outside = providers.Dependency(instance_of=Fake)

    external = WithDependency(outside=Fake())
    container = DependencyInjectorCQRSContainer(external)
    assert type(await container.resolve(Pool)) is Pool
    assert type(await container.resolve(Tracer)) is Tracer
    assert type(await container.resolve(Fake)) is Fake
    assert (await container.resolve(Service)).name() == "first"
    assert await container.resolve(Clock) is await container.resolve(Clock)
    external.shutdown_resources()


async def test_overrides_are_honoured_until_they_are_reset() -> None:
    """Overriding a provider or a whole container counts later, too, and ends with ``reset_override``."""
    external = ApplicationContainer()
    container = DependencyInjectorCQRSContainer(external)
    assert (await container.resolve(Handler)).service.name() == "first"
    external.service.override(providers.Factory(Fake))
    assert (await container.resolve(Handler)).service.name() == "fake"
    assert (await container.resolve(Service)).name() == "fake"
    external.service.reset_override()
    assert (await container.resolve(Handler)).service.name() == "first"
    mailer = Mailer("test")
    with external.mail.mailer.override(mailer):
        assert await container.resolve(Mailer) is mailer
    assert (await container.resolve(Mailer)).host == "mail.example"

    class Testing(containers.DeclarativeContainer):
        service = providers.Factory(Fake)

    external.override(Testing())
    assert (await container.resolve(Handler)).service.name() == "fake"
    external.reset_override()
    assert (await container.resolve(Handler)).service.name() == "first"


async def test_errors_of_factories_are_left_alone() -> None:
    """A RuntimeError of the application's own reaches the caller as it is."""

    def broken() -> Mailer:
        raise RuntimeError("mail is broken")

    external = containers.DynamicContainer()
    external.mailer = providers.Factory(broken)
    with pytest.raises(RuntimeError, match="mail is broken"):
        await DependencyInjectorCQRSContainer(external).resolve(Mailer)


async def test_a_provider_added_later_is_found() -> None:
    """A type that could not be provided is looked for again."""
    external = containers.DynamicContainer()
    container = DependencyInjectorCQRSContainer(external)
    with pytest.raises(DependencyResolutionError, match=r"resolve Mailer: .*providers\.Factory\(Mailer"):
        await container.resolve(Mailer)
    external.mailer = providers.Factory(Mailer)
    assert type(await container.resolve(Mailer)) is Mailer


async def test_a_handler_that_is_not_declared() -> None:
    """The error names the handler and what is provided; a protocol that cannot be checked is no obstacle."""
    container = DependencyInjectorCQRSContainer(ApplicationContainer())
    for type_ in (Fake, Named):
        with pytest.raises(ValueError, match=rf"resolve {type_.__name__}: .*Provided: Clock, Handler"):
            await container.resolve(type_)


async def test_two_containers_do_not_share_a_cache() -> None:
    """What one container found does not answer for another, nor for one that is attached later."""
    one, two = containers.DynamicContainer(), containers.DynamicContainer()
    one.mailer = providers.Factory(Mailer, "one")
    two.mailer = providers.Factory(Mailer, "two")
    first, second = DependencyInjectorCQRSContainer(one), DependencyInjectorCQRSContainer(two)
    assert (await first.resolve(Mailer)).host == "one"
    assert (await second.resolve(Mailer)).host == "two"
    first.attach_external_container(two)
    assert (await first.resolve(Mailer)).host == "two"


def async_container() -> Any:
    external = containers.DynamicContainer()
    external.pool = providers.Singleton(make_pool)
    external.handler = providers.Factory(Handler, external.pool)
    return DependencyInjectorCQRSContainer(external)


async def test_async_singletons_on_asyncio(backend_name: str) -> None:
    """An async singleton is awaited, injected, and made once."""
    if backend_name != "asyncio":
        pytest.skip("asyncio's half of the story")
    container = async_container()
    pool = await container.resolve(Pool)
    assert type(pool) is Pool
    assert (await container.resolve(Handler)).service is pool


@pytest.mark.parametrize("way", ["scope", "native"])
async def test_cancelling_one_who_waits_leaves_the_singleton_whole(backend_name: str, way: str) -> None:
    """A cancelled dispatch does not cancel the singleton that others wait for."""
    if backend_name != "asyncio":
        pytest.skip("dependency-injector's futures are asyncio's")
    import asyncio

    go_on = anyio.Event()

    async def connect() -> Pool:
        await go_on.wait()
        return Pool()

    external = containers.DynamicContainer()
    external.pool = providers.Singleton(connect)
    container = DependencyInjectorCQRSContainer(external)
    with pytest.raises(DependencyResolutionError):
        await container.resolve(Clock)
    got: list[Pool] = []

    async def use() -> None:
        got.append(await container.resolve(Pool))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            if way == "native":
                task = asyncio.create_task(use())
                await anyio.wait_all_tasks_blocked()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                async with anyio.create_task_group() as cancelled:
                    cancelled.start_soon(use)
                    await anyio.wait_all_tasks_blocked()
                    cancelled.cancel_scope.cancel()
            group.start_soon(use)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
    assert got == [await container.resolve(Pool)]


@pytest.mark.filterwarnings("ignore")
async def test_async_singletons_on_trio_are_refused(backend_name: str) -> None:
    """On trio the error says that the library's asynchronous mode is asyncio's."""
    if backend_name != "trio":
        pytest.skip("trio's half of the story")
    container = async_container()
    with pytest.raises(DependencyResolutionError, match="on asyncio only"):
        await container.resolve(Pool)


async def test_needs_a_container() -> None:
    """Without a container there is a clear error, not an AttributeError."""
    container = DependencyInjectorCQRSContainer()
    with pytest.raises(ContainerNotAttachedError):
        container.external_container  # noqa: B018
    with pytest.raises(ContainerNotAttachedError):
        await container.resolve(Mailer)
