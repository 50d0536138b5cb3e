"""The container without a library."""

from __future__ import annotations

import abc
import dataclasses
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, NewType, Optional, Protocol, TypeVar

import anyio
import anyio.lowlevel
import pytest

from cqrs.container.plain import Lifetime, PlainContainer
from cqrs.container.scope import DispatchScope
from cqrs.exceptions import (
    ConfigurationError,
    DependencyResolutionError,
    InvalidOptionError,
    ScopeCleanupTimeoutError,
)

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")
Dsn = NewType("Dsn", str)


class Session:
    pass


class Clock(Protocol):
    def now(self) -> int: ...


class FixedClock:
    def now(self) -> int:
        return 7


class Repo(abc.ABC):
    @abc.abstractmethod
    def load(self) -> None: ...


class Service:
    def __init__(self, repo: Repo) -> None:
        self.repo = repo


class Handler:
    def __init__(self, service: Service) -> None:
        self.service = service


class UsesSession:
    def __init__(self, session: Session) -> None:
        self.session = session


class UsesSessionTwice:
    def __init__(self, first: UsesSession, second: UsesSession, session: Session) -> None:
        self.sessions = [first.session, second.session, session]


class Chicken:
    def __init__(self, egg: Egg) -> None: ...


class Egg:
    def __init__(self, chicken: Chicken) -> None: ...


class Defaults:
    def __init__(
        self,
        clock: Optional[Clock] = None,  # noqa: UP045
        session: Session | None = None,
        size: int = 3,
        *args: Any,
        label: Annotated[str, "shown"] = "none",
        user: UsesSession,
        **options: Any,
    ) -> None:
        self.clock, self.session, self.size, self.label, self.user = clock, session, size, label, user


class Unannotated:
    def __init__(self, thing) -> None: ...  # type: ignore[no-untyped-def]


class Unknown:
    def __init__(self, amount: Decimal) -> None: ...


class UnknownWithDefault:
    def __init__(self, amount: Decimal | None = None) -> None:
        self.amount = amount


class NeedsText:
    def __init__(self, text: str) -> None: ...


class NeedsDsn:
    def __init__(self, dsn: Dsn) -> None:
        self.dsn = dsn


class Box(Generic[T]):
    pass


class NeedsBox:
    def __init__(self, ints: Box[int], strings: Box[str]) -> None:
        self.ints, self.strings = ints, strings


@dataclasses.dataclass
class DataHandler:
    session: Session
    clock: Clock


async def test_unregistered_classes_are_built_by_their_hints() -> None:
    """A concrete class, a dataclass too, needs no registration."""
    container = PlainContainer()
    container.register(Clock, FixedClock)  # type: ignore[type-abstract]
    made = await container.resolve(DataHandler)
    assert type(made.session) is Session
    assert made.clock.now() == 7


async def test_instances_are_given_as_they_are() -> None:
    """A registered instance is what is injected; its type can be a NewType."""
    container = PlainContainer()
    container.register_instance(Dsn, Dsn("sqlite://"))
    assert (await container.resolve(NeedsDsn)).dsn == "sqlite://"


async def test_generic_aliases_are_told_apart() -> None:
    """``Box[int]`` and ``Box[str]`` can have different factories; what has none is built from ``Box``."""
    ints: Box[int] = Box()
    container = PlainContainer()
    container.register_instance(Box[int], ints)
    made = await container.resolve(NeedsBox)
    assert made.ints is ints
    assert type(made.strings) is Box
    assert made.strings is not ints


async def test_defaults_are_kept_unless_the_type_is_registered() -> None:
    """A parameter with a default is injected only if somebody registered its type."""
    container = PlainContainer()
    made = await container.resolve(Defaults)
    assert (made.clock, made.session, made.size, made.label) == (None, None, 3, "none")
    assert type(made.user) is UsesSession
    container.register(Session)
    made = await container.resolve(Defaults)
    assert made.clock is None
    assert type(made.session) is Session


async def test_annotations_that_cannot_be_resolved_matter_only_where_needed() -> None:
    """A name known to type checkers only is an error that says so, unless there is a default."""
    container = PlainContainer()
    assert (await container.resolve(UnknownWithDefault)).amount is None
    with pytest.raises(DependencyResolutionError, match=r"Unknown: the annotation 'Decimal' .*TYPE_CHECKING"):
        await container.resolve(Unknown)


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (
            Handler,
            r"Handler -> Service -> Repo: Repo is abstract.*\(Repo, factory\), or.*register\(Service, factory\)",
        ),
        (Clock, "Clock: Clock is a protocol"),
        (Chicken, "Chicken -> Egg -> Chicken: they need each other"),
        (Unannotated, "Unannotated: parameter 'thing' has no annotation"),
        (NeedsText, "NeedsText -> str: str is a built-in type"),
        (NeedsDsn, "NeedsDsn -> .*Dsn.* is not a class"),
    ],
)
async def test_errors_name_the_path_and_the_way_out(type_: type, message: str) -> None:
    """What cannot be provided is told with the path that leads to it."""
    container = PlainContainer()
    with pytest.raises(DependencyResolutionError, match=message) as caught:
        await container.resolve(type_)
    assert caught.value.requested_type is type_
    assert not container.needs_scope(type_)


async def test_a_registration_mends_what_failed() -> None:
    """A failed resolution is not remembered."""

    class SqlRepo(Repo):
        def load(self) -> None: ...

    container = PlainContainer()
    with pytest.raises(DependencyResolutionError):
        await container.resolve(Handler)
    container.register(Repo, SqlRepo)  # type: ignore[type-abstract]
    assert type((await container.resolve(Handler)).service.repo) is SqlRepo


async def test_lifetimes() -> None:
    """Transient: one each injection; scoped: one a scope; singleton: one a container."""
    made: dict[Lifetime, list[set[int]]] = {}
    keep: list[Any] = []
    for lifetime in Lifetime:
        container = PlainContainer()
        container.register(Session, lifetime=lifetime)
        for _ in range(2):
            async with container.scope() as scope:
                made_here = await scope.resolve(UsesSessionTwice)
                keep.append(made_here)
                made.setdefault(lifetime, []).append({id(session) for session in made_here.sessions})
        assert container.needs_scope(UsesSessionTwice) is (lifetime is Lifetime.SCOPED)
    assert [len(ids) for ids in made[Lifetime.TRANSIENT]] == [3, 3]
    assert [len(ids) for ids in made[Lifetime.SCOPED]] == [1, 1]
    assert made[Lifetime.SCOPED][0] != made[Lifetime.SCOPED][1]
    assert made[Lifetime.SINGLETON][0] == made[Lifetime.SINGLETON][1]
    assert len(made[Lifetime.SINGLETON][0]) == 1


async def test_scoped_without_a_scope_is_shared_within_the_resolution() -> None:
    """Resolved from the container, a scoped type is one within the resolution and another in the next."""
    container = PlainContainer()
    container.register(Session, lifetime=Lifetime.SCOPED)
    first = (await container.resolve(UsesSessionTwice)).sessions
    second = (await container.resolve(UsesSessionTwice)).sessions
    assert first[0] is first[1] is first[2]
    assert first[0] is not second[0]


async def test_concurrent_resolutions_in_one_scope_share() -> None:
    """Two tasks that resolve out of one scope at the same time get one scoped instance."""
    made: list[Session] = []

    async def slow() -> Session:
        await anyio.lowlevel.checkpoint()
        made.append(Session())
        return made[-1]

    container = PlainContainer()
    container.register(Session, slow, lifetime=Lifetime.SCOPED)
    async with container.scope() as scope, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(scope.resolve, UsesSession)
    assert len(made) == 1


async def test_a_singleton_is_made_once_by_concurrent_tasks() -> None:
    """However many tasks want a singleton first, its factory runs once."""
    made = 0

    async def connect() -> AsyncIterator[Session]:
        nonlocal made
        await anyio.sleep(0.01)
        made += 1
        yield Session()

    async with PlainContainer() as container:
        container.register(Session, connect, lifetime=Lifetime.SINGLETON)
        assert not container.needs_scope(UsesSession)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(container.resolve, UsesSession)
    assert made == 1


async def test_a_singleton_whose_maker_is_cancelled_is_made_by_the_next() -> None:
    """Tasks that wait for a singleton make it themselves if its maker is cancelled; nothing stays half open."""
    log: list[str] = []
    first_started = anyio.Event()

    async def connect() -> AsyncIterator[Session]:
        log.append("opening")
        try:
            if not first_started.is_set():
                first_started.set()
                await anyio.sleep_forever()
            yield Session()
        finally:
            log.append("closed")

    container = PlainContainer()
    container.register(Session, connect, lifetime=Lifetime.SINGLETON)

    async def maker(scope: anyio.CancelScope) -> None:
        with scope:
            await container.resolve(Session)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            group.start_soon(maker, scope)
            await first_started.wait()
            group.start_soon(container.resolve, Session)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert log == ["opening", "closed", "opening"]
    await container.aclose()
    assert log[-1] == "closed"


async def test_a_singleton_that_fails_is_tried_again() -> None:
    """A failure to make a singleton reaches the one who asked, and the next asks anew."""
    attempts: list[int] = []

    async def flaky() -> Session:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return Session()

    container = PlainContainer()
    container.register(Session, flaky, lifetime=Lifetime.SINGLETON)
    with pytest.raises(ConnectionError):
        await container.resolve(Session)
    assert await container.resolve(Session) is await container.resolve(Session)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_singleton_is_made_once_across_event_loops(is_async: bool) -> None:
    """Several threads, each with an event loop of its own, get one instance."""
    made: list[Session] = []
    barrier = threading.Barrier(4)

    def make() -> Session:
        made.append(Session())
        return made[-1]

    async def make_slowly() -> Session:
        await anyio.sleep(0.02)
        return make()

    container = PlainContainer()
    container.register(Session, make_slowly if is_async else make, lifetime=Lifetime.SINGLETON)
    got: list[Session] = []

    def work() -> None:
        async def main() -> None:
            got.append((await container.resolve(UsesSession)).session)

        barrier.wait(5)
        anyio.run(main)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert {id(session) for session in got} == {id(made[0])}
    assert len(got) == 4


async def test_singletons_are_closed_in_reverse_with_the_container() -> None:
    """``async with container`` closes what singletons opened, the last made first, and the container stays usable."""
    log: list[str] = []

    def open_session() -> Iterator[Session]:
        yield Session()
        log.append("session")

    async def open_user(session: Session) -> AsyncIterator[UsesSession]:
        yield UsesSession(session)
        await anyio.lowlevel.checkpoint()
        log.append("user")

    container = PlainContainer()
    container.register(Session, open_session, lifetime=Lifetime.SINGLETON)
    container.register(UsesSession, open_user, lifetime=Lifetime.SINGLETON)
    async with container:
        first = await container.resolve(UsesSession)
        async with container.scope() as scope:
            assert await scope.resolve(UsesSession) is first
        assert log == []
    assert log == ["user", "session"]
    assert await container.resolve(UsesSession) is not first
    await container.aclose()
    assert log == ["user", "session"] * 2


async def test_closing_singletons_is_shielded_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled ``aclose`` closes all the same; a resource that never closes is given up with an error."""
    log: list[str] = []

    async def open_session() -> AsyncIterator[Session]:
        yield Session()
        await anyio.sleep(0.01)
        log.append("closed")

    container = PlainContainer()
    container.register(Session, open_session, lifetime=Lifetime.SINGLETON)
    await container.resolve(Session)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await container.aclose()
    assert log == ["closed"]

    async def open_stubborn() -> AsyncIterator[Session]:
        yield Session()
        await anyio.sleep_forever()

    container.register(Session, open_stubborn, lifetime=Lifetime.SINGLETON)
    await container.resolve(Session)
    monkeypatch.setattr("cqrs.container.plain.CLEANUP_TIMEOUT", 0.01)
    with pytest.raises(ScopeCleanupTimeoutError):
        await container.aclose()


async def test_a_singleton_must_not_keep_what_is_scoped() -> None:
    """A singleton that needs a scoped type, directly or through others, is refused with the path."""
    container = PlainContainer()
    container.register(Session, lifetime=Lifetime.SCOPED)
    container.register(UsesSessionTwice, lifetime=Lifetime.SINGLETON)
    with pytest.raises(DependencyResolutionError, match="UsesSessionTwice -> UsesSession -> Session: the singleton"):
        await container.resolve(UsesSessionTwice)


async def test_override_reaches_through_singletons() -> None:
    """A singleton is made anew while something that it needs is overridden, and the former one is back after."""
    container = PlainContainer()
    container.register(UsesSession, lifetime=Lifetime.SINGLETON)
    former = await container.resolve(UsesSession)
    fake = Session()
    with container.override(Session, lambda: fake):
        inside = await container.resolve(UsesSession)
        assert inside.session is fake
        assert await container.resolve(UsesSession) is inside
        with container.override(Session, Session):
            assert (await container.resolve(UsesSession)).session is not fake
        assert (await container.resolve(UsesSession)).session is fake
    assert await container.resolve(UsesSession) is former


async def test_overrides_end_in_any_order() -> None:
    """Overrides that are not nested leave the registered factory when all have ended."""
    container = PlainContainer()
    one, two = Session(), Session()
    first, second = container.override(Session, lambda: one), container.override(Session, lambda: two)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert await container.resolve(Session) is two
    second.__exit__(None, None, None)
    assert await container.resolve(Session) not in (one, two)


class Early:
    """Something of which a resolution waits before it comes to the session."""


class UsesSessionAndEarly:
    def __init__(self, session: Session, early: Early) -> None:
        self.session, self.early = session, early


async def test_overrides_end_in_any_order_for_singletons_too() -> None:
    """A singleton is made of what is overridden at the time, and the real one is back when all have ended."""
    container, fake, fake_early = PlainContainer(), Session(), Early()
    container.register(UsesSessionAndEarly, lifetime=Lifetime.SINGLETON)
    real = await container.resolve(UsesSessionAndEarly)
    first, second = container.override(Session, lambda: fake), container.override(Early, lambda: fake_early)
    first.__enter__()
    assert (await container.resolve(UsesSessionAndEarly)).session is fake
    second.__enter__()
    both = await container.resolve(UsesSessionAndEarly)
    assert both.session is fake
    assert both.early is fake_early
    first.__exit__(None, None, None)
    rest = await container.resolve(UsesSessionAndEarly)
    assert rest.session is not fake
    assert rest.early is fake_early
    second.__exit__(None, None, None)
    assert await container.resolve(UsesSessionAndEarly) is real


async def test_a_default_gives_way_to_an_override_or_a_registration() -> None:
    """A singleton that took the default of a parameter is made anew once its type is overridden or registered."""
    container, fake, user = PlainContainer(), Session(), UsesSession(Session())
    container.register_instance(UsesSession, user)
    container.register(Defaults, lifetime=Lifetime.SINGLETON)
    assert (await container.resolve(Defaults)).session is None
    with container.override(Session, lambda: fake):
        assert (await container.resolve(Defaults)).session is fake
    assert (await container.resolve(Defaults)).session is None
    container.register_instance(Session, fake)
    assert (await container.resolve(Defaults)).session is fake


async def test_a_registration_within_an_override_counts_after_it() -> None:
    """What was set aside for an override does not come back if it has been registered anew, or closed, since."""
    container, later = PlainContainer(), Session()
    container.register(Session, lifetime=Lifetime.SINGLETON)
    container.register(UsesSession, lifetime=Lifetime.SINGLETON)
    first = await container.resolve(UsesSession)
    with container.override(Session, Session):
        container.register_instance(Session, later)
    second = await container.resolve(UsesSession)
    assert second is not first
    assert second.session is later
    with container.override(Session, Session):
        await container.aclose()
    assert await container.resolve(UsesSession) is not second


async def test_override_keeps_the_lifetime() -> None:
    """An override lives as long as what it replaces, unless it says otherwise."""
    container = PlainContainer()
    container.register(Session, lifetime=Lifetime.SINGLETON)
    with container.override(Session, Session):
        assert await container.resolve(Session) is await container.resolve(Session)
    with container.override(Session, Session, lifetime=Lifetime.TRANSIENT):
        assert await container.resolve(Session) is not await container.resolve(Session)


class SlowSessions:
    """Makes sessions, each of them when it is told to."""

    def __init__(self) -> None:
        self.go_on = anyio.Event()
        self.made: list[Session] = []

    async def __call__(self) -> Session:
        await self.go_on.wait()
        self.made.append(Session())
        return self.made[-1]


class UsesEarlyAndSession:
    def __init__(self, early: Early, session: Session) -> None:
        self.session = session


async def test_an_override_is_honoured_though_the_singleton_is_being_made() -> None:
    """Entered while the real one is being made, the block has the fake; after it the real one is made anew, once."""
    container, slow, fake = PlainContainer(), SlowSessions(), Session()
    container.register(Session, slow, lifetime=Lifetime.SINGLETON)
    container.register(UsesSession, lifetime=Lifetime.SINGLETON)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(container.resolve, UsesSession)
            await anyio.wait_all_tasks_blocked()
            with container.override(Session, lambda: fake):
                slow.go_on.set()
                await anyio.wait_all_tasks_blocked()
                assert len(slow.made) == 1
                assert await container.resolve(Session) is fake
                assert (await container.resolve(UsesSession)).session is fake
        after = await container.resolve(UsesSession)
    assert after.session is not fake
    assert after.session is await container.resolve(Session)
    assert len(slow.made) == 2


async def test_a_fake_that_is_being_made_does_not_outlive_its_override() -> None:
    """Left while the fake is being made, the block leaves nothing behind; who asked in it gets what it asked for."""
    container, slow, real = PlainContainer(), SlowSessions(), Session()
    container.register(Session, lambda: real, lifetime=Lifetime.SINGLETON)
    got: list[Session] = []

    async def ask() -> None:
        got.append((await container.resolve(UsesSession)).session)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            with container.override(Session, slow):
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
            assert await container.resolve(Session) is real
            slow.go_on.set()
    assert got == slow.made
    assert await container.resolve(Session) is real


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_resolution_that_began_in_an_override_leaves_no_fake_behind(is_async: bool) -> None:
    """A singleton that is reached after the block was left is made as it is registered."""
    go_on, fake = anyio.Event(), Session()

    async def early() -> Early:
        await go_on.wait()
        return Early()

    async def fake_session() -> Session:
        return fake

    container = PlainContainer()
    container.register(Early, early)
    container.register(Session, lifetime=Lifetime.SINGLETON)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            with container.override(Session, fake_session if is_async else lambda: fake):
                group.start_soon(container.resolve, UsesEarlyAndSession)
                await anyio.wait_all_tasks_blocked()
            go_on.set()
    assert await container.resolve(Session) is not fake


async def test_a_singleton_that_an_override_does_not_concern_is_made_once() -> None:
    """An override of something else, begun and ended while a singleton is being made, does not make it twice."""
    container, slow = PlainContainer(), SlowSessions()
    container.register(Session, slow, lifetime=Lifetime.SINGLETON)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(container.resolve, Session)
            await anyio.wait_all_tasks_blocked()
            with container.override(Early, Early):
                group.start_soon(container.resolve, Session)
                await anyio.wait_all_tasks_blocked()
            slow.go_on.set()
    assert [await container.resolve(Session)] == slow.made


async def test_a_maker_that_was_forgotten_can_be_cancelled() -> None:
    """A cancelled maker from before an override takes nothing from the one that makes the value since."""
    container, slow = PlainContainer(), SlowSessions()
    container.register(Session, slow, lifetime=Lifetime.SINGLETON)
    cancel = anyio.CancelScope()
    got: list[Session] = []

    async def abandoned() -> None:
        with cancel:
            await container.resolve(Session)

    async def ask() -> None:
        got.append(await container.resolve(Session))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(abandoned)
            await anyio.wait_all_tasks_blocked()
            with container.override(Early, Early):
                container.register(Session, slow, lifetime=Lifetime.SINGLETON)
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                cancel.cancel()
                await anyio.wait_all_tasks_blocked()
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
            slow.go_on.set()
    assert cancel.cancelled_caught
    assert got == slow.made * 2


async def test_a_lifetime_can_be_its_value() -> None:
    """A lifetime as settings have it, a string, counts; what is none is refused and leaves things as they were."""
    container = PlainContainer()
    container.register(Session, lifetime="scoped")  # type: ignore[arg-type]
    assert container.needs_scope(Session)
    with container.override(Session, Session, lifetime="singleton"):  # type: ignore[arg-type]
        assert await container.resolve(Session) is await container.resolve(Session)
    for wrong in ("request", "", 3):
        with pytest.raises(InvalidOptionError, match=r"lifetime is .*Lifetime\.SCOPED"):
            container.register(Session, lifetime=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidOptionError), container.override(Session, Session, lifetime=wrong):  # type: ignore[arg-type]
            pass
    assert container.needs_scope(Session)


@pytest.mark.parametrize("instance", [Session(), 0, ""])
def test_an_instance_is_no_factory(instance: Any) -> None:
    """An instance in place of a factory, a falsy one too, is refused where it is given, with the way to give it."""
    container = PlainContainer()
    with pytest.raises(ConfigurationError, match=r"register_instance\(Session, instance\)"):
        container.register(Session, instance)
    with pytest.raises(ConfigurationError, match="lambda: instance"), container.override(Session, instance):
        pass


async def test_factories_of_every_kind() -> None:
    """Partials and callable objects, async ones too, serve as factories."""

    class Maker:
        async def __call__(self, user: UsesSession) -> Session:
            return user.session

    def configured(label: str, clock: Clock) -> FixedClock:
        assert label == "here"
        return FixedClock()

    container = PlainContainer()
    container.register_instance(Clock, FixedClock())  # type: ignore[type-abstract]
    container.register(FixedClock, functools.partial(configured, "here"))
    assert (await container.resolve(FixedClock)).now() == 7
    user = UsesSession(Session())
    container.register_instance(UsesSession, user)
    container.register(Session, Maker())
    assert await container.resolve(Session) is user.session


async def test_a_resource_cannot_hide_an_exception() -> None:
    """A generator that swallows the exception hides it neither from its neighbours nor from the caller."""
    log: list[object] = []

    def open_session() -> Iterator[Session]:
        try:
            yield Session()
        except LookupError as error:
            log.append(type(error))

    async def open_user(session: Session) -> AsyncIterator[UsesSession]:
        try:
            yield UsesSession(session)
        except LookupError as error:
            log.append(type(error))

    container = PlainContainer()
    container.register(Session, open_session)
    container.register(UsesSession, open_user)
    with pytest.raises(LookupError):  # noqa: PT012
        async with container.scope() as scope:
            await scope.resolve(UsesSession)
            raise LookupError
    assert log == [LookupError, LookupError]


async def test_a_scope_that_was_left_resolves_no_more() -> None:
    """Nothing can be opened in a scope that nobody will close."""
    container = PlainContainer()
    async with container.scope() as scope:
        pass
    with pytest.raises(DependencyResolutionError, match="scope has been left"):
        await scope.resolve(Session)


async def test_dispatch_scope_works_with_it() -> None:
    """The dispatcher's scope closes what it opened."""
    closed: list[bool] = []

    def open_session() -> Iterator[Session]:
        yield Session()
        closed.append(True)

    container = PlainContainer()
    container.register(Session, open_session)
    async with DispatchScope(container) as resolver:
        await resolver.resolve(UsesSession)
        assert not closed
    assert closed == [True]


def test_wraps_no_other_container() -> None:
    """It is its own external container, and refuses another."""
    container = PlainContainer()
    assert container.external_container is container
    container.attach_external_container(container)
    with pytest.raises(ConfigurationError, match="wraps no other"):
        container.attach_external_container(PlainContainer())
