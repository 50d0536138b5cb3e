"""EventMediator: events that came in, and all that follows from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs import EventFailurePolicy, ScopeStrategy
from cqrs.dispatcher.event import EventDispatcher
from cqrs.exceptions import ConfigurationError
from cqrs.message_brokers import Message, MessageBroker


class CameIn(cqrs.NotificationEvent[str]):
    pass


class Follows(cqrs.DomainEvent):
    name: str


class GoesOut(cqrs.NotificationEvent[str]):
    pass


class Broker(MessageBroker):
    def __init__(self) -> None:
        self.names: list[str] = []

    async def send_message(self, message: Message) -> None:
        self.names.append(message.message_name)


def came_in() -> CameIn:
    return CameIn(event_name="came in", payload="p")


def mediator(told: list[str], follows: int = 1, **options: Any) -> cqrs.EventMediator:
    class OnCameIn(cqrs.EventHandler[CameIn]):
        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return [*(Follows(name=str(n)) for n in range(follows)), GoesOut(event_name="out", payload="p")]

        async def handle(self, event: CameIn) -> None:
            told.append("came in")

    class OnFollows(cqrs.EventHandler[Follows]):
        async def handle(self, event: Follows) -> None:
            told.append(f"follows {event.name}")
            await checkpoint()

    events = cqrs.EventMap()
    events.bind(CameIn, OnCameIn)
    events.bind(Follows, OnFollows)
    return cqrs.EventMediator(events, cqrs.PlainContainer(), **options)


@pytest.mark.parametrize("method", ["send", "emit"])
async def test_an_event_and_all_that_follows_is_handled(method: str) -> None:
    """send(), and emit() likewise, tells the handlers of an event and of what follows; the rest goes out."""
    told, broker = list[str](), Broker()
    await getattr(mediator(told, message_broker=broker), method)(came_in())
    assert told == ["came in", "follows 0"]
    assert broker.names == ["GoesOut"]


async def test_an_event_that_nobody_handles_does_not_go_back_to_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    """An event that came in and has no handler is dropped with a warning: sent out, it would come in again for ever."""
    broker = Broker()
    await mediator([], message_broker=broker).send(GoesOut(event_name="out", payload="p"))
    assert broker.names == []
    assert "Handlers for event GoesOut not found" in caplog.text


async def test_without_a_broker_what_would_go_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A notification event that follows, without handler and broker, is dropped with a warning."""
    told: list[str] = []
    await mediator(told).send(came_in())
    assert told == ["came in", "follows 0"]
    assert "Handlers for event GoesOut not found" in caplog.text


async def test_events_are_handled_concurrently_where_asked() -> None:
    """With concurrency enabled, events that follow are handled side by side, up to the limit."""
    arrived, both = 0, anyio.Event()

    class OnCameIn(cqrs.EventHandler[CameIn]):
        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return [Follows(name="1"), Follows(name="2")]

        async def handle(self, event: CameIn) -> None:
            await checkpoint()

    class Meets(cqrs.EventHandler[Follows]):
        async def handle(self, event: Follows) -> None:
            nonlocal arrived
            arrived += 1
            if arrived == 2:
                both.set()
            await both.wait()

    events = cqrs.EventMap()
    events.bind(CameIn, OnCameIn)
    events.bind(Follows, Meets)
    subject = cqrs.EventMediator(
        events, cqrs.PlainContainer(), max_concurrent_event_handlers=2, concurrent_event_handle_enable=True
    )
    with anyio.fail_after(5):
        await subject.send(came_in())
    assert arrived == 2


class Documented(EventDispatcher):
    """With the documented constructor and nothing more."""

    seen: list[Any] = []

    def __init__(self, event_map: Any, container: Any, middleware_chain: Any = None) -> None:
        super().__init__(event_map, container, middleware_chain)

    async def dispatch(self, event: Any) -> None:
        self.seen.append(event)
        await super().dispatch(event)


class PassingOn(Documented):
    """Takes whatever there is, and passes it on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        EventDispatcher.__init__(self, *args, **kwargs)


class Unlike:
    """No EventDispatcher at all."""

    seen: list[Any] = []

    def __init__(self, event_map: Any, container: Any, middleware_chain: Any = None) -> None:
        pass

    async def dispatch(self, event: Any) -> None:
        self.seen.append(event)


@pytest.mark.parametrize("dispatcher_type", [Documented, PassingOn, Unlike])
async def test_a_custom_dispatcher_is_honoured(dispatcher_type: Any) -> None:
    """A dispatcher of the application's own is given every event."""
    dispatcher_type.seen, event = [], came_in()
    await mediator([], dispatcher_type=dispatcher_type).send(event)
    assert dispatcher_type.seen == [event]


async def test_a_custom_dispatcher_is_given_the_options_that_it_takes() -> None:
    """A dispatcher whose constructor passes on what it is given gets the mediator's options."""
    told, broker, reported = list[str](), Broker(), list[Exception]()
    subject = mediator(
        told,
        dispatcher_type=PassingOn,
        message_broker=broker,
        event_failure_policy=EventFailurePolicy.ISOLATE,
        on_event_error=lambda _, error: reported.append(error),
    )
    await subject.send(came_in())
    assert broker.names == ["GoesOut"]


@pytest.mark.parametrize("strategy", list(ScopeStrategy))
async def test_scopes_of_event_handlers(strategy: ScopeStrategy) -> None:
    """HANDLER opens a scope for each event handler, SEND one for the event and all that follows from it."""
    log: list[str] = []

    class Plain:
        async def resolve(self, type_: type[Any]) -> Any:
            return type_()

    class Container(Plain):
        def needs_scope(self, type_: type[Any]) -> bool:
            return True

        @asynccontextmanager
        async def scope(self) -> AsyncIterator[Any]:
            log.append("open")
            yield Plain()
            log.append("close")

    events = cqrs.EventMap()

    class OnCameIn(cqrs.EventHandler[CameIn]):
        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return [Follows(name="x")]

        async def handle(self, event: CameIn) -> None:
            log.append("came in")

    class OnFollows(cqrs.EventHandler[Follows]):
        async def handle(self, event: Follows) -> None:
            log.append("follows")

    events.bind(CameIn, OnCameIn)
    events.bind(Follows, OnFollows)
    await cqrs.EventMediator(events, Container(), scope_strategy=strategy).send(came_in())  # type: ignore[arg-type]
    apart = ["open", "came in", "close", "open", "follows", "close"]
    together = ["open", "came in", "follows", "close"]
    assert log == (apart if strategy is ScopeStrategy.HANDLER else together)


def test_one_scope_for_concurrent_handlers_is_refused() -> None:
    """ScopeStrategy.SEND with concurrent event handlers is an error of configuration."""
    with pytest.raises(ConfigurationError, match="concurrent_event_handle_enable=False"):
        mediator([], concurrent_event_handle_enable=True, scope_strategy=ScopeStrategy.SEND)
