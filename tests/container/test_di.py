"""The adapter of the ``di`` library."""

from __future__ import annotations

import abc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Protocol

import anyio
import anyio.lowlevel
import pytest

pytest.importorskip("di")

import di
from di import dependent

from cqrs.container.di import DIContainer
from cqrs.exceptions import ContainerNotAttachedError, DependencyResolutionError


class MeetingAPIProtocol(Protocol):
    def host(self) -> str: ...


class MeetingAPIImplementaion:
    def host(self) -> str:
        return "real"


class FakeMeetingAPI:
    def host(self) -> str:
        return "fake"


class Session:
    pass


class Repository(abc.ABC):
    @abc.abstractmethod
    def add(self) -> None: ...


class SqlRepository(Repository):
    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self) -> None: ...


class Handler:
    def __init__(self, api: MeetingAPIProtocol, repository: Repository, *, session: Session, retries: int = 3) -> None:
        self.api, self.repository, self.session, self.retries = api, repository, session, retries


class FreshHandler:
    def __init__(
        self, one: Annotated[Session, dependent.Marker(use_cache=False)], other: Session, third: Session
    ) -> None:
        self.sessions = one, other, third


class Chicken:
    def __init__(self, egg: Egg) -> None: ...


class Egg:
    def __init__(self, chicken: Chicken) -> None: ...


class Unannotated:
    def __init__(self, thing) -> None: ...  # type: ignore[no-untyped-def]


class Settings:
    pass


class UsesSettings:
    def __init__(self, settings: Settings, session: Session) -> None:
        self.settings, self.session = settings, session


def setup_di() -> Any:
    container = di.Container()
    container.bind(di.bind_by_type(dependent.Dependent(SqlRepository, scope="request"), Repository))
    container.bind(di.bind_by_type(dependent.Dependent(MeetingAPIImplementaion, scope="request"), MeetingAPIProtocol))
    return container


async def test_documented_binds() -> None:
    """Implementations bound in the scope "request" are injected, keyword-only parameters and defaults too."""
    container = DIContainer()
    container.attach_external_container(setup_di())
    assert not container.needs_scope(Handler)
    handler = await container.resolve(Handler)
    assert handler.api.host() == "real"
    assert type(handler.repository) is SqlRepository
    assert handler.retries == 3
    assert handler.session is handler.repository.session


async def test_the_direct_call_agrees_with_the_library() -> None:
    """What is shared within a graph is the same whether the graph is called directly or run by the library."""
    container = DIContainer(di.Container())
    direct = await container.resolve(FreshHandler)
    async with container.scope() as scope:
        run = await scope.resolve(FreshHandler)
    for one, other, third in (direct.sessions, run.sessions):
        assert other is third
        assert one is not other


async def test_a_bind_without_a_scope_belongs_to_the_request() -> None:
    """``Dependent(X)`` needs no ``scope="request"``."""
    container = di.Container()
    container.bind(di.bind_by_type(dependent.Dependent(MeetingAPIImplementaion), MeetingAPIProtocol))
    assert (await DIContainer(container).resolve(MeetingAPIProtocol)).host() == "real"


async def test_binding_later_and_unbinding_is_honoured() -> None:
    """``with container.bind(...)``, the way tests override, counts from its beginning to its end."""
    container = DIContainer(setup_di())
    assert (await container.resolve(Handler)).api.host() == "real"
    external = container.external_container
    with external.bind(di.bind_by_type(dependent.Dependent(FakeMeetingAPI, scope="request"), MeetingAPIProtocol)):
        assert (await container.resolve(Handler)).api.host() == "fake"
    assert (await container.resolve(Handler)).api.host() == "real"


async def test_each_type_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is solved at the first use and after a bind, not at each use."""
    solved: list[Any] = []

    class Counting(di.Container):  # type: ignore[misc, name-defined]
        def solve(self, dependency: Any, *args: Any, **kwargs: Any) -> Any:
            solved.append(dependency.call)
            return super().solve(dependency, *args, **kwargs)

    container = DIContainer(Counting())
    for _ in range(3):
        await container.resolve(Session)
        container.needs_scope(Session)
    assert solved == [Session]
    container.external_container.bind(di.bind_by_type(dependent.Dependent(Session), Settings))
    await container.resolve(Session)
    assert solved == [Session] * 2


async def test_two_containers_do_not_share_a_cache() -> None:
    """What one container has solved does not answer for another."""
    real, fake = DIContainer(setup_di()), DIContainer(di.Container())
    fake.external_container.bind(di.bind_by_type(dependent.Dependent(FakeMeetingAPI), MeetingAPIProtocol))
    assert (await real.resolve(MeetingAPIProtocol)).host() == "real"
    assert (await fake.resolve(MeetingAPIProtocol)).host() == "fake"
    real.attach_external_container(fake.external_container)
    assert (await real.resolve(MeetingAPIProtocol)).host() == "fake"


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (Handler, r"Handler -> MeetingAPIProtocol: MeetingAPIProtocol is abstract.*bind_by_type"),
        (Repository, "Repository: Repository is abstract"),
        (Chicken, "Chicken -> Egg: .*cycle"),
        (Unannotated, "Unannotated: The parameter thing .* has no dependency marker"),
    ],
)
async def test_errors_name_the_path(type_: type, message: str) -> None:
    """What cannot be solved is told with the path that leads to it, and tried again the next time."""
    container = DIContainer(di.Container())
    for _ in range(2):
        with pytest.raises(DependencyResolutionError, match=message):
            await container.resolve(type_)
    assert not container.needs_scope(type_)


async def test_an_unknown_scope_is_explained() -> None:
    """A bind in a scope that nobody entered says how to pass it."""
    container = di.Container()
    container.bind(di.bind_by_type(dependent.Dependent(Settings, scope="app"), Settings))
    with pytest.raises(DependencyResolutionError, match=r"unknown scope app.*state=state"):
        await DIContainer(container).resolve(UsesSettings)


@pytest.mark.parametrize("is_async", [False, True])
async def test_values_of_outer_scopes_are_shared_by_requests(is_async: bool) -> None:
    """What is bound in a scope around the requests is made once, also by concurrent requests, and outlives them."""
    log: list[str] = []

    def open_settings() -> Iterator[Settings]:
        log.append("opened")
        yield Settings()
        log.append("closed")

    async def open_settings_slowly() -> AsyncIterator[Settings]:
        await anyio.lowlevel.checkpoint()
        log.append("opened")
        yield Settings()
        log.append("closed")

    factory: Any = open_settings_slowly if is_async else open_settings
    external = di.Container()
    external.bind(di.bind_by_type(dependent.Dependent(factory, scope="app"), Settings))
    got: list[UsesSettings] = []
    async with external.enter_scope("app") as state:
        container = DIContainer(external, state=state)
        assert not container.needs_scope(UsesSettings)

        async def dispatch() -> None:
            got.append(await container.resolve(UsesSettings))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(dispatch)
        got.append(await container.resolve(UsesSettings))
        assert log == ["opened"]
    assert log == ["opened", "closed"]
    assert len({id(it.settings) for it in got}) == 1
    assert len({id(it.session) for it in got}) == 4


def _with_slow_settings(made: list[Settings]) -> DIContainer:
    async def make_settings() -> Settings:
        await anyio.sleep(0.02)
        made.append(Settings())
        return made[-1]

    external = di.Container()
    external.bind(di.bind_by_type(dependent.Dependent(make_settings, scope="app"), Settings))
    return DIContainer(external, state=external.enter_scope("app").__enter__())


def test_one_container_serves_several_event_loops() -> None:
    """A container that is made outside of an event loop works on asyncio and then on trio, outer values included."""
    pytest.importorskip("trio")
    for backends in (("asyncio", "trio"), ("trio", "asyncio")):
        made: list[Settings] = []
        container = _with_slow_settings(made)

        async def dispatch(type_: Any, container: DIContainer = container) -> None:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(container.resolve, type_)

        for backend, type_ in zip(backends, (UsesSettings, Settings), strict=True):
            anyio.run(dispatch, type_, backend=backend)
        assert len(made) == 1


def test_outer_values_are_made_once_across_threads() -> None:
    """Several threads, each with an event loop of its own, share what is bound around the requests."""
    made: list[Settings] = []
    got: list[Settings] = []
    container, barrier = _with_slow_settings(made), threading.Barrier(4)

    async def dispatch() -> None:
        got.append((await container.resolve(UsesSettings)).settings)

    def work() -> None:
        barrier.wait(5)
        anyio.run(dispatch)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got == made * 4


async def test_making_an_outer_value_can_be_cancelled() -> None:
    """A request that is cancelled while it makes an outer value leaves the making to the next."""
    go_on = anyio.Event()
    started: list[int] = []

    async def make_settings() -> Settings:
        started.append(1)
        await go_on.wait()
        return Settings()

    external = di.Container()
    external.bind(di.bind_by_type(dependent.Dependent(make_settings, scope="app"), Settings))
    got: list[Settings] = []
    scopes = [anyio.CancelScope() for _ in range(3)]
    with anyio.fail_after(5):
        async with external.enter_scope("app") as state, anyio.create_task_group() as group:
            container = DIContainer(external, state=state)

            async def dispatch(cancel: anyio.CancelScope) -> None:
                with cancel:
                    got.append((await container.resolve(UsesSettings)).settings)

            for cancel in scopes:
                group.start_soon(dispatch, cancel)
                await anyio.wait_all_tasks_blocked()
            scopes[0].cancel()
            await anyio.wait_all_tasks_blocked()
            go_on.set()
    assert len(started) == 2
    assert len(got) == 2
    assert got[0] is got[1]


async def test_concurrent_resolutions_in_one_scope_share() -> None:
    """Two tasks that resolve out of one scope at the same time get one instance."""
    made: list[Session] = []

    async def slow() -> Session:
        await anyio.lowlevel.checkpoint()
        made.append(Session())
        return made[-1]

    external = di.Container()
    external.bind(di.bind_by_type(dependent.Dependent(slow, scope="request"), Session))
    async with DIContainer(external).scope() as scope, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(scope.resolve, UsesSettings)
    assert len(made) == 1


async def test_waiting_for_another_resolution_can_be_cancelled() -> None:
    """A task that waits for its turn in a scope is cancelled alone; the others go on."""
    go_on = anyio.Event()

    async def slow() -> Session:
        await go_on.wait()
        return Session()

    external = di.Container()
    external.bind(di.bind_by_type(dependent.Dependent(slow, scope="request"), Session))
    got: list[Any] = []
    with anyio.fail_after(5):
        async with DIContainer(external).scope() as scope, anyio.create_task_group() as group:

            async def use(cancel: anyio.CancelScope) -> None:
                with cancel:
                    got.append(await scope.resolve(Session))

            scopes = [anyio.CancelScope() for _ in range(3)]
            for cancel in scopes:
                group.start_soon(use, cancel)
                await anyio.wait_all_tasks_blocked()
            scopes[1].cancel()
            await anyio.wait_all_tasks_blocked()
            go_on.set()
    assert len(got) == 2
    assert got[0] is got[1]


async def test_a_resource_cannot_hide_an_exception() -> None:
    """A generator that swallows the exception hides it neither from its neighbours nor from the caller."""
    log: list[object] = []

    def open_session() -> Iterator[Session]:
        try:
            yield Session()
        except LookupError as error:
            log.append(type(error))

    async def open_repository(session: Session) -> AsyncIterator[Repository]:
        try:
            yield SqlRepository(session)
        except LookupError as error:
            log.append(type(error))

    external = di.Container()
    external.bind(di.bind_by_type(dependent.Dependent(open_session, scope="request"), Session))
    external.bind(di.bind_by_type(dependent.Dependent(open_repository, scope="request"), Repository))
    with pytest.raises(LookupError):  # noqa: PT012
        async with DIContainer(external).scope() as scope:
            await scope.resolve(Repository)
            raise LookupError
    assert log == [LookupError, LookupError]


async def test_a_scope_that_was_left_resolves_no_more() -> None:
    """Nothing can be opened in a scope that nobody will close."""
    async with DIContainer(di.Container()).scope() as scope:
        pass
    with pytest.raises(DependencyResolutionError, match="scope is not open"):
        await scope.resolve(Session)


async def test_needs_a_container() -> None:
    """Without a container there is a clear error, not an AttributeError."""
    container = DIContainer()
    with pytest.raises(ContainerNotAttachedError):
        container.external_container  # noqa: B018
    with pytest.raises(ContainerNotAttachedError):
        await container.resolve(Session)
