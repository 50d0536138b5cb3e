"""Which of the events that handlers record are published: each once, and none of an attempt that failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs.middlewares.base import MiddlewareChain


class Failed(Exception):
    pass


@dataclasses.dataclass
class Do(cqrs.DCRequest):
    name: str
    fails: int = 0
    """How many attempts fail."""


@dataclasses.dataclass(frozen=True)
class Done(cqrs.DCDomainEvent):
    name: str


@dataclasses.dataclass(frozen=True)
class Followed(cqrs.DCDomainEvent):
    name: str


class Recorder:
    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def record(self, request: Do) -> None:
        self._events.append(Done(request.name))
        await checkpoint()
        if request.fails:
            request.fails -= 1
            self._events.append(Done(f"{request.name} failed"))
            raise Failed


class Handler(Recorder, cqrs.RequestHandler[Do, None]):
    async def handle(self, request: Do) -> None:
        await self.record(request)


class Passing(Recorder, cqrs.CORRequestHandler[Do, None]):
    async def handle(self, request: Do) -> None:
        self._events.append(Done(f"{request.name} passed"))
        return await self.next(request)


class Link(Recorder, cqrs.CORRequestHandler[Do, None]):
    async def handle(self, request: Do) -> None:
        await self.record(request)


class Draining(cqrs.RequestHandler[Do, None]):
    """Forgets its events as soon as they are read."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        events, self._events = self._events, []
        return events

    async def handle(self, request: Do) -> None:
        self._events.append(Done(request.name))


class DrainingLink(Draining, cqrs.CORRequestHandler[Do, None]):  # type: ignore[misc]
    pass


class OnDone(cqrs.EventHandler[Done]):
    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, event: Done) -> None:
        self._events.append(Followed(event.name))
        if event.name == "bad":
            raise Failed


class DrainingOnDone(cqrs.EventHandler[Done]):
    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        events, self._events = self._events, []
        return events

    async def handle(self, event: Done) -> None:
        self._events.append(Followed(event.name))


async def again(request: Any, handle: Callable[[Any], Any]) -> Any:
    """A middleware that tries three times."""
    try:
        return await handle(request)
    except Failed:
        pass
    try:
        return await handle(request)
    except Failed:
        return await handle(request)


async def nothing(request: Any, handle: Callable[[Any], Any]) -> Any:
    return await handle(request)


class Emitted:
    """Stands in for an emitter."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def emit(self, event: Any) -> Sequence[cqrs.IEvent]:
        self.names.append(event.name)
        return ()


def container(*singletons: type) -> cqrs.PlainContainer:
    plain = cqrs.PlainContainer()
    for type_ in singletons:
        plain.register(type_, lifetime=cqrs.Lifetime.SINGLETON)
    return plain


def mediator(
    binding: Any, *singletons: type, middlewares: Sequence[Any] = ()
) -> tuple[cqrs.RequestMediator, list[str]]:
    requests, chain, emitter = cqrs.RequestMap(), MiddlewareChain(), Emitted()
    requests.bind(Do, binding)
    chain.set(middlewares)
    return cqrs.RequestMediator(requests, container(*singletons), emitter, chain), emitter.names


around = pytest.mark.parametrize("middlewares", [(), (nothing,)], ids=["bare", "wrapped"])


@around
@pytest.mark.parametrize(
    ("binding", "singletons", "per_send"),
    [
        (Handler, (Handler,), ["x"]),
        ([Passing, Link], (Passing, Link), ["x passed", "x"]),
        ([Passing, Link], (Passing,), ["x passed", "x"]),
        (cqrs.RequestHandlerFallback(primary=Handler, fallback=Draining), (Handler, Draining), ["x"]),
    ],
)
async def test_a_singleton_publishes_each_event_once(
    binding: Any, singletons: Sequence[type], per_send: list[str], middlewares: Sequence[Any]
) -> None:
    """A handler that lives on with its list publishes in each send what it recorded in that send."""
    subject, emitted = mediator(binding, *singletons, middlewares=middlewares)
    for _ in range(3):
        emitted.clear()
        await subject.send(Do("x"))
        assert emitted == per_send


@around
@pytest.mark.parametrize(
    ("binding", "singletons"),
    [
        (Handler, (Handler,)),
        ([Passing, Link], (Passing, Link)),
        (cqrs.RequestHandlerFallback(primary=Handler, fallback=Handler, failure_exceptions=(KeyError,)), (Handler,)),
    ],
)
async def test_events_of_a_failed_send_are_never_published(
    binding: Any, singletons: Sequence[type], middlewares: Sequence[Any]
) -> None:
    """What a handler that lives on recorded in a send that failed does not come with the next one."""
    subject, emitted = mediator(binding, *singletons, middlewares=middlewares)
    with pytest.raises(Failed):
        await subject.send(Do("lost", fails=9))
    assert emitted == []
    await subject.send(Do("kept"))
    assert [name for name in emitted if "lost" in name] == []
    assert "kept" in emitted


async def test_events_of_a_cancelled_send_are_never_published() -> None:
    """What a handler that lives on recorded in a send that was cancelled does not come with the next one."""
    subject, emitted = mediator(Handler, Handler)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await subject.send(Do("lost"))
    assert scope.cancelled_caught
    await subject.send(Do("kept"))
    assert emitted == ["kept"]


async def test_a_primary_that_failed_publishes_nothing_later() -> None:
    """The events of a singleton primary that failed are published neither with the fallback's nor by the next send."""

    class Second(Recorder, cqrs.RequestHandler[Do, None]):
        async def handle(self, request: Do) -> None:
            self._events.append(Done("second"))

    subject, emitted = mediator(cqrs.RequestHandlerFallback(primary=Handler, fallback=Second), Handler)
    await subject.send(Do("first", fails=1))
    assert emitted == ["second"]
    emitted.clear()
    await subject.send(Do("first"))
    assert emitted == ["first"]


@pytest.mark.parametrize("is_singleton", [False, True])
@pytest.mark.parametrize(
    ("binding", "per_send"), [(Handler, ["x"]), ([Passing, Link], ["x passed", "x"]), ([Link], ["x"])]
)
@pytest.mark.parametrize("fails", [0, 1, 2])
async def test_of_several_attempts_the_last_one_publishes(
    binding: Any, per_send: list[str], fails: int, is_singleton: bool
) -> None:
    """Under a middleware that tries again, the events of the failed attempts are dropped, in chains as well."""
    singletons = (Handler, Passing, Link) if is_singleton else ()
    subject, emitted = mediator(binding, *singletons, middlewares=[again])
    await subject.send(Do("x", fails=fails))
    assert emitted == per_send
    emitted.clear()
    await subject.send(Do("x"))
    assert emitted == per_send


@pytest.mark.parametrize(
    ("binding", "per_send"), [(Handler, ["x"]), ([Passing, Link], ["x passed", "x"]), (Draining, ["x"])]
)
@pytest.mark.parametrize("is_singleton", [False, True])
async def test_an_attempt_that_a_middleware_failed_publishes_nothing(
    binding: Any, per_send: list[str], is_singleton: bool
) -> None:
    """A handler that succeeded inside a middleware that failed is tried again, and only the last attempt publishes."""
    attempts = 0

    async def fails_afterwards(request: Any, handle: Callable[[Any], Any]) -> Any:
        nonlocal attempts
        attempts += 1
        response = await handle(request)
        if attempts < 3:
            raise Failed
        return response

    singletons = (Handler, Passing, Link, Draining) if is_singleton else ()
    subject, emitted = mediator(binding, *singletons, middlewares=[again, fails_afterwards])
    await subject.send(Do("x"))
    assert attempts == 3
    assert emitted == per_send


async def test_a_failure_that_a_middleware_hides_publishes_nothing() -> None:
    """A middleware that answers in place of a handler that failed does not publish that handler's events."""

    async def hides(request: Any, handle: Callable[[Any], Any]) -> Any:
        try:
            return await handle(request)
        except Failed:
            return None

    subject, emitted = mediator(Handler, middlewares=[hides])
    await subject.send(Do("x", fails=1))
    assert emitted == []


@around
@pytest.mark.parametrize(
    "binding",
    [Draining, [DrainingLink], cqrs.RequestHandlerFallback(primary=Draining, fallback=Handler)],
    ids=["single", "chain", "fallback"],
)
@pytest.mark.parametrize("is_singleton", [False, True])
async def test_a_handler_may_forget_its_events_when_they_are_read(
    binding: Any, is_singleton: bool, middlewares: Sequence[Any]
) -> None:
    """``events`` is read once, so that a handler that empties its list then loses none."""
    subject, emitted = mediator(binding, *((Draining, DrainingLink) if is_singleton else ()), middlewares=middlewares)
    await subject.send(Do("x"))
    await subject.send(Do("y"))
    assert emitted == ["x", "y"]


async def test_a_failure_is_not_hidden_by_events_that_cannot_be_read() -> None:
    """A handler that fails before it made its list fails with its own error."""

    class Early(cqrs.RequestHandler[Do, None]):
        _events: list[cqrs.IEvent]

        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return self._events

        async def handle(self, request: Do) -> None:
            raise Failed

    for middlewares in ((), (nothing,)):
        subject, _ = mediator(Early, middlewares=middlewares)
        with pytest.raises(Failed):
            await subject.send(Do("x"))


async def test_frozen_handlers_publish_each_event_once() -> None:
    """A handler that is a frozen dataclass and a singleton publishes each event once."""

    @dataclasses.dataclass(frozen=True)
    class Frozen(cqrs.RequestHandler[Do, None]):
        recorded: list = dataclasses.field(default_factory=list)  # type: ignore[type-arg]

        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return self.recorded

        async def handle(self, request: Do) -> None:
            self.recorded.append(Done(request.name))

    subject, emitted = mediator(Frozen, Frozen)
    await subject.send(Do("x"))
    await subject.send(Do("y"))
    assert emitted == ["x", "y"]


async def test_equal_events_are_told_apart() -> None:
    """Two equal events are two events, in one send and in two."""

    class Twice(Recorder, cqrs.RequestHandler[Do, None]):
        async def handle(self, request: Do) -> None:
            self._events += [Done("same"), Done("same")]

    subject, emitted = mediator(Twice, Twice)
    await subject.send(Do("x"))
    await subject.send(Do("x"))
    assert emitted == ["same"] * 4


@pytest.mark.parametrize("handler", [OnDone, DrainingOnDone])
@pytest.mark.parametrize("is_singleton", [False, True])
async def test_event_handlers_publish_each_event_once(handler: Any, is_singleton: bool) -> None:
    """Event handlers that live on, or forget their events when read, pass on what they recorded, once."""
    events, told = cqrs.EventMap(), list[str]()
    events.bind(Done, handler)

    class OnFollowed(cqrs.EventHandler[Followed]):
        async def handle(self, event: Followed) -> None:
            told.append(event.name)

    events.bind(Followed, OnFollowed)
    plain = container(*((handler,) if is_singleton else ()))
    subject = cqrs.EventMediator(events, plain)
    for name in ("a", "b", "c"):
        await subject.send(Done(name))
    assert told == ["a", "b", "c"]


async def test_an_event_handler_that_failed_publishes_nothing_later() -> None:
    """What a singleton event handler recorded before it failed does not follow from the next event."""
    events, told = cqrs.EventMap(), list[str]()
    events.bind(Done, OnDone)

    class OnFollowed(cqrs.EventHandler[Followed]):
        async def handle(self, event: Followed) -> None:
            told.append(event.name)

    events.bind(Followed, OnFollowed)
    subject = cqrs.EventMediator(events, container(OnDone))
    with pytest.raises(Failed):
        await subject.send(Done("bad"))
    await subject.send(Done("good"))
    assert told == ["good"]
