"""Who is told of which event: handlers in this process, or the message broker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import cqrs
from cqrs.events.event_emitter import HandlerEmitter, message_of
from cqrs.events.event_processor import EventProcessor
from cqrs.message_brokers import Message, MessageBroker
from cqrs.middlewares.base import MiddlewareChain

told: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    told.clear()


class Opened(cqrs.DomainEvent):
    name: str


class Reopened(Opened):
    pass


class Plain(cqrs.Event):
    name: str


@dataclasses.dataclass(frozen=True)
class DCPlain(cqrs.DCEvent):
    name: str


class Notice(cqrs.NotificationEvent[str]):
    pass


@dataclasses.dataclass(frozen=True)
class Both(cqrs.DCNotificationEvent[str], cqrs.IDomainEvent):
    pass


class Broker(MessageBroker):
    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send_message(self, message: Message) -> None:
        self.messages.append(message)


def telling(label: str, *following: cqrs.IEvent, fails: bool = False) -> type[cqrs.EventHandler[Any]]:
    """A handler class that says what it was told of."""

    class Telling(cqrs.EventHandler[Any]):
        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return following

        async def handle(self, event: Any) -> None:
            told.append(f"{label}: {type(event).__name__}")
            if fails:
                raise KeyError(label)

    return Telling


def notice() -> Notice:
    return Notice(event_name="notice", payload="p")


def emitter(kind: type[cqrs.EventEmitter], bindings: dict[Any, Any], *args: Any) -> cqrs.EventEmitter:
    event_map = cqrs.EventMap()
    for event_type, handlers in bindings.items():
        for handler in handlers if isinstance(handlers, list) else [handlers]:
            event_map.bind(event_type, handler)
    return kind(event_map, cqrs.PlainContainer(), *args)


kinds = pytest.mark.parametrize("kind", [cqrs.EventEmitter, HandlerEmitter])


@kinds
@pytest.mark.parametrize("event", [Opened(name="x"), Plain(name="x"), DCPlain("x")])
async def test_handlers_are_told_in_the_order_of_binding(kind: Any, event: Any) -> None:
    """Domain events and plain events go to all their handlers; what these record is given back, in order."""
    first, second = Opened(name="first"), Opened(name="second")
    subject = emitter(kind, {type(event): [telling("a", first), telling("b", second)]})
    assert list(await subject.emit(event)) == [first, second]
    assert told == [f"a: {type(event).__name__}", f"b: {type(event).__name__}"]


@kinds
async def test_an_event_without_handlers_is_said_in_the_log_once(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A domain event nobody handles is no error; the log says so, once a type."""
    subject = emitter(kind, {})
    assert list(await subject.emit(Opened(name="x"))) == []
    assert list(await subject.emit(Opened(name="y"))) == []
    assert [record.getMessage() for record in caplog.records] == [
        "Handlers for event Opened not found. Bind one: mapper.bind(Opened, YourHandler)"
    ]


async def test_a_notification_goes_to_the_broker_alone() -> None:
    """EventEmitter: a notification event is sent as a message; it is for handlers elsewhere."""
    broker, event = Broker(), notice()
    subject = emitter(cqrs.EventEmitter, {Notice: telling("a")}, broker)
    assert list(await subject.emit(event)) == []
    assert told == []
    (message,) = broker.messages
    assert message == message_of(event)
    assert (message.message_name, message.topic, message.message_id) == ("Notice", event.topic, event.event_id)
    assert message.payload == event.to_dict()


async def test_the_envelope_of_an_event_is_the_message_s() -> None:
    """Key, correlation, causation, time and headers of a notification event are those of its message."""
    event = Notice(
        event_name="n", payload="p", partition_key="k", correlation_id="c", causation_id="d", headers={"h": "1"}
    )
    message = message_of(event)
    assert (message.partition_key, message.correlation_id, message.causation_id) == ("k", "c", "d")
    assert dict(message.headers) == {"h": "1"}
    assert message.occurred_at == event.event_timestamp


async def test_an_event_of_both_kinds_goes_both_ways() -> None:
    """EventEmitter: an event that is a domain and a notification event goes to its handlers and then to the broker."""
    broker = Broker()
    subject = emitter(cqrs.EventEmitter, {Both: telling("a")}, broker)
    await subject.emit(Both(event_name="b", payload="p"))
    assert told == ["a: Both"]
    assert len(broker.messages) == 1


async def test_a_handler_emitter_prefers_handlers_to_the_broker() -> None:
    """HandlerEmitter: a notification event that has handlers is not sent back to where it came from."""
    broker = Broker()
    await emitter(HandlerEmitter, {Notice: telling("a")}, broker).emit(notice())
    assert told == ["a: Notice"]
    assert broker.messages == []
    await emitter(HandlerEmitter, {}, broker).emit(notice())
    assert len(broker.messages) == 1


async def test_a_handler_emitter_without_a_broker_drops_what_nobody_handles(caplog: pytest.LogCaptureFixture) -> None:
    """HandlerEmitter: a notification event with neither handler nor broker is said in the log."""
    assert list(await emitter(HandlerEmitter, {}).emit(notice())) == []
    assert "Handlers for event Notice not found" in caplog.text


@kinds
async def test_subclasses_are_told_of_where_asked(kind: Any) -> None:
    """``include_subclasses`` tells a handler of subclasses too, after their own handlers, and once."""
    event_map = cqrs.EventMap()
    exact, wide, both = telling("exact"), telling("wide"), telling("both")
    event_map.bind(Opened, exact)
    event_map.bind(Opened, wide, include_subclasses=True)
    event_map.bind(Opened, both, include_subclasses=True)
    event_map.bind(Reopened, both)
    event_map.bind(Reopened, telling("own"))
    event_map.bind(cqrs.IEvent, telling("any"), include_subclasses=True)
    subject = kind(event_map, cqrs.PlainContainer())
    await subject.emit(Reopened(name="x"))
    assert told == ["both: Reopened", "own: Reopened", "wide: Reopened", "any: Reopened"]
    told.clear()
    await subject.emit(Opened(name="x"))
    assert told == ["exact: Opened", "wide: Opened", "both: Opened", "any: Opened"]


@kinds
async def test_a_handler_bound_late_is_told(kind: Any) -> None:
    """A handler bound after the first emit is told from the next one on, of subclasses as well."""
    event_map = cqrs.EventMap()
    subject = kind(event_map, cqrs.PlainContainer())
    await subject.emit(Reopened(name="x"))
    event_map.bind(Opened, telling("late"), include_subclasses=True)
    await subject.emit(Reopened(name="x"))
    event_map.bind(Reopened, telling("later"))
    await subject.emit(Reopened(name="x"))
    assert told == ["late: Reopened", "later: Reopened", "late: Reopened"]


@kinds
async def test_middlewares_run_around_each_event_handler(kind: Any) -> None:
    """Middlewares run around every event handler, the first one outermost."""

    def around(name: str) -> Callable[..., Any]:
        async def middleware(event: Any, handle: Callable[[Any], Any]) -> Any:
            told.append(f"{name} before")
            await handle(event)
            told.append(f"{name} after")

        return middleware

    chain = MiddlewareChain()
    chain.set([around("x"), around("y")])
    await emitter(kind, {Opened: [telling("a"), telling("b")]}, None, chain).emit(Opened(name="x"))
    wrapped = ["x before", "y before", "{}: Opened", "y after", "x after"]
    assert told == [entry.format(name) for name in "ab" for entry in wrapped]


@kinds
async def test_a_fallback_handles_what_the_primary_failed(kind: Any) -> None:
    """The fallback is told when the primary failed, and only its events follow."""
    lost, kept = Opened(name="lost"), Opened(name="kept")
    binding = cqrs.EventHandlerFallback(primary=telling("primary", lost, fails=True), fallback=telling("second", kept))
    assert list(await emitter(kind, {Plain: binding}).emit(Plain(name="x"))) == [kept]
    assert told == ["primary: Plain", "second: Plain"]


@kinds
@pytest.mark.parametrize("is_concurrent", [False, True])
async def test_a_failing_follow_up_does_not_wake_the_fallback(kind: Any, is_concurrent: bool) -> None:
    """When an event that follows from the primary fails, the fallback of the primary is not told."""
    binding = cqrs.EventHandlerFallback(primary=telling("primary", Opened(name="next")), fallback=telling("second"))
    subject = emitter(kind, {Plain: binding, Opened: telling("opened", fails=True)})
    with pytest.raises(KeyError):
        await EventProcessor(subject.event_map, subject, 2, is_concurrent).emit_events([Plain(name="x")])
    assert told == ["primary: Plain", "opened: Opened"]


@kinds
async def test_emit_stops_at_the_first_failure(kind: Any) -> None:
    """Called directly, emit raises what the first failing handler raised, and tells no further one."""
    subject = emitter(kind, {Opened: [telling("a"), telling("b", fails=True), telling("c")]})
    with pytest.raises(KeyError):
        await subject.emit(Opened(name="x"))
    assert told == ["a: Opened", "b: Opened"]


async def test_handlers_are_resolved_once_an_event() -> None:
    """Each handler is resolved exactly once for each event."""
    resolved: list[str] = []
    a, b = telling("a"), telling("b")

    class Container:
        async def resolve(self, type_: type[Any]) -> Any:
            resolved.append("a" if type_ is a else "b")
            return type_()

    event_map = cqrs.EventMap()
    event_map.bind(Opened, a)
    event_map.bind(Opened, b)
    subject = cqrs.EventEmitter(event_map, Container())
    for _ in range(2):
        await subject.emit(Opened(name="x"))
    assert resolved == ["a", "b"] * 2


async def test_follow_ups_come_breadth_first() -> None:
    """One after the other, all events of one generation are handled before the next generation."""
    names: list[str] = []
    tree = {"a": ["c", "d"], "b": ["e"], "c": ["f"], "d": [], "e": ["g"], "f": [], "g": []}

    class Grows(cqrs.EventHandler[Opened]):
        def __init__(self) -> None:
            self.grown: list[cqrs.IEvent] = []

        @property
        def events(self) -> Sequence[cqrs.IEvent]:
            return self.grown

        async def handle(self, event: Opened) -> None:
            names.append(event.name)
            self.grown = [Opened(name=name) for name in tree[event.name]]

    subject = emitter(cqrs.EventEmitter, {Opened: Grows})
    processor = EventProcessor(subject.event_map, subject, concurrent_event_handle_enable=False)
    await processor.emit_events([Opened(name="a"), Opened(name="b")])
    assert names == ["a", "b", "c", "d", "e", "f", "g"]
