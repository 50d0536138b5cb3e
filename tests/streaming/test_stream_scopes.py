"""The scope of a stream's handler is open as long as the stream, and never leaks into the consumer."""

# ruff: noqa: PT012  # what is tested is where in a block an error leaves

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cqrs import (
    DomainEvent,
    EventHandler,
    EventMap,
    Lifetime,
    PlainContainer,
    Request,
    RequestHandler,
    RequestHandlerFallback,
    RequestMap,
    RequestMediator,
    ScopeStrategy,
    SendStreamRequestHandler,
    StreamingRequestHandler,
    StreamingRequestMediator,
)


class Session:
    opened: int = 0

    def __init__(self, log: list[Any]) -> None:
        Session.opened += 1
        self.number = Session.opened
        self.log = log
        self.is_open = True


class Log:
    def __init__(self) -> None:
        self.entries: list[Any] = []


async def open_session(log: Log) -> AsyncIterator[Session]:
    session = Session(log.entries)
    log.entries.append(f"open {session.number}")
    try:
        yield session
    except BaseException as error:
        log.entries.append(f"failed {type(error).__name__}")
        raise
    finally:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        session.is_open = False
        log.entries.append(f"close {session.number}")


class Read(Request):
    fails: bool = False


class Other(Request):
    pass


class Was(DomainEvent, frozen=True):
    number: int


class ReadHandler(StreamingRequestHandler[Read, int]):
    def __init__(self, session: Session) -> None:
        self.session = session
        self.recorded: list[Any] = []

    @property
    def events(self) -> Any:
        return self.recorded

    async def handle(self, request: Read) -> AsyncIterator[int]:
        for _ in range(3):
            assert self.session.is_open
            self.recorded.append(Was(number=self.session.number))
            yield self.session.number
            if request.fails:
                raise ValueError("read")


class SendHandler(SendStreamRequestHandler[Read, int]):
    def __init__(self, session: Session) -> None:
        self.session = session
        self.recorded: list[Any] = []

    @property
    def events(self) -> Any:
        return self.recorded

    async def handle(self, request: Read, results: Any) -> None:
        for _ in range(3):
            assert self.session.is_open
            self.recorded.append(Was(number=self.session.number))
            await results.send(self.session.number)
            if request.fails:
                raise ValueError("read")


class OnWas(EventHandler[Was]):
    def __init__(self, session: Session) -> None:
        self.session = session

    async def handle(self, event: Was) -> None:
        assert self.session.is_open
        self.session.log.append(f"event {event.number} in {self.session.number}")


class OtherHandler(RequestHandler[Other, None]):
    def __init__(self, session: Session) -> None:
        self.session = session

    async def handle(self, request: Other) -> None:
        self.session.log.append(f"other in {self.session.number}")


@pytest.fixture(params=["pull", "pipelined", "sent"])
def form(request: pytest.FixtureRequest) -> str:
    """How a stream is consumed, the handler yielding or sending."""
    value: str = request.param
    return value


class App:
    """A container with a scoped session, and mediators of it."""

    def __init__(self, form: str) -> None:
        Session.opened = 0
        self.form = form
        self.handler: Any = SendHandler if form == "sent" else ReadHandler
        log = Log()
        self.log = log.entries
        self.container = PlainContainer()
        self.container.register_instance(Log, log)
        self.container.register(Session, open_session, lifetime=Lifetime.SCOPED)

    def streaming(self, bound: Any = None, strategy: ScopeStrategy = ScopeStrategy.HANDLER) -> StreamingRequestMediator:
        requests, events = RequestMap(), EventMap()
        requests.bind(Read, bound or self.handler)
        events.bind(Was, OnWas)
        return StreamingRequestMediator(
            requests,
            self.container,
            event_map=events,
            concurrent_event_handle_enable=False,
            scope_strategy=strategy,
        )

    def sending(self) -> RequestMediator:
        requests = RequestMap()
        requests.bind(Other, OtherHandler)
        return RequestMediator(requests, self.container)

    @asynccontextmanager
    async def opened(self, mediator: StreamingRequestMediator, **fields: Any) -> AsyncIterator[Any]:
        stream = mediator.stream(Read(**fields))
        async with aclosing(stream) if self.form == "pull" else stream as results:  # type: ignore[attr-defined]
            yield results

    def first(self, prefix: str) -> list[Any]:
        return [entry for entry in self.log if entry.startswith(prefix)]


@pytest.fixture
def app(form: str) -> App:
    """An application whose handlers share nothing but a container."""
    return App(form)


async def test_the_handlers_scope_is_open_as_long_as_the_stream(app: App) -> None:
    """It is closed once, after the last result, and event handlers have scopes of their own."""
    async with app.opened(app.streaming()) as results:
        taken = [x async for x in results]
    assert taken == [1, 1, 1]
    assert app.first("event") == ["event 1 in 2", "event 1 in 3", "event 1 in 4"]
    assert app.log[0] == "open 1"
    assert app.log[-1] == "close 1"
    assert len(app.first("close")) == len(app.first("open")) == 4


async def test_one_scope_for_the_stream_and_its_events(app: App) -> None:
    """Under SEND all share one session."""
    async with app.opened(app.streaming(strategy=ScopeStrategy.SEND)) as results:
        assert [x async for x in results] == [1, 1, 1]
    assert app.log == ["open 1", "event 1 in 1", "event 1 in 1", "event 1 in 1", "close 1"]


@pytest.mark.parametrize("strategy", list(ScopeStrategy))
async def test_leaving_early_closes_the_scope(app: App, strategy: ScopeStrategy) -> None:
    """Left by break, every scope is closed when the block is left, its clean-up in full."""
    async with app.opened(app.streaming(strategy=strategy)) as results:
        async for _ in results:
            break
    assert app.log[-1] == "close 1"
    assert len(app.first("close")) == Session.opened


@pytest.mark.parametrize("strategy", list(ScopeStrategy))
async def test_a_failure_is_told_to_the_scopes_resources(app: App, strategy: ScopeStrategy) -> None:
    """The session of a failed handler is rolled back, those of event handlers that succeeded are not."""
    with pytest.raises(ValueError, match="read"):
        async with app.opened(app.streaming(strategy=strategy), fails=True) as results:
            async for _ in results:
                pass
    assert app.log[-2:] == ["failed ValueError", "close 1"]
    assert len(app.first("failed")) == 1


@pytest.mark.parametrize("strategy", list(ScopeStrategy))
async def test_cancellation_closes_the_scope(app: App, streams: Any, way: str, strategy: ScopeStrategy) -> None:
    """However the consumer is cancelled, in its own body, the scope is closed in full."""
    reached = anyio.Event()

    async def consume() -> None:
        async with app.opened(app.streaming(strategy=strategy)) as results:
            async for _ in results:
                reached.set()
                await anyio.sleep_forever()

    async with streams.no_task_left():
        await streams.cancel(way, consume, reached)
    assert app.log[-1] == "close 1"
    assert len(app.first("close")) == Session.opened


async def test_an_abandoned_stream_closes_its_scope(app: App, streams: Any) -> None:
    """Left by break in an entered mediator, the scope is closed in the mediator's task group."""
    if app.form == "pipelined":
        pytest.skip("a block is never abandoned")
    mediator = app.streaming()
    async with mediator, streams.no_task_left():
        async for _ in mediator.stream(Read()):
            break
        await streams.spin()
        assert app.log[-1] == "close 1"


@pytest.mark.parametrize("strategy", list(ScopeStrategy))
async def test_a_send_in_the_loops_body_has_a_scope_of_its_own(app: App, strategy: ScopeStrategy) -> None:
    """A stream's scope does not leak to its consumer."""
    sender = app.sending()
    async with app.opened(app.streaming(strategy=strategy)) as results:
        async for number in results:
            before = len(app.first("open"))
            await sender.send(Other())
            assert number == 1
            if app.form == "pull":
                assert app.log[-3:] == [f"open {before + 1}", f"other in {before + 1}", f"close {before + 1}"]
    assert not [entry for entry in app.first("other") if entry.endswith(" 1")]
    assert len(app.first("other")) == 3


async def test_two_streams_at_once_have_two_sessions(app: App) -> None:
    """Streams that are consumed in turns share nothing."""
    mediator = app.streaming(strategy=ScopeStrategy.SEND)
    async with app.opened(mediator) as left, app.opened(mediator) as right:
        for _ in range(3):
            assert {await anext(left), await anext(right)} == {1, 2}
    assert sorted(app.first("close")) == ["close 1", "close 2"]


async def test_a_fallback_has_a_scope_of_its_own(app: App) -> None:
    """The fallback does not inherit the session of the primary that failed."""

    class Second(ReadHandler):
        async def handle(self, request: Read) -> AsyncIterator[int]:
            assert self.session.is_open
            yield self.session.number * 100

    bound = RequestHandlerFallback(app.handler, Second)
    stream = app.streaming(bound, ScopeStrategy.HANDLER).stream(Read(fails=True))
    async with aclosing(stream) if app.form == "pull" else stream as results:
        taken = [x async for x in results]
    assert taken == [1, 300]
    assert app.log.index("close 1") < app.log.index("open 3")
    assert len(app.first("close")) == Session.opened


async def test_no_scope_is_opened_for_a_handler_that_needs_none(streams: Any) -> None:
    """A handler without scoped dependencies comes from the container itself."""

    class Counting(PlainContainer):
        scopes = 0

        def scope(self) -> Any:
            Counting.scopes += 1
            return super().scope()

    mediator = streams.mediator(streams.numbers(), container=Counting())
    assert [x async for x in mediator.stream(streams.Count())] == [0, 1, 2]
    assert Counting.scopes == 0
