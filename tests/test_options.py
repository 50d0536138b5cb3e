"""Options that cannot be what they are given are refused where they are given."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import tenacity

import cqrs
from cqrs.container.plain import Lifetime, PlainContainer
from cqrs.exceptions import ConfigurationError, EventTypeError, InvalidOptionError
from cqrs.middlewares.retry import RetryMiddleware
from cqrs.requests.bootstrap import bootstrap, bootstrap_streaming


class Do(cqrs.Request[None]):
    """Records ``what``."""

    what: Any = None


class DoHandler(cqrs.RequestHandler[Do, None]):
    """Records what it is asked to."""

    def __init__(self) -> None:
        self._events: list[Any] = []

    @property
    def events(self) -> list[Any]:
        return self._events

    async def handle(self, request: Do) -> None:
        self._events += request.what or []


class Done(cqrs.DomainEvent):
    """Something was done."""

    number: int = 0


class FailingHandler(cqrs.EventHandler[Done]):
    """Fails."""

    async def handle(self, event: Done) -> None:
        raise LookupError(event.number)


def _commands(mapper: cqrs.RequestMap) -> None:
    mapper.bind(Do, DoHandler)


def _events(mapper: cqrs.EventMap) -> None:
    mapper.bind(Done, FailingHandler)


@pytest.mark.parametrize("policy", ["cancel", "wait"])
async def test_a_setting_names_a_policy(policy: Any) -> None:
    """The value of an enum's member, as settings have it, is that member, and no failure is swallowed."""
    mediator = bootstrap(commands_mapper=_commands, domain_events_mapper=_events, event_failure_policy=policy)
    with pytest.raises(LookupError):
        await mediator.send(Do(what=[Done()]))


@pytest.mark.parametrize(
    "options",
    [
        {"event_failure_policy": "nonsense"},
        {"event_failure_policy": None},
        {"scope_strategy": "handlers"},
        {"max_concurrent_event_handlers": 0},
        {"max_concurrent_event_handlers": 2.5},
        {"max_concurrent_event_handlers": "3"},
        {"on_event_error": 5},
        {"message_broker": cqrs.InMemoryMessageBroker},
        {"message_broker": object()},
    ],
)
@pytest.mark.parametrize("set_up", [bootstrap, bootstrap_streaming])
def test_what_an_option_cannot_be_is_refused(set_up: Any, options: dict[str, Any]) -> None:
    """At bootstrap, with the option and what it can be in the error."""
    with pytest.raises(InvalidOptionError, match=next(iter(options)).removeprefix("event_").removeprefix("on_event_")):
        set_up(**options)


def test_a_scope_strategy_given_by_its_value_is_checked_like_itself() -> None:
    """``"send"`` is refused with concurrency, as ``ScopeStrategy.SEND`` is."""
    strategy: Any = "send"
    with pytest.raises(ConfigurationError, match="concurrent"):
        bootstrap(scope_strategy=strategy, concurrent_event_handle_enable=True)


def test_a_class_is_no_container() -> None:
    """The error says to pass an instance."""
    with pytest.raises(ConfigurationError, match="instance"):
        bootstrap(PlainContainer)


def test_async_functions_are_no_part_of_a_bootstrap() -> None:
    """They would never be awaited: refused, and closed without a warning."""

    async def later(*_: object) -> None: ...

    mapper: Any = later
    with pytest.raises(ConfigurationError, match="async"):
        bootstrap(on_startup=[later])
    with pytest.raises(ConfigurationError, match="async"):
        bootstrap(commands_mapper=mapper)


def test_a_buffer_has_no_negative_size() -> None:
    """Said when the stream is asked for."""
    streaming = bootstrap_streaming(commands_mapper=lambda mapper: mapper.bind(Do, Streaming))
    with pytest.raises(InvalidOptionError, match="max_buffer_size"):
        streaming.stream(Do(), max_buffer_size=-1)


class Streaming(cqrs.StreamingRequestHandler[Do, None]):
    """Streams nothing."""

    async def handle(self, request: Do) -> Any:
        return
        yield


@pytest.mark.parametrize("recorded", [{"number": 1}, Done])
async def test_what_is_no_event_is_not_lost(recorded: Any) -> None:
    """Recording a dictionary, or an event's class, is an error."""
    mediator = bootstrap(commands_mapper=_commands)
    with pytest.raises(EventTypeError):
        await mediator.send(Do(what=[recorded]))


async def test_a_request_class_is_told_from_its_instance() -> None:
    """Sending the class says so."""
    request: Any = Do
    with pytest.raises(cqrs.exceptions.RequestHandlerDoesNotExist, match="instance"):
        await bootstrap(commands_mapper=_commands).send(request)


def test_a_handler_without_handle_is_refused() -> None:
    """A misspelt ``handle`` is found when the handler is bound."""

    class Misspelt(cqrs.RequestHandler[Do, None]):
        async def handel(self, request: Do) -> None: ...

    class MisspeltToo(cqrs.EventHandler[Done]):
        async def handel(self, event: Done) -> None: ...

    with pytest.raises(cqrs.exceptions.BindingError, match="does not implement handle"):
        cqrs.RequestMap().bind(Do, Misspelt)
    with pytest.raises(cqrs.exceptions.BindingError, match="does not implement handle"):
        cqrs.EventMap().bind(Done, MisspeltToo)


async def test_each_attempt_has_a_scope_of_its_own() -> None:
    """A retry works in a new session with a new handler; what the failed attempts did is rolled back."""
    sessions: list[list[str]] = []

    class Session(list[str]):
        pass

    async def open_session() -> Any:
        session = Session()
        sessions.append(session)
        try:
            yield session
        except BaseException:
            session.append("rolled back")
            raise
        session.append("committed")

    class Flaky(cqrs.RequestHandler[Do, None]):
        def __init__(self, session: Session) -> None:
            self._session = session

        async def handle(self, request: Do) -> None:
            self._session.append(f"attempt {len(sessions)}")
            await anyio.lowlevel.checkpoint()
            if len(sessions) < 3:
                raise OSError

    container = PlainContainer()
    container.register(Session, open_session, lifetime=Lifetime.SCOPED)
    retry = RetryMiddleware(attempts=3, wait=tenacity.wait_none())
    Flaky.__init__.__annotations__["session"] = Session
    await bootstrap(container, middlewares=[retry], commands_mapper=lambda mapper: mapper.bind(Do, Flaky)).send(Do())
    assert sessions == [["attempt 1", "rolled back"], ["attempt 2", "rolled back"], ["attempt 3", "committed"]]
