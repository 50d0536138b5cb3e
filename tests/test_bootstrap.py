"""Mediators set up in one call."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

import cqrs
from cqrs import EventFailurePolicy, ScopeStrategy
from cqrs.events import bootstrap as events_bootstrap
from cqrs.exceptions import ConfigurationError, MiddlewareTypeError
from cqrs.message_brokers import Message, MessageBroker
from cqrs.middlewares.logging import LoggingMiddleware
from cqrs.requests import bootstrap


class Command(cqrs.Request):
    name: str = "c"


class Query(cqrs.Request):
    name: str = "q"


class Done(cqrs.DomainEvent):
    name: str


class Notice(cqrs.NotificationEvent[str]):
    pass


class CommandHandler(cqrs.RequestHandler[Command, str]):
    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return [Done(name="d"), Notice(event_name="n", payload="p")]

    async def handle(self, request: Command) -> str:
        return "commanded"


class QueryHandler(cqrs.RequestHandler[Query, str]):
    async def handle(self, request: Query) -> str:
        return "queried"


class DoneHandler(cqrs.EventHandler[Done]):
    handled: list[str] = []

    async def handle(self, event: Done) -> None:
        self.handled.append(event.name)


class Broker(MessageBroker):
    def __init__(self) -> None:
        self.names: list[str] = []

    async def send_message(self, message: Message) -> None:
        self.names.append(message.message_name)


class Resolving:
    """The least that a container can be."""

    def __init__(self) -> None:
        self.resolved: list[str] = []

    async def resolve(self, type_: type[Any]) -> Any:
        self.resolved.append(type_.__name__)
        return type_()


@pytest.fixture(autouse=True)
def forget() -> None:
    DoneHandler.handled.clear()


def commands(mapper: cqrs.RequestMap) -> None:
    mapper.bind(Command, CommandHandler)


def queries(mapper: cqrs.RequestMap) -> None:
    mapper.bind(Query, QueryHandler)


def events(mapper: cqrs.EventMap) -> None:
    mapper.bind(Done, DoneHandler)


async def test_everything_given_is_used() -> None:
    """Commands, queries, events, broker and start-up functions each do their part."""
    broker, started, container = Broker(), list[str](), Resolving()
    mediator = bootstrap.bootstrap(
        di_container=container,
        message_broker=broker,
        commands_mapper=commands,
        queries_mapper=queries,
        domain_events_mapper=events,
        on_startup=[lambda: started.append("a"), lambda: started.append("b")],
    )
    assert isinstance(mediator, cqrs.RequestMediator)
    assert started == ["a", "b"]
    assert await mediator.send(Command()) == "commanded"
    assert await mediator.send(Query()) == "queried"
    assert DoneHandler.handled == ["d"]
    assert broker.names == ["Notice"]
    assert container.resolved == ["CommandHandler", "DoneHandler", "QueryHandler"]


async def test_start_up_comes_before_the_mappers() -> None:
    """What start-up prepares is there when the mappers run, and each mapper runs once."""
    order: list[str] = []
    for make, kinds in (
        (bootstrap.bootstrap, ("commands_mapper", "queries_mapper", "domain_events_mapper")),
        (bootstrap.bootstrap_streaming, ("commands_mapper", "queries_mapper", "domain_events_mapper")),
        (events_bootstrap.bootstrap, ("events_mapper",)),
    ):
        order.clear()

        def noting(kind: str) -> Callable[[Any], None]:
            return lambda _: order.append(kind)

        make(on_startup=[lambda: order.append("start")], **{kind: noting(kind) for kind in kinds})  # type: ignore[operator]
        assert order[0] == "start"
        assert sorted(order[1:]) == sorted(kinds)


async def test_without_a_container_handlers_are_made_from_their_constructors() -> None:
    """No container at all is enough for handlers without registered dependencies; without a broker, none is needed."""
    mediator = bootstrap.bootstrap(commands_mapper=commands, domain_events_mapper=events)
    assert await mediator.send(Command()) == "commanded"
    assert DoneHandler.handled == ["d"]


async def test_a_container_of_di_is_adapted() -> None:
    """A bare container of ``di`` is wrapped, in every bootstrap."""
    di = pytest.importorskip("di")
    mediator = bootstrap.bootstrap(di.Container(), commands_mapper=commands, domain_events_mapper=events)
    assert await mediator.send(Command()) == "commanded"
    told = events_bootstrap.bootstrap(di.Container(), events_mapper=events)
    await told.send(Done(name="x"))
    assert DoneHandler.handled == ["d", "x"]


async def test_a_container_of_dishka_is_adapted() -> None:
    """A bare container of ``dishka`` is wrapped."""
    dishka = pytest.importorskip("dishka")
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(CommandHandler)
    container = dishka.make_async_container(provider, lock_factory=anyio.Lock)
    mediator = bootstrap.bootstrap(container, commands_mapper=commands)
    assert await mediator.send(Command()) == "commanded"


async def test_a_container_of_dependency_injector_is_adapted() -> None:
    """A bare container of ``dependency-injector`` is wrapped."""
    containers = pytest.importorskip("dependency_injector.containers")
    providers = pytest.importorskip("dependency_injector.providers")

    class Container(containers.DeclarativeContainer):  # type: ignore[name-defined,misc]
        handler = providers.Factory(CommandHandler)

    mediator = bootstrap.bootstrap(Container(), commands_mapper=commands)
    assert await mediator.send(Command()) == "commanded"


@pytest.mark.parametrize("make", [bootstrap.bootstrap, bootstrap.bootstrap_streaming, events_bootstrap.bootstrap])
def test_what_cannot_resolve_is_refused(make: Any) -> None:
    """Anything else than a container is an error of configuration that says what a container is."""
    with pytest.raises(ConfigurationError, match="resolve"):
        make(object())


@pytest.mark.parametrize("make", [bootstrap.bootstrap, bootstrap.bootstrap_streaming, events_bootstrap.bootstrap])
def test_a_middleware_that_is_none_is_refused(make: Any) -> None:
    """A class, or what cannot be called, in place of a middleware is refused at once."""
    for wrong in (LoggingMiddleware, "middleware"):
        with pytest.raises(MiddlewareTypeError):
            make(middlewares=[wrong])


def noting(log: list[str]) -> Callable[..., Any]:
    async def middleware(message: Any, handle: Callable[[Any], Any]) -> Any:
        log.append(type(message).__name__)
        return await handle(message)

    return middleware


async def test_middlewares_run_around_requests_and_events() -> None:
    """The middlewares of every bootstrap run, around request and event handlers."""
    log: list[str] = []
    mediator = bootstrap.bootstrap(middlewares=[noting(log)], commands_mapper=commands, domain_events_mapper=events)
    await mediator.send(Command())
    assert log == ["Command", "Done"]
    log.clear()
    await events_bootstrap.bootstrap(middlewares=[noting(log)], events_mapper=events).send(Done(name="x"))
    assert log == ["Done"]


async def test_middlewares_run_around_streams() -> None:
    """The middlewares of the streaming bootstrap run around the stream and around event handlers."""
    log: list[str] = []

    class Streams(cqrs.StreamingRequestHandler[Command, str]):
        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return [Done(name="s")]

        async def handle(self, request: Command) -> Any:
            yield "one"

    mediator = bootstrap.bootstrap_streaming(
        middlewares=[noting(log)],
        commands_mapper=lambda mapper: mapper.bind(Command, Streams),
        domain_events_mapper=events,
    )
    assert [item async for item in mediator.stream(Command())] == ["one"]
    assert log[:2] == ["Command", "Done"]
    assert DoneHandler.handled[0] == "s"


async def test_logging_is_added_once_and_innermost(caplog: pytest.LogCaptureFixture) -> None:
    """A logging middleware is added where there is none, inside the others; the caller's list stays as it is."""
    caplog.set_level(logging.DEBUG, "cqrs")
    log: list[str] = []
    given: list[Any] = [noting(log)]
    await bootstrap.bootstrap(middlewares=given, queries_mapper=queries).send(Query())
    once = len(caplog.records)
    assert once > 0
    assert len(given) == 1
    caplog.clear()
    await bootstrap.bootstrap(middlewares=[LoggingMiddleware()], queries_mapper=queries).send(Query())
    assert len(caplog.records) == once


async def test_the_options_of_the_mediator_reach_it() -> None:
    """Failure policy, hook, limit and scope strategy given to a bootstrap are the mediator's."""
    reported: list[Exception] = []

    class Fails(cqrs.EventHandler[Done]):
        async def handle(self, event: Done) -> None:
            raise KeyError(event.name)

    def bind(mapper: cqrs.EventMap) -> None:
        mapper.bind(Done, Fails)

    options: dict[str, Any] = {
        "event_failure_policy": EventFailurePolicy.ISOLATE,
        "on_event_error": lambda _, error: reported.append(error),
        "scope_strategy": ScopeStrategy.HANDLER,
        "max_concurrent_event_handlers": 4,
        "concurrent_event_handle_enable": True,
    }
    await bootstrap.bootstrap(commands_mapper=commands, domain_events_mapper=bind, **options).send(Command())
    await events_bootstrap.bootstrap(events_mapper=bind, **options).send(Done(name="x"))
    assert [error.args for error in reported] == [("d",), ("x",)]


@pytest.mark.parametrize("make", [bootstrap.bootstrap, bootstrap.bootstrap_streaming, events_bootstrap.bootstrap])
def test_wrong_options_are_refused(make: Any) -> None:
    """One scope for concurrent handlers, and a limit below one, are refused at bootstrap."""
    with pytest.raises(ConfigurationError, match="concurrent_event_handle_enable=False"):
        make(scope_strategy=ScopeStrategy.SEND, concurrent_event_handle_enable=True)
    with pytest.raises(ConfigurationError, match="at least 1"):
        make(max_concurrent_event_handlers=0)
    make(scope_strategy=ScopeStrategy.SEND)


def test_documented_defaults() -> None:
    """The defaults are the documented ones: one event after the other, limit 1, and 10 for streams."""
    for function, limit in (
        (bootstrap.bootstrap, 1),
        (bootstrap.bootstrap_streaming, 10),
        (events_bootstrap.bootstrap, 1),
    ):
        parameters = inspect.signature(function).parameters
        assert parameters["max_concurrent_event_handlers"].default == limit
        assert parameters["concurrent_event_handle_enable"].default is False


async def test_the_parts_can_be_put_together_by_hand() -> None:
    """setup_event_emitter and setup_mediator give what bootstrap gives, with a broker and middlewares of one's own."""
    broker, container = Broker(), Resolving()
    emitter = bootstrap.setup_event_emitter(container, events, broker)
    mediator = bootstrap.setup_mediator(emitter, container, [], commands, queries)
    assert await mediator.send(Command()) == "commanded"
    assert (DoneHandler.handled, broker.names) == (["d"], ["Notice"])
    told = events_bootstrap.setup_mediator(container, [], events)
    await told.send(Done(name="by hand"))
    assert DoneHandler.handled == ["d", "by hand"]


async def test_an_emitter_of_ones_own_kind_can_be_put_in() -> None:
    """setup_mediator takes a subclass of EventEmitter, whose emit is used."""
    emitted: list[Any] = []

    class Own(cqrs.EventEmitter):
        async def emit(self, event: cqrs.IEvent) -> Sequence[cqrs.IEvent]:
            emitted.append(type(event))
            return ()

    container: Any = Resolving()
    mediator = bootstrap.setup_mediator(Own(cqrs.EventMap(), container), container, [], commands)
    await mediator.send(Command())
    assert emitted == [Done, Notice]


def test_a_mediator_may_be_made_outside_of_a_loop() -> None:
    """Bootstrapping needs no running event loop, and the mediator serves the loop that comes later."""
    mediator = bootstrap.bootstrap(
        commands_mapper=commands, domain_events_mapper=events, concurrent_event_handle_enable=True
    )
    assert anyio.run(mediator.send, Command()) == "commanded"
