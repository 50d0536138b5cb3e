"""What the failure of one event handler means for the others, and for the call."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs import EventFailurePolicy
from cqrs.events.event_processor import EventProcessor
from cqrs.message_brokers import Message, MessageBroker

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

CANCEL, WAIT, ISOLATE = EventFailurePolicy.CANCEL, EventFailurePolicy.WAIT, EventFailurePolicy.ISOLATE
Work = Callable[[], Awaitable[Any]]


class Boom(Exception):
    pass


class Stop(BaseException):
    """Ends a program, as KeyboardInterrupt does, but leaves the event loop alone."""


@dataclasses.dataclass(frozen=True)
class Job(cqrs.DCDomainEvent):
    work: Work


class JobHandler(cqrs.EventHandler[Job]):
    def __init__(self) -> None:
        self._events: Sequence[cqrs.IEvent] = ()

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, event: Job) -> None:
        self._events = await event.work() or ()


class Told(cqrs.NotificationEvent[str]):
    """Goes to the broker."""


def told(payload: str) -> Told:
    return Told(event_name="told", payload=payload)


class Broker(MessageBroker):
    """Fails with what it is given, or hangs."""

    def __init__(self, *failures: BaseException | None) -> None:
        self.failures = list(failures)
        self.sent: list[Any] = []

    async def send_message(self, message: Message) -> None:
        await checkpoint()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.sent.append(message.payload["payload"])


def processor(limit: int, policy: EventFailurePolicy = CANCEL, broker: Broker | None = None, **options: Any) -> Any:
    """A processor; a limit of 0 means one after the other."""
    event_map = cqrs.EventMap()
    event_map.bind(Job, JobHandler)
    emitter = cqrs.EventEmitter(event_map, cqrs.PlainContainer(), broker)
    return EventProcessor(event_map, emitter, max(limit, 1), limit > 0, failure_policy=policy, **options)


def failing(error: BaseException) -> Job:
    async def work() -> None:
        await checkpoint()
        raise error

    return Job(work)


class Record:
    """Jobs that note how they ended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.cancelled: list[str] = []

    def finishing(self, name: str, *following: cqrs.IEvent) -> Job:
        async def work() -> Sequence[cqrs.IEvent]:
            self.begun.append(name)
            for _ in range(4):
                await checkpoint()
            self.done.append(name)
            return following

        return Job(work)

    def hanging(self, name: str) -> Job:
        async def work() -> None:
            try:
                await anyio.sleep_forever()
            except BaseException:
                self.cancelled.append(name)
                raise

        return Job(work)


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("policy", [CANCEL, WAIT])
async def test_one_failure_leaves_as_itself(policy: EventFailurePolicy, limit: int) -> None:
    """The object that a handler raised is the one that leaves, with its own cause and context."""
    error, cause, record = Boom(), ValueError(), Record()

    async def fail() -> None:
        await checkpoint()
        try:
            raise KeyError("context")
        except KeyError:
            raise error from cause

    with pytest.raises(Boom) as caught:
        await processor(limit, policy).emit_events([Job(fail), record.finishing("a")])
    assert caught.value is error
    assert error.__cause__ is cause
    assert isinstance(error.__context__, KeyError)


async def test_cancel_ends_the_siblings_before_the_call_raises() -> None:
    """Under CANCEL the siblings of a failed handler are cancelled and awaited; the rest is not started."""
    record, error = Record(), Boom()
    with anyio.fail_after(5), pytest.raises(Boom) as caught:
        await processor(3).emit_events(
            [record.hanging("a"), record.hanging("b"), failing(error), record.finishing("d"), record.finishing("e")]
        )
    assert caught.value is error
    # On trio a task that is cancelled before it ran never starts.
    assert set(record.cancelled) <= {"a", "b"}
    assert "a" in record.cancelled
    assert record.done == []


async def test_cancel_in_order_stops_at_the_first_failure() -> None:
    """Under CANCEL, one after the other, events behind the failed one are not handled."""
    record, error = Record(), Boom()
    with pytest.raises(Boom):
        await processor(0).emit_events(
            [record.finishing("a", record.finishing("c")), failing(error), record.hanging("b")]
        )
    assert record.done == ["a"]


async def test_after_a_failure_a_shielded_sibling_starts_nothing_more() -> None:
    """A sibling that the cancellation does not reach, being shielded, finishes; no further event is begun after it."""
    failed, record = anyio.Event(), Record()

    async def shielded() -> Sequence[cqrs.IEvent]:
        with anyio.CancelScope(shield=True):
            await failed.wait()
            for _ in range(3):
                await checkpoint()
        record.done.append("shielded")
        return [record.finishing("following")]

    async def fail() -> None:
        await checkpoint()
        failed.set()
        raise Boom

    with anyio.fail_after(5), pytest.raises(Boom):
        await processor(2).emit_events([Job(shielded), Job(fail), *(record.finishing(str(n)) for n in range(3))])
    assert record.done == ["shielded"]
    assert record.begun == []


async def test_errors_of_cancelled_siblings_are_not_lost() -> None:
    """A sibling that fails while it is cancelled is reported beside the first failure."""
    first, second = Boom("first"), Boom("second")
    both, running = anyio.Event(), 0

    async def meet() -> None:
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await both.wait()

    async def fail() -> None:
        await meet()
        raise first

    async def fail_in_cleanup() -> None:
        try:
            await meet()
            await anyio.sleep_forever()
        finally:
            raise second

    with anyio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await processor(2).emit_events([Job(fail), Job(fail_in_cleanup)])
    assert set(caught.value.exceptions) == {first, second}


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_wait_finishes_everything_and_raises_all(limit: int) -> None:
    """Under WAIT the others finish, with what follows from them; several failures leave as a flat ExceptionGroup."""
    record, errors = Record(), [Boom("1"), Boom("2"), Boom("3")]
    events = [
        failing(errors[0]),
        record.finishing("a", record.finishing("c", failing(errors[2]))),
        failing(errors[1]),
        record.finishing("b"),
    ]
    with pytest.raises(ExceptionGroup) as caught:
        await processor(limit, WAIT).emit_events(events)
    assert set(caught.value.exceptions) == set(errors)
    assert sorted(record.done) == ["a", "b", "c"]


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("is_async", [False, True])
async def test_isolate_reports_and_succeeds(caplog: pytest.LogCaptureFixture, limit: int, is_async: bool) -> None:
    """Under ISOLATE the call succeeds; each failure goes to the log and to the hook, which may be async."""
    record, errors, reported = Record(), [Boom("1"), Boom("2")], list[tuple[cqrs.IEvent, Exception]]()

    def hook(event: cqrs.IEvent, error: Exception) -> None:
        reported.append((event, error))

    async def async_hook(event: cqrs.IEvent, error: Exception) -> None:
        await checkpoint()
        reported.append((event, error))

    events = [failing(errors[0]), record.finishing("a", record.finishing("b")), failing(errors[1])]
    await processor(limit, ISOLATE, on_error=async_hook if is_async else hook).emit_events(events)
    assert sorted(record.done) == ["a", "b"]
    assert {(id(event), error) for event, error in reported} == {(id(events[0]), errors[0]), (id(events[2]), errors[1])}
    logged = [entry for entry in caplog.records if entry.name == "cqrs" and entry.levelno == logging.ERROR]
    assert {entry.exc_info[1] for entry in logged if entry.exc_info} == set(errors)


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_what_the_hook_raises_the_call_raises(limit: int) -> None:
    """A hook that raises ends the call with its own error: the way to stop after all."""
    stop = RuntimeError("stop")

    def hook(event: cqrs.IEvent, error: Exception) -> None:
        raise stop

    with pytest.raises(RuntimeError) as caught:
        await processor(limit, ISOLATE, on_error=hook).emit_events([failing(Boom()), Record().finishing("a")])
    assert caught.value is stop


async def test_the_hook_is_asked_under_isolate_only() -> None:
    """Under the other policies a failure leaves the call and is not reported twice."""
    reported: list[Exception] = []
    for policy in (CANCEL, WAIT):
        with pytest.raises(Boom):
            await processor(0, policy, on_error=lambda _, error: reported.append(error)).emit_events([failing(Boom())])
    assert reported == []


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("policy", [CANCEL, WAIT])
async def test_a_group_that_a_handler_raised_is_one_failure(
    backend_name: str, policy: EventFailurePolicy, limit: int
) -> None:
    """A handler's own ExceptionGroup, even of one error, leaves as it is."""
    # A trio nursery that takes cancellations out of a group rebuilds the groups in it, with the same errors.
    is_rebuilt = backend_name == "trio" and policy is CANCEL and limit > 1
    group = ExceptionGroup("own", [Boom()])
    with pytest.raises(ExceptionGroup) as caught:
        await processor(limit, policy).emit_events([failing(group), Record().finishing("a")])
    assert caught.value.exceptions == group.exceptions
    assert caught.value.message == "own"
    if not is_rebuilt:
        assert caught.value is group


async def test_a_group_among_several_failures_stays_whole() -> None:
    """Beside other failures a handler's own group is one member of the group that leaves."""
    group, error = ExceptionGroup("own", [Boom(), Boom()]), Boom()
    with pytest.raises(ExceptionGroup) as caught:
        await processor(2, WAIT).emit_events([failing(group), failing(error)])
    assert set(caught.value.exceptions) == {group, error}


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("policy", list(EventFailurePolicy))
async def test_base_exceptions_pass_every_policy(policy: EventFailurePolicy, limit: int) -> None:
    """What is no Exception is neither kept nor reported: it ends the call at once and leaves as itself."""
    stop, record, reported = Stop(), Record(), list[Exception]()
    events = [failing(stop), record.hanging("a"), record.hanging("b"), record.finishing("c")]
    with anyio.fail_after(5), pytest.raises(Stop) as caught:
        await processor(limit, policy, on_error=lambda _, error: reported.append(error)).emit_events(events)
    assert caught.value is stop
    assert record.done == []
    assert reported == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("policy", list(EventFailurePolicy))
def test_a_keyboard_interrupt_leaves_the_program(backend: str, policy: EventFailurePolicy) -> None:
    """KeyboardInterrupt in one of several concurrent handlers ends the program as KeyboardInterrupt."""
    pytest.importorskip(backend)
    record = Record()

    async def main() -> None:
        await processor(2, policy).emit_events([record.hanging("a"), failing(KeyboardInterrupt()), record.hanging("b")])

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        anyio.run(main, backend=backend)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert record.cancelled == ["a"]


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_a_failing_broker_is_treated_like_a_handler(limit: int) -> None:
    """Under CANCEL a broker's failure cancels the siblings and leaves as itself."""
    error, record = Boom(), Record()
    broker = Broker(error)
    with anyio.fail_after(5), pytest.raises(Boom) as caught:
        await processor(limit, CANCEL, broker).emit_events([told("1"), record.hanging("a"), record.hanging("b")])
    assert caught.value is error
    assert record.done == []


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_a_failing_broker_under_wait_and_isolate(limit: int) -> None:
    """Under WAIT the other messages are sent before the failure leaves; under ISOLATE it is reported."""
    error, broker = Boom(), Broker(Boom(), None)
    broker.failures[0] = error
    with pytest.raises(Boom) as caught:
        await processor(limit, WAIT, broker).emit_events([told("1"), told("2")])
    assert caught.value is error
    assert len(broker.sent) == 1

    broker, reported = Broker(error), list[Exception]()
    await processor(limit, ISOLATE, broker, on_error=lambda _, e: reported.append(e)).emit_events(
        [told("1"), told("2")]
    )
    assert reported == [error]
    assert len(broker.sent) == 1


@pytest.mark.parametrize("limit", [0, 2])
async def test_handlers_of_one_event_fail_independently_under_wait_and_isolate(limit: int) -> None:
    """Of several handlers of one event the ones after a failed one are told as well, and what they record follows."""
    record = Record()
    error = Boom()

    class First(cqrs.EventHandler[Job]):
        async def handle(self, event: Job) -> None:
            raise error

    event_map = cqrs.EventMap()
    event_map.bind(Job, First)
    event_map.bind(Job, JobHandler)
    emitter = cqrs.EventEmitter(event_map, cqrs.PlainContainer())
    waiting = EventProcessor(event_map, emitter, max(limit, 1), limit > 0, failure_policy=WAIT)
    with pytest.raises(Boom) as caught:
        await waiting.emit_events([record.finishing("a")])
    assert caught.value is error
    isolating = EventProcessor(event_map, emitter, max(limit, 1), limit > 0, failure_policy=ISOLATE)
    await isolating.emit_events([record.finishing("b")])
    assert record.done == ["a", "b"]


async def test_a_missing_broker_is_said() -> None:
    """A notification event without a broker fails with an error that says what to pass."""
    with pytest.raises(cqrs.exceptions.MessageBrokerNotConfiguredError, match="message_broker="):
        await processor(0).emit_events([told("1")])


async def test_permits_are_back_after_failures() -> None:
    """After failures under every policy as many handlers as before can run at once."""
    for policy in EventFailurePolicy:
        subject = processor(3, policy)
        for _ in range(4):
            with contextlib.suppress(Boom, ExceptionGroup):
                await subject.emit_events([failing(Boom()), failing(Boom()), failing(Boom())])
        await three_run_at_once(subject)


async def three_run_at_once(subject: EventProcessor) -> None:
    arrived, everybody = 0, anyio.Event()

    async def meet() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 3:
            everybody.set()
        await everybody.wait()

    with anyio.fail_after(5):
        await subject.emit_events([Job(meet), Job(meet), Job(meet)])
    assert arrived == 3


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("concurrent", [True, False])
async def test_after_a_cancellation_no_further_event_is_handled(limit: int, concurrent: bool) -> None:
    """Handlers in a shield finish, and those that were not begun are not."""
    handled: list[str] = []
    scope = anyio.CancelScope()

    class Shielded(cqrs.DomainEvent):
        number: int

    class ShieldedHandler(cqrs.EventHandler[Shielded]):
        async def handle(self, event: Shielded) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                scope.cancel()
                await anyio.lowlevel.checkpoint()
            handled.append(str(event.number))

    event_map = cqrs.EventMap()
    event_map.bind(Shielded, ShieldedHandler)
    emitter = cqrs.EventEmitter(event_map, cqrs.PlainContainer())
    processor = cqrs.EventProcessor(event_map, emitter, limit, concurrent)
    with scope:
        await processor.emit_events([Shielded(number=number) for number in range(10)])
    assert scope.cancelled_caught
    assert len(handled) <= (limit if concurrent else 1)
