"""send() with every kind of handler: resolved once, in a scope that is open exactly as long as it should be."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs import ScopeStrategy
from cqrs.dispatcher.models import RequestDispatchResult
from cqrs.dispatcher.request import RequestDispatcher
from cqrs.events.event_emitter import EventEmitter
from cqrs.exceptions import ConfigurationError, RequestHandlerDoesNotExist, RequestHandlerTypeError
from cqrs.middlewares.base import MiddlewareChain

Log = list[str]


class Failed(Exception):
    pass


class Ask(cqrs.Request):
    text: str = "hello"
    fails: bool = False


class Answer(cqrs.Response):
    text: str


@dataclasses.dataclass(frozen=True)
class Happened(cqrs.DCDomainEvent):
    by: str


class Scope:
    """What is shared in a scope; it writes into the log when it is opened and closed."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.is_open = True


class Base:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.scope.log.append(f"made {type(self).__name__}")
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def work(self, event: bool = True) -> None:
        assert self.scope.is_open
        self.scope.log.append(f"run {type(self).__name__}")
        await checkpoint()
        assert self.scope.is_open
        if event:
            self._events.append(Happened(by=type(self).__name__))


class Single(Base, cqrs.RequestHandler[Ask, Answer]):
    async def handle(self, request: Ask) -> Answer:
        await self.work()
        if request.fails:
            raise Failed
        return Answer(text=f"{request.text} from Single")


class Broken(Base, cqrs.RequestHandler[Ask, Answer]):
    async def handle(self, request: Ask) -> Answer:
        await self.work()
        raise Failed


class First(Base, cqrs.CORRequestHandler[Ask, Answer]):
    async def handle(self, request: Ask) -> Answer | None:
        await self.work()
        return await self.next(request)


class Second(Base, cqrs.CORRequestHandler[Ask, Answer]):
    async def handle(self, request: Ask) -> Answer | None:
        await self.work()
        if request.fails:
            raise Failed
        return Answer(text=f"{request.text} from Second")


class OnHappened(Base, cqrs.EventHandler[Happened]):
    async def handle(self, event: Happened) -> None:
        await self.work(event=False)
        self.scope.log.append(f"told of {event.by}")


class CountingContainer:
    """A container without scopes that counts what it resolves."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.resolved: list[str] = []

    @property
    def external_container(self) -> None:
        return None

    def attach_external_container(self, container: Any) -> None:
        raise NotImplementedError

    async def resolve(self, type_: type[Any]) -> Any:
        await checkpoint()
        self.resolved.append(type_.__name__)
        return type_(Scope(self.log))


class Scoped(CountingContainer):
    """The same with scopes, each named by a number."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.opened = 0

    def needs_scope(self, type_: type[Any]) -> bool:
        return True

    @asynccontextmanager
    async def scope(self) -> AsyncIterator[Any]:
        self.opened += 1
        number, shared = self.opened, Scope(self.log)
        self.log.append(f"open {number}")
        try:
            yield _InScope(self, shared)
        except BaseException as error:
            self.log.append(f"{type(error).__name__} in {number}")
            raise
        finally:
            await checkpoint()
            shared.is_open = False
            self.log.append(f"close {number}")


@dataclasses.dataclass
class _InScope:
    container: Scoped
    shared: Scope

    async def resolve(self, type_: type[Any]) -> Any:
        self.container.resolved.append(type_.__name__)
        return type_(self.shared)


class Noting:
    """A middleware that writes into the log."""

    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name

    async def __call__(self, request: Any, handle: Callable[[Any], Any]) -> Any:
        self.log.append(f"{self.name} before")
        try:
            return await handle(request)
        finally:
            self.log.append(f"{self.name} after")


class Session:
    """Something that must not be shared by what runs at the same time."""


class KeepsSession(cqrs.RequestHandler[Ask, None]):
    def __init__(self, session: Session, kept: list) -> None:  # type: ignore[type-arg]
        self.session = session
        self.kept = kept

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return [Happened(by="x"), Happened(by="y")]

    async def handle(self, request: Ask) -> None:
        self.kept.append(self.session)
        await checkpoint()


class KeepsSessionToo(cqrs.EventHandler[Happened]):
    def __init__(self, session: Session, kept: list) -> None:  # type: ignore[type-arg]
        self.session = session
        self.kept = kept

    async def handle(self, event: Happened) -> None:
        self.kept.append(self.session)
        await checkpoint()


class Service:
    def __init__(self, name: str = "real") -> None:
        self.name = name


class AsksService(cqrs.RequestHandler[Ask, str]):
    def __init__(self, service: Service) -> None:
        self.service = service

    async def handle(self, request: Ask) -> str:
        return self.service.name


KINDS: dict[str, Any] = {
    "single": Single,
    "chain": [First, Second],
    "fallback": cqrs.RequestHandlerFallback(primary=Broken, fallback=Single),
    "unused fallback": cqrs.RequestHandlerFallback(primary=Single, fallback=Broken),
}
RUN = {
    "single": ["Single"],
    "chain": ["First", "Second"],
    "fallback": ["Broken", "Single"],
    "unused fallback": ["Single"],
}
PUBLISHED = {"single": ["Single"], "chain": ["First", "Second"], "fallback": ["Single"], "unused fallback": ["Single"]}
ANSWERED_BY = {"single": "Single", "chain": "Second", "fallback": "Single", "unused fallback": "Single"}

kinds = pytest.mark.parametrize("kind", list(KINDS))
strategies = pytest.mark.parametrize("strategy", list(ScopeStrategy))


def chain_of(middlewares: Iterable[Any]) -> MiddlewareChain:
    chain = MiddlewareChain()
    chain.set(middlewares)
    return chain


def mediator(
    kind: str,
    container: Any,
    strategy: ScopeStrategy = ScopeStrategy.HANDLER,
    middlewares: Sequence[Any] = (),
    **options: Any,
) -> cqrs.RequestMediator:
    requests, events = cqrs.RequestMap(), cqrs.EventMap()
    requests.bind(Ask, KINDS[kind])
    events.bind(Happened, OnHappened)
    return cqrs.RequestMediator(
        requests,
        container,
        middleware_chain=chain_of(middlewares),
        event_map=events,
        concurrent_event_handle_enable=strategy is ScopeStrategy.HANDLER,
        scope_strategy=strategy,
        **options,
    )


@kinds
@strategies
@pytest.mark.parametrize("is_scoped", [False, True])
@pytest.mark.parametrize("middlewares", [0, 2])
async def test_every_kind_answers_and_tells(
    kind: str, strategy: ScopeStrategy, is_scoped: bool, middlewares: int
) -> None:
    """Each handler that runs is resolved once a send, and the events of those that count are handled, in order."""
    if is_scoped and strategy is ScopeStrategy.SEND and "fallback" in kind:
        return  # refused: see test_scope_strategy.py
    log: Log = []
    container = Scoped(log) if is_scoped else CountingContainer(log)
    around = [Noting(log, str(number)) for number in range(middlewares)]
    subject = mediator(kind, container, strategy, around)
    for _ in range(2):
        log.clear()
        container.resolved.clear()
        answer = await subject.send(Ask(text="hi"))
        assert answer == Answer(text=f"hi from {ANSWERED_BY[kind]}")
        published = PUBLISHED[kind]
        assert container.resolved == [*RUN[kind], *["OnHappened"] * len(published)]
        assert [entry for entry in log if entry.startswith("run")] == [f"run {name}" for name in container.resolved]
        assert [entry for entry in log if entry.startswith("told")] == [f"told of {name}" for name in published]
        times = 2 if kind == "fallback" else 1
        assert log.count("0 before") == log.count("0 after") == (times if middlewares else 0)


@kinds
async def test_the_first_middleware_is_outermost(kind: str) -> None:
    """Middlewares run around the handler, or the chain as a whole, the first one outermost, and not around events."""
    log: Log = []
    await mediator(kind, CountingContainer(log), middlewares=[Noting(log, "a"), Noting(log, "b")]).send(Ask())
    once = ["a before", "b before", "b after", "a after"]
    marks = [entry for entry in log if entry in once]
    assert marks == (once * 2 if kind == "fallback" else once)
    assert log.index("told of " + PUBLISHED[kind][0]) > log.index("a after")


@kinds
async def test_a_handler_scope_is_closed_before_the_events(kind: str) -> None:
    """ScopeStrategy.HANDLER: a scope is closed when its handler is done, before events are handled in their own."""
    log: Log = []
    await mediator(kind, Scoped(log)).send(Ask())
    trace = [entry.split()[0] + " " + entry.split()[-1] for entry in log if not entry.startswith("made")]
    request = {
        "single": ["open 1", "run Single", "close 1"],
        "chain": ["open 1", "run First", "run Second", "close 1"],
        "fallback": ["open 1", "run Broken", "Failed 1", "close 1", "open 2", "run Single", "close 2"],
        "unused fallback": ["open 1", "run Single", "close 1"],
    }[kind]
    number = 2 if kind == "fallback" else 1
    events: list[str] = []
    for name in PUBLISHED[kind]:
        number += 1
        events += [f"open {number}", "run OnHappened", f"told {name}", f"close {number}"]
    assert trace == request + events


@pytest.mark.parametrize("kind", ["single", "chain"])
async def test_one_scope_is_closed_after_the_events(kind: str) -> None:
    """ScopeStrategy.SEND: one scope is opened for the request and all its events, and closed after them."""
    log: Log = []
    container = Scoped(log)
    await mediator(kind, container, ScopeStrategy.SEND).send(Ask())
    assert container.opened == 1
    assert log[0] == "open 1"
    assert log[-1] == "close 1"


@strategies
@pytest.mark.parametrize("kind", ["single", "chain"])
async def test_a_failure_closes_the_scope_and_is_told_to_it(kind: str, strategy: ScopeStrategy) -> None:
    """A scope is left with the exception of its handler, is closed, and no event of it is handled."""
    log: Log = []
    with pytest.raises(Failed):
        await mediator(kind, Scoped(log), strategy).send(Ask(fails=True))
    assert log[-2:] == ["Failed in 1", "close 1"]
    assert not any(entry.startswith("told") for entry in log)


async def test_a_failing_event_reaches_the_shared_scope() -> None:
    """ScopeStrategy.SEND: the failure of an event handler is told to the one scope, which can roll all back."""
    log: Log = []

    class Breaks(cqrs.EventHandler[Happened]):
        def __init__(self, scope: Scope) -> None:
            pass

        async def handle(self, event: Happened) -> None:
            raise Failed

    requests, events = cqrs.RequestMap(), cqrs.EventMap()
    requests.bind(Ask, Single)
    events.bind(Happened, Breaks)
    subject = cqrs.RequestMediator(
        requests,
        Scoped(log),
        event_map=events,
        concurrent_event_handle_enable=False,
        scope_strategy=ScopeStrategy.SEND,
    )
    with pytest.raises(Failed):
        await subject.send(Ask())
    assert log[-2:] == ["Failed in 1", "close 1"]


async def test_a_scope_that_cannot_be_closed_publishes_nothing() -> None:
    """When closing the handler's scope fails, as a commit does, send raises that and no event is handled."""
    log: Log = []

    class Uncommitted(Scoped):
        @asynccontextmanager
        async def scope(self) -> AsyncIterator[Any]:
            yield _InScope(self, Scope(self.log))
            raise Failed("commit")

    with pytest.raises(Failed, match="commit"):
        await mediator("single", Uncommitted(log)).send(Ask())
    assert log == ["made Single", "run Single"]


@pytest.mark.parametrize("outer", list(ScopeStrategy))
@pytest.mark.parametrize("inner", list(ScopeStrategy))
async def test_a_nested_send_has_a_scope_of_its_own(outer: ScopeStrategy, inner: ScopeStrategy) -> None:
    """A send inside a handler neither joins the scope of its caller nor leaves its own behind."""
    log: Log = []
    container = Scoped(log)
    below = mediator("single", container, inner)

    class Nests(Base, cqrs.RequestHandler[Ask, Answer]):
        async def handle(self, request: Ask) -> Answer:
            answer: Answer = await below.send(request)
            assert self.scope.is_open
            self.scope.log.append("nested is done")
            return answer

    requests = cqrs.RequestMap()
    requests.bind(Ask, Nests)
    await cqrs.RequestMediator(requests, container, scope_strategy=outer, concurrent_event_handle_enable=False).send(
        Ask()
    )
    nested_scopes = 2 if inner is ScopeStrategy.HANDLER else 1
    assert container.opened == 1 + nested_scopes
    done = log.index("nested is done")
    assert all(log.index(f"close {number}") < done for number in range(2, container.opened + 1))
    assert log.index("close 1") > done


async def test_scopes_of_concurrent_sends_are_apart() -> None:
    """Concurrent sends, and concurrent event handlers of one send, never share what is scoped."""
    container = cqrs.PlainContainer()
    container.register(Session, lifetime=cqrs.Lifetime.SCOPED)
    requests, events = cqrs.RequestMap(), cqrs.EventMap()
    requests.bind(Ask, KeepsSession)
    events.bind(Happened, KeepsSessionToo)
    kept: list[Session] = []
    container.register_instance(list, kept)
    subject = cqrs.RequestMediator(requests, container, event_map=events, max_concurrent_event_handlers=2)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(subject.send, Ask())
    assert len({id(session) for session in kept}) == len(kept) == 15


async def test_a_scope_is_opened_only_where_it_is_needed() -> None:
    """Handlers that need no scope are resolved from the container itself."""
    log: Log = []

    class Choosy(Scoped):
        def needs_scope(self, type_: type[Any]) -> bool:
            return type_ is OnHappened

    container = Choosy(log)
    await mediator("single", container).send(Ask())
    assert container.opened == 1
    assert log.index("open 1") > log.index("run Single")


async def test_a_later_override_is_honoured() -> None:
    """A binding that a test overrides after the first send counts from the next send on, needing a scope or not."""
    container, requests = cqrs.PlainContainer(), cqrs.RequestMap()
    requests.bind(Ask, AsksService)
    subject = cqrs.RequestMediator(requests, container)

    async def opened() -> AsyncIterator[Service]:
        yield Service("opened")

    assert await subject.send(Ask()) == "real"
    with container.override(Service, lambda: Service("stub")):
        assert await subject.send(Ask()) == "stub"
    assert await subject.send(Ask()) == "real"
    with container.override(Service, opened):
        assert await subject.send(Ask()) == "opened"
    assert await subject.send(Ask()) == "real"


async def test_an_unbound_request_is_refused_until_it_is_bound() -> None:
    """Without a handler send says what is bound; a handler bound later is used."""
    requests = cqrs.RequestMap()
    subject = cqrs.RequestMediator(requests, CountingContainer([]))
    with pytest.raises(RequestHandlerDoesNotExist, match="Ask"):
        await subject.send(Ask())
    requests.bind(Ask, Single)
    assert (await subject.send(Ask())).text == "hello from Single"


async def test_a_streaming_handler_is_refused() -> None:
    """send() of a request with a streaming handler says to use the streaming mediator."""

    class Streams(cqrs.StreamingRequestHandler[Ask, Answer]):
        async def handle(self, request: Ask) -> AsyncIterator[Answer]:
            yield Answer(text="")

    requests = cqrs.RequestMap()
    requests.bind(Ask, Streams)
    with pytest.raises(RequestHandlerTypeError, match="StreamingRequestMediator"):
        await cqrs.RequestMediator(requests, CountingContainer([])).send(Ask())


async def test_a_fallback_acts_for_the_listed_errors_only() -> None:
    """Errors that are not listed leave send, and the fallback is not even resolved."""
    requests, container = cqrs.RequestMap(), CountingContainer([])
    requests.bind(Ask, cqrs.RequestHandlerFallback(primary=Broken, fallback=Single, failure_exceptions=(KeyError,)))
    with pytest.raises(Failed):
        await cqrs.RequestMediator(requests, container).send(Ask())
    assert container.resolved == ["Broken"]


async def test_a_fallback_that_fails_has_the_first_failure_as_context() -> None:
    """When both fail, the error of the fallback leaves, and the primary's is its context."""

    class AlsoBroken(Base, cqrs.RequestHandler[Ask, Answer]):
        async def handle(self, request: Ask) -> Answer:
            raise KeyError("second")

    requests = cqrs.RequestMap()
    requests.bind(Ask, cqrs.RequestHandlerFallback(primary=Broken, fallback=AlsoBroken))
    with pytest.raises(KeyError) as caught:
        await cqrs.RequestMediator(requests, CountingContainer([])).send(Ask())
    assert isinstance(caught.value.__context__, Failed)


async def test_a_fallback_asks_its_circuit_breaker() -> None:
    """The primary runs under the breaker, known by its class; while the circuit is open only the fallback runs."""

    class Open(Exception):
        pass

    class Breaker:
        is_open = False

        def __init__(self) -> None:
            self.called: list[Any] = []

        async def call(self, identifier: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self.called.append(identifier)
            if self.is_open:
                raise Open
            return await func(*args, **kwargs)

        def is_circuit_breaker_error(self, exc: Exception) -> bool:
            return isinstance(exc, Open)

    log: Log = []
    breaker, requests = Breaker(), cqrs.RequestMap()
    requests.bind(
        Ask,
        cqrs.RequestHandlerFallback(
            primary=Broken, fallback=Single, failure_exceptions=(KeyError,), circuit_breaker=breaker
        ),
    )
    subject = cqrs.RequestMediator(requests, CountingContainer(log))
    with pytest.raises(Failed):
        await subject.send(Ask())
    breaker.is_open = True
    log.clear()
    assert (await subject.send(Ask())).text == "hello from Single"
    assert breaker.called == [Broken, Broken]
    assert "run Broken" not in log


async def test_a_custom_dispatcher_is_honoured() -> None:
    """A dispatcher of the application's own, with the documented constructor, dispatches; its events are handled."""
    log: Log = []
    dispatched: list[Any] = []

    class Own(RequestDispatcher):
        def __init__(self, request_map: Any, container: Any, middleware_chain: Any = None) -> None:
            super().__init__(request_map=request_map, container=container, middleware_chain=middleware_chain)

        async def dispatch(self, request: Any) -> RequestDispatchResult[Any]:
            dispatched.append(request)
            result = await super().dispatch(request)
            return RequestDispatchResult(result.response, [*result.events, Happened(by="Own")])

    request = Ask()
    answer = await mediator("single", CountingContainer(log), dispatcher_type=Own).send(request)
    assert answer.text == "hello from Single"
    assert dispatched == [request]
    assert [entry for entry in log if entry.startswith("told")] == ["told of Single", "told of Own"]


@pytest.mark.parametrize("is_subclass", [False, True])
@pytest.mark.parametrize("is_concurrent", [False, True])
async def test_a_custom_emitter_is_honoured(is_subclass: bool, is_concurrent: bool) -> None:
    """An emitter of the application's own, derived or not, is told of every event and its follow-ups are emitted."""
    emitted: list[str] = []

    async def emit(_: Any, event: Any) -> Sequence[cqrs.IEvent] | None:
        emitted.append(event.by)
        await checkpoint()
        return [Happened(by="follow-up")] if event.by == "Single" else None

    container = CountingContainer([])
    if is_subclass:
        emitter: Any = type("Own", (EventEmitter,), {"emit": emit})(cqrs.EventMap(), container)
    else:
        emitter = type("Own", (), {"emit": emit})()
    requests = cqrs.RequestMap()
    requests.bind(Ask, Single)
    subject = cqrs.RequestMediator(
        requests,
        container,
        emitter,
        event_map=cqrs.EventMap(),
        max_concurrent_event_handlers=2,
        concurrent_event_handle_enable=is_concurrent,
    )
    await subject.send(Ask())
    assert emitted == ["Single", "follow-up"]


async def test_events_without_an_emitter_are_not_dropped_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    """A mediator that has neither emitter nor event map says in the log that it drops events."""
    requests = cqrs.RequestMap()
    requests.bind(Ask, Single)
    await cqrs.RequestMediator(requests, CountingContainer([])).send(Ask())
    assert "1 events were dropped" in caplog.text


async def test_events_bound_after_the_mediator_was_made_are_handled() -> None:
    """An event map that is still empty when the mediator is made can be filled later."""
    log: Log = []
    requests, events = cqrs.RequestMap(), cqrs.EventMap()
    requests.bind(Ask, Single)
    subject = cqrs.RequestMediator(requests, CountingContainer(log), event_map=events)
    await subject.send(Ask())
    events.bind(Happened, OnHappened)
    await subject.send(Ask())
    assert log.count("told of Single") == 1


def test_one_scope_for_concurrent_handlers_is_refused() -> None:
    """ScopeStrategy.SEND with concurrent event handlers is an error of configuration."""
    with pytest.raises(ConfigurationError, match="concurrent_event_handle_enable=False"):
        cqrs.RequestMediator(cqrs.RequestMap(), CountingContainer([]), scope_strategy=ScopeStrategy.SEND)


async def test_dataclass_and_custom_messages_pass() -> None:
    """Requests and responses that are dataclasses, or implement the interfaces themselves, are sent like any other."""

    @dataclasses.dataclass
    class Sum(cqrs.DCRequest):
        numbers: list[int]

    @dataclasses.dataclass
    class Total(cqrs.DCResponse):
        total: int

    class Custom(cqrs.IRequest):
        def to_dict(self) -> dict[str, Any]:
            return {}

        @classmethod
        def from_dict(cls, **kwargs: Any) -> Custom:
            return cls()

    class Sums(cqrs.RequestHandler[Sum, Total]):
        async def handle(self, request: Sum) -> Total:
            return Total(sum(request.numbers))

    class Customs(cqrs.RequestHandler[Custom, None]):
        async def handle(self, request: Custom) -> None:
            return None

    requests = cqrs.RequestMap()
    requests.bind(Sum, Sums)
    requests.bind(Custom, Customs)
    subject = cqrs.RequestMediator(requests, cqrs.PlainContainer())
    assert await subject.send(Sum([1, 2, 3])) == Total(6)
    assert await subject.send(Custom()) is None
