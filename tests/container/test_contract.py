"""What every container owes to the dispatcher."""

from __future__ import annotations

import abc
import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs.container.protocol import ScopedContainer
from cqrs.container.scope import DispatchScope
from cqrs.exceptions import DependencyResolutionError


class Repo(abc.ABC):
    @abc.abstractmethod
    def name(self) -> str: ...


class SqlRepo(Repo):
    def name(self) -> str:
        return "sql"


class FakeRepo(Repo):
    def name(self) -> str:
        return "fake"


class Service:
    def __init__(self, repo: Repo) -> None:
        self.repo = repo


class Handler:
    def __init__(self, service: Service, repo: Repo) -> None:
        self.service = service
        self.repo = repo


class Bare:
    pass


class Outer:
    is_open = True


class Inner:
    def __init__(self, outer: Outer) -> None:
        self.outer = outer
        self.is_open = True


class ResourceHandler:
    def __init__(self, inner: Inner) -> None:
        self.inner = inner


class NotProvided(abc.ABC):
    @abc.abstractmethod
    def missing(self) -> None: ...


class Resources:
    """Factories of resources that write down what happens to them."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.on_close: Callable[[str], None] = lambda name: None

    def outer(self) -> Any:
        def open_outer() -> Iterator[Outer]:
            outer = Outer()
            self.log.append("outer opened")
            failure: BaseException | None = None
            try:
                failure = yield outer
            except BaseException as error:
                failure = error
                raise
            finally:
                outer.is_open = False
                self._closed("outer", failure)

        return open_outer

    def inner(self) -> Any:
        async def open_inner(outer: Outer) -> AsyncIterator[Inner]:
            inner = Inner(outer)
            self.log.append("inner opened")
            failure: BaseException | None = None
            try:
                failure = yield inner
            except BaseException as error:
                failure = error
                raise
            finally:
                await anyio.lowlevel.checkpoint()
                inner.is_open = False
                self._closed("inner", failure)

        return open_inner

    def hanging_inner(self, started: anyio.Event) -> Any:
        async def open_inner(outer: Outer) -> AsyncIterator[Inner]:
            started.set()
            await anyio.sleep_forever()
            yield Inner(outer)

        return open_inner

    def _closed(self, name: str, failure: BaseException | None) -> None:
        self.log.append((name, None if failure is None else type(failure)))
        self.on_close(name)


@pytest.fixture
def resources() -> Resources:
    return Resources()


def build_with_resources(kit: Any, resources: Resources) -> Any:
    return kit.build(ResourceHandler, bound={Outer: resources.outer(), Inner: resources.inner()})


async def test_resolves_a_class_without_dependencies(kit: Any) -> None:
    """A handler that needs nothing is made."""
    assert type(await kit.build(Bare).resolve(Bare)) is Bare


async def test_resolves_nested_dependencies(kit: Any) -> None:
    """What a handler needs, and what that needs, is made and injected, abstractions by their implementation."""
    container = kit.build(Handler, Service, bound={Repo: SqlRepo})
    handler = await container.resolve(Handler)
    assert type(handler) is Handler
    assert handler.service.repo.name() == handler.repo.name() == "sql"


async def test_each_resolution_makes_a_new_handler(kit: Any) -> None:
    """Two dispatches do not share a handler, nor what it is made of."""
    container = kit.build(Handler, Service, bound={Repo: SqlRepo})
    first, second = await container.resolve(Handler), await container.resolve(Handler)
    assert first is not second
    assert first.repo is not second.repo


async def test_one_resolution_shares_what_is_needed_twice(scoped_kit: Any) -> None:
    """Within one dispatch a dependency that two others need is one instance."""
    container = scoped_kit.build(Handler, Service, bound={Repo: SqlRepo})
    handler = await container.resolve(Handler)
    assert handler.repo is handler.service.repo


async def test_awaits_async_functions(kit: Any) -> None:
    """A type can be made by an async function."""

    async def make_repo() -> Repo:
        await anyio.lowlevel.checkpoint()
        return SqlRepo()

    assert (await kit.build(bound={Repo: make_repo}).resolve(Repo)).name() == "sql"


async def test_injects_what_async_functions_make(scoped_kit: Any) -> None:
    """What an async function makes is awaited before it is injected, on every backend."""

    async def make_repo() -> Repo:
        await anyio.lowlevel.checkpoint()
        return SqlRepo()

    container = scoped_kit.build(Handler, Service, bound={Repo: make_repo})
    async with DispatchScope(container) as resolver:
        assert (await resolver.resolve(Handler)).repo.name() == "sql"
    assert (await container.resolve(Handler)).service.repo.name() == "sql"


async def test_unresolvable_type_is_named(kit: Any) -> None:
    """The error names the class that cannot be provided, and is a ValueError."""
    container = kit.build(Bare)
    with pytest.raises(DependencyResolutionError, match="NotProvided") as caught:
        await container.resolve(NotProvided)
    assert caught.value.requested_type is NotProvided
    assert isinstance(caught.value, ValueError)


async def test_unresolvable_type_needs_no_scope_to_fail(scoped_kit: Any) -> None:
    """Asking whether a scope is needed never raises: the resolution does, inside a scope as well."""
    container = scoped_kit.build(Bare)
    assert container.needs_scope(NotProvided) in (True, False)
    async with container.scope() as resolver:
        with pytest.raises(DependencyResolutionError, match="NotProvided"):
            await resolver.resolve(NotProvided)


async def test_errors_of_constructors_are_left_alone(kit: Any) -> None:
    """What a constructor raises reaches the caller as it is."""

    def broken() -> Repo:
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        await kit.build(bound={Repo: broken}).resolve(Repo)


async def test_resources_are_open_while_used_and_closed_in_reverse(scoped_kit: Any, resources: Resources) -> None:
    """What generators yield is open inside the scope, and closed in reverse order when it is left."""
    container = build_with_resources(scoped_kit, resources)
    assert isinstance(container, ScopedContainer)
    assert container.needs_scope(ResourceHandler)
    async with container.scope() as resolver:
        handler = await resolver.resolve(ResourceHandler)
        assert handler.inner.is_open
        assert handler.inner.outer.is_open
        assert resources.log == ["outer opened", "inner opened"]
    assert resources.log[2:] == [("inner", None), ("outer", None)]
    assert not handler.inner.outer.is_open


async def test_resources_are_told_of_the_exception(scoped_kit: Any, resources: Resources) -> None:
    """Each resource learns of the handler's exception, which leaves the scope as it is."""
    container = build_with_resources(scoped_kit, resources)
    error = LookupError("handler failed")
    with pytest.raises(LookupError) as caught:  # noqa: PT012
        async with container.scope() as resolver:
            await resolver.resolve(ResourceHandler)
            raise error
    assert caught.value is error
    assert resources.log[2:] == [("inner", LookupError), ("outer", LookupError)]


async def test_all_resources_are_closed_when_one_raises(scoped_kit: Any, resources: Resources) -> None:
    """An error while one resource closes keeps none of the others open, and reaches the caller."""

    def fail(name: str) -> None:
        if name == "inner":
            raise OSError("cannot close")

    resources.on_close = fail
    container = build_with_resources(scoped_kit, resources)
    with pytest.raises(OSError, match="cannot close"):
        async with container.scope() as resolver:
            await resolver.resolve(ResourceHandler)
    assert [entry[0] for entry in resources.log[2:]] == ["inner", "outer"]


async def test_resources_are_closed_when_cancelled(scoped_kit: Any, resources: Resources) -> None:
    """A cancelled dispatch closes its resources, which may await, and tells them of the cancellation."""
    container = build_with_resources(scoped_kit, resources)

    async def dispatch() -> None:
        async with DispatchScope(container) as resolver:
            await resolver.resolve(ResourceHandler)
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(dispatch)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    cancelled = anyio.get_cancelled_exc_class()
    assert resources.log[2:] == [("inner", cancelled), ("outer", cancelled)]


async def test_resources_are_closed_when_cancelled_natively(
    scoped_kit: Any, resources: Resources, backend_name: str
) -> None:
    """A dispatch that asyncio's own task.cancel() cancels closes its resources as well."""
    if backend_name != "asyncio":
        pytest.skip("native cancellation is asyncio's")
    container = build_with_resources(scoped_kit, resources)

    async def dispatch() -> None:
        async with DispatchScope(container) as resolver:
            await resolver.resolve(ResourceHandler)
            await anyio.sleep_forever()

    task = asyncio.create_task(dispatch())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert resources.log[2:] == [("inner", asyncio.CancelledError), ("outer", asyncio.CancelledError)]


async def test_all_resources_are_closed_when_closing_is_cancelled(scoped_kit: Any, resources: Resources) -> None:
    """A cancellation that interrupts the clean-up of one resource leaves none of the others open."""
    closing = anyio.Event()

    async def open_inner(outer: Outer) -> AsyncIterator[Inner]:
        yield Inner(outer)
        closing.set()
        await anyio.sleep_forever()

    container = scoped_kit.build(ResourceHandler, bound={Outer: resources.outer(), Inner: open_inner})

    async def use() -> None:
        async with container.scope() as resolver:
            await resolver.resolve(ResourceHandler)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await closing.wait()
            group.cancel_scope.cancel()
    assert [entry[0] for entry in resources.log[1:]] == ["outer"]


@pytest.mark.parametrize("way", ["scope", "native"])
async def test_resolution_that_is_cancelled_midway(
    scoped_kit: Any, resources: Resources, backend_name: str, way: str
) -> None:
    """What was opened before a cancellation in the midst of a resolution is closed."""
    if way == "native" and backend_name != "asyncio":
        pytest.skip("native cancellation is asyncio's")
    started = anyio.Event()
    container = scoped_kit.build(
        ResourceHandler, bound={Outer: resources.outer(), Inner: resources.hanging_inner(started)}
    )

    async def dispatch() -> None:
        async with DispatchScope(container) as resolver:
            await resolver.resolve(ResourceHandler)

    with anyio.fail_after(5):
        if way == "native":
            task = asyncio.create_task(dispatch())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(dispatch)
                await started.wait()
                group.cancel_scope.cancel()
    assert resources.log == ["outer opened", ("outer", anyio.get_cancelled_exc_class())]


async def test_resolution_that_fails_midway(scoped_kit: Any, resources: Resources) -> None:
    """What was opened before a constructor failed is closed and told of the failure."""

    def broken(outer: Outer) -> Inner:
        raise LookupError("no inner")

    container = scoped_kit.build(ResourceHandler, bound={Outer: resources.outer(), Inner: broken})
    with pytest.raises(LookupError, match="no inner"):
        async with container.scope() as resolver:
            await resolver.resolve(ResourceHandler)
    assert resources.log == ["outer opened", ("outer", LookupError)]


async def test_resolving_without_a_scope_leaks_nothing(scoped_kit: Any, resources: Resources) -> None:
    """Resolved from the container itself, resources are closed before the instance is handed out."""
    container = build_with_resources(scoped_kit, resources)
    handler = await container.resolve(ResourceHandler)
    assert not handler.inner.is_open
    assert resources.log == ["outer opened", "inner opened", ("inner", None), ("outer", None)]


async def test_concurrent_scopes_do_not_share(scoped_kit: Any, resources: Resources) -> None:
    """Dispatches that run at the same time have resources of their own, each closed when its own is done."""
    container = build_with_resources(scoped_kit, resources)
    handlers: list[ResourceHandler] = []
    leave = [anyio.Event(), anyio.Event()]

    async def dispatch(leave: anyio.Event) -> None:
        async with DispatchScope(container) as resolver:
            handlers.append(await resolver.resolve(ResourceHandler))
            await leave.wait()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for event in leave:
                group.start_soon(dispatch, event)
            await anyio.wait_all_tasks_blocked()
            assert handlers[0].inner.outer is not handlers[1].inner.outer
            leave[0].set()
            await anyio.wait_all_tasks_blocked()
            assert sorted(handler.inner.is_open for handler in handlers) == [False, True]
            leave[1].set()


async def test_a_scope_shares_among_its_resolutions(scoped_kit: Any, resources: Resources) -> None:
    """Two resolutions out of one scope get the same resource."""
    container = build_with_resources(scoped_kit, resources)
    async with container.scope() as resolver:
        assert await resolver.resolve(Outer) is (await resolver.resolve(ResourceHandler)).inner.outer
    assert resources.log.count("outer opened") == 1


async def test_a_later_override_is_honoured(overriding_kit: Any) -> None:
    """A dependency that is replaced after it was resolved is replaced in what is resolved next, and back after."""
    container = overriding_kit.build(Handler, Service, bound={Repo: SqlRepo})
    assert (await container.resolve(Handler)).service.repo.name() == "sql"
    with overriding_kit.override(container, Repo, FakeRepo):
        assert (await container.resolve(Handler)).service.repo.name() == "fake"
    assert (await container.resolve(Handler)).service.repo.name() == "sql"


async def test_an_override_can_bring_a_resource(scoped_kit: Any, resources: Resources) -> None:
    """A plain dependency that is replaced by a generator makes its user need a scope from then on."""
    if scoped_kit.library == "dishka":
        pytest.skip("dishka containers are not changed once made")

    def open_repo() -> Iterator[Repo]:
        yield FakeRepo()
        resources.log.append("closed")

    container = scoped_kit.build(Handler, Service)
    with scoped_kit.override(container, Repo, SqlRepo):
        assert not container.needs_scope(Handler)
        with scoped_kit.override(container, Repo, open_repo):
            assert container.needs_scope(Handler)
            async with container.scope() as resolver:
                assert (await resolver.resolve(Handler)).repo.name() == "fake"
            assert set(resources.log) == {"closed"}


async def test_containers_are_garbage_collected(kit: Any) -> None:
    """No cache outlives the container that it belongs to, nor keeps the container alive."""
    container = kit.build(Handler, Service, bound={Repo: SqlRepo})
    await container.resolve(Handler)
    references = [weakref.ref(container)]
    if container.external_container is not container and hasattr(container.external_container, "__weakref__"):
        references.append(weakref.ref(container.external_container))
    del container
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
