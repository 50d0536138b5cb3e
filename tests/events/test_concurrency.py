"""How many event handlers run at once, in which tasks, and that nobody waits for ever."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import Self

import cqrs
from cqrs.events.event_processor import EventProcessor

Work = Callable[[], Awaitable[Any]]


@dataclasses.dataclass(frozen=True)
class Job(cqrs.DCDomainEvent):
    """Does its work when it is handled; what the work returns are the events that follow."""

    work: Work


class JobHandler(cqrs.EventHandler[Job]):
    def __init__(self) -> None:
        self._events: Sequence[cqrs.IEvent] = ()

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, event: Job) -> None:
        self._events = await event.work() or ()


@dataclasses.dataclass
class Announce(cqrs.DCRequest):
    jobs: Sequence[Job]


class AnnounceHandler(cqrs.RequestHandler[Announce, None]):
    def __init__(self) -> None:
        self._events: Sequence[cqrs.IEvent] = ()

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: Announce) -> None:
        self._events = request.jobs


class Gauge:
    """Counts the handlers that run. One that waits in a nested call lends its place."""

    def __init__(self) -> None:
        self.running = self.peak = self.handled = 0
        self.tasks: set[int] = set()

    def __enter__(self) -> Self:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.tasks.add(anyio.get_current_task().id)
        return self

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        self.handled += 1

    async def lent_while(self, waiting: Awaitable[Any]) -> None:
        self.running -= 1
        try:
            await waiting
        finally:
            self.running += 1
            self.peak = max(self.peak, self.running)


def processor(limit: int = 1, **options: Any) -> EventProcessor:
    event_map = cqrs.EventMap()
    event_map.bind(Job, JobHandler)
    return EventProcessor(event_map, cqrs.EventEmitter(event_map, cqrs.PlainContainer()), limit, **options)


def mediator(limit: int) -> cqrs.RequestMediator:
    requests, events = cqrs.RequestMap(), cqrs.EventMap()
    requests.bind(Announce, AnnounceHandler)
    events.bind(Job, JobHandler)
    return cqrs.RequestMediator(requests, cqrs.PlainContainer(), event_map=events, max_concurrent_event_handlers=limit)


def tasks_alive(backend_name: str) -> int:
    if backend_name == "trio":
        return sys.modules["trio"].lowlevel.current_statistics().tasks_living
    return len(sys.modules["asyncio"].all_tasks())


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_the_limit_holds_over_all_calls_of_one_mediator(limit: int) -> None:
    """Over twenty concurrent sends no more than the limit are handled at once, and the limit is reached."""
    gauge, subject = Gauge(), mediator(limit)

    async def work() -> None:
        with gauge:
            for _ in range(3):
                await checkpoint()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(subject.send, Announce([Job(work) for _ in range(5)]))
    assert gauge.handled == 100
    assert gauge.peak == limit


@pytest.mark.parametrize(("events", "limit", "expected"), [(2, 10, 2), (3, 10, 3), (50, 4, 4), (500, 8, 8)])
async def test_no_more_tasks_than_events_or_permits(backend_name: str, events: int, limit: int, expected: int) -> None:
    """N suspending events are handled in min(N, limit) tasks, the calling one among them."""
    gauge, alive, everybody = Gauge(), 0, anyio.Event()
    before = tasks_alive(backend_name)

    async def work() -> None:
        nonlocal alive
        with gauge:
            if gauge.running == expected:
                everybody.set()
            await everybody.wait()
            alive = max(alive, tasks_alive(backend_name) - before)
            await checkpoint()

    with anyio.fail_after(10):
        await processor(limit).emit_events([Job(work) for _ in range(events)])
    assert len(gauge.tasks) == expected
    assert anyio.get_current_task().id in gauge.tasks
    assert alive == expected - 1
    assert gauge.handled == events


async def test_a_line_of_single_events_stays_in_the_calling_task(backend_name: str) -> None:
    """With one runnable event at a time nothing is spawned, however often its handlers suspend."""
    gauge, before = Gauge(), tasks_alive(backend_name)

    def step(left: int) -> Work:
        async def work() -> list[Job]:
            with gauge:
                await checkpoint()
                assert tasks_alive(backend_name) == before
            return [Job(step(left - 1))] if left else []

        return work

    await processor(5).emit_events([Job(step(4))])
    assert gauge.handled == 5
    assert gauge.tasks == {anyio.get_current_task().id}


async def test_handlers_that_do_not_suspend_stay_in_the_calling_task(backend_name: str) -> None:
    """A thousand handlers that never suspend start no task."""
    gauge, before = Gauge(), tasks_alive(backend_name)

    async def work() -> None:
        with gauge:
            assert tasks_alive(backend_name) == before

    await processor(10).emit_events([Job(work) for _ in range(1000)])
    assert gauge.handled == 1000
    assert gauge.tasks == {anyio.get_current_task().id}


@pytest.mark.parametrize("parties", [2, 3, 5])
async def test_suspended_handlers_get_further_workers(parties: int) -> None:
    """Handlers that wait for each other all run, up to the limit."""
    arrived, everybody = 0, anyio.Event()

    async def meet() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == parties:
            everybody.set()
        await everybody.wait()

    with anyio.fail_after(5):
        await processor(parties).emit_events([Job(meet) for _ in range(parties)])
    assert arrived == parties


async def test_events_that_follow_get_workers_as_well() -> None:
    """Follow-ups that wait for each other run side by side, though they came from one handler."""
    arrived, everybody = 0, anyio.Event()

    async def meet() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 3:
            everybody.set()
        await everybody.wait()

    async def three() -> list[Job]:
        await checkpoint()
        return [Job(meet), Job(meet), Job(meet)]

    with anyio.fail_after(5):
        await processor(3).emit_events([Job(three)])
    assert arrived == 3


async def test_a_concurrent_call_of_limit_one_keeps_the_order() -> None:
    """With a limit of one, events are handled in order, breadth first, in the calling task."""
    gauge, order = Gauge(), list[str]()

    def named(name: str, *following: Job) -> Job:
        async def work() -> Sequence[Job]:
            with gauge:
                order.append(name)
                await checkpoint()
            return following

        return Job(work)

    await processor(1).emit_events([named("a", named("c"), named("d")), named("b", named("e"))])
    assert order == ["a", "b", "c", "d", "e"]
    assert gauge.tasks == {anyio.get_current_task().id}


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("mediators", [1, 2])
async def test_nested_sends_do_not_deadlock(limit: int, depth: int, mediators: int) -> None:
    """Handlers that send requests whose events need the same permits end, and the limit holds."""
    subjects = [mediator(limit) for _ in range(mediators)]
    gauges = [Gauge() for _ in subjects]

    def level(number: int) -> Work:
        gauge = gauges[number % mediators]

        async def work() -> None:
            with gauge:
                await checkpoint()
                if number < depth:
                    below = subjects[(number + 1) % mediators]
                    await gauge.lent_while(below.send(Announce([Job(level(number + 1)) for _ in range(2)])))
                await checkpoint()

        return work

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(subjects[0].send, Announce([Job(level(0)) for _ in range(2)]))
    assert sum(gauge.handled for gauge in gauges) == 4 * sum(2**level for level in range(depth + 1))
    assert max(gauge.running for gauge in gauges) == 0


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_two_nested_sends_at_once_share_one_loan(limit: int) -> None:
    """A handler that sends two requests side by side lends its permit to one event at a time."""
    gauge, subject = Gauge(), mediator(limit)

    async def leaf() -> None:
        with gauge:
            await checkpoint()
            await checkpoint()

    async def parent() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(subject.send, Announce([Job(leaf), Job(leaf)]))

    with anyio.fail_after(10):
        await subject.send(Announce([Job(parent) for _ in range(limit)]))
    assert gauge.handled == 6 * limit
    assert gauge.peak <= limit


async def test_a_call_does_not_wait_for_permits_that_it_needs_no_more() -> None:
    """A worker that waits for a permit is called off when the others have done all its work."""
    subject, let_go, held = mediator(2), anyio.Event(), anyio.Event()
    done: list[str] = []

    async def hold() -> None:
        held.set()
        await let_go.wait()

    def short(name: str) -> Work:
        async def work() -> None:
            for _ in range(3):
                await checkpoint()
            done.append(name)

        return work

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subject.send, Announce([Job(hold)]))
            await held.wait()
            await subject.send(Announce([Job(short("a")), Job(short("b")), Job(short("c"))]))
            assert done == ["a", "b", "c"]
            let_go.set()


async def test_a_permit_that_comes_free_is_used_at_once() -> None:
    """A call whose first handler takes long starts the second one when another call gives its permit back."""
    subject, let_go, held, ran = mediator(2), anyio.Event(), anyio.Event(), anyio.Event()

    async def hold() -> None:
        held.set()
        await let_go.wait()

    async def long() -> None:
        await ran.wait()

    async def second() -> None:
        ran.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subject.send, Announce([Job(hold)]))
            await held.wait()
            tasks.start_soon(subject.send, Announce([Job(long), Job(second)]))
            await anyio.wait_all_tasks_blocked()
            assert not ran.is_set()
            let_go.set()


async def test_every_permit_that_comes_free_is_used() -> None:
    """One waiting worker does not keep a call from using several permits that come free together."""
    subject, let_go, arrived = mediator(4), anyio.Event(), 0
    everybody = anyio.Event()

    async def hold() -> None:
        await let_go.wait()

    async def meet() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 4:
            everybody.set()
        await everybody.wait()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(subject.send, Announce([Job(hold)]))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(subject.send, Announce([Job(meet) for _ in range(4)]))
            await anyio.wait_all_tasks_blocked()
            assert arrived == 1
            let_go.set()
    assert arrived == 4


async def test_a_permit_that_comes_free_before_a_worker_begins_is_used() -> None:
    """A worker that was started while no permit was free, and then finds one, does not hold up further ones."""
    subject, let_go, arrived, everybody = mediator(3), anyio.Event(), 0, anyio.Event()

    async def meet() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 3:
            everybody.set()
        await everybody.wait()

    async def first() -> None:
        let_go.set()
        await meet()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(subject.send, Announce([Job(let_go.wait)]))
            await anyio.wait_all_tasks_blocked()
            await subject.send(Announce([Job(first), Job(meet), Job(meet)]))
    assert arrived == 3


async def test_permits_are_given_in_the_order_of_asking() -> None:
    """Calls that wait for a permit are served one after the other: none is passed over by a busy one."""
    subject, order = mediator(1), list[str]()

    def named(name: str) -> Job:
        async def work() -> None:
            order.append(name)
            await checkpoint()
            await checkpoint()

        return Job(work)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subject.send, Announce([named("a1"), named("a2"), named("a3")]))
        await checkpoint()
        tasks.start_soon(subject.send, Announce([named("b1")]))
    assert order.index("b1") < order.index("a3")


async def test_a_task_that_outlives_its_handler_borrows_from_nobody() -> None:
    """What a handler left running in a task group of the application has no share in its siblings' permits."""
    subject, gauge = mediator(2), Gauge()
    first_may_end, third_may_end, send_late = anyio.Event(), anyio.Event(), anyio.Event()

    def until(event: anyio.Event) -> Work:
        async def work() -> None:
            with gauge:
                await event.wait()

        return work

    async def late() -> None:
        with gauge:
            await checkpoint()

    async def send_later() -> None:
        await send_late.wait()
        await subject.send(Announce([Job(late)]))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as application:

            async def leaves_a_task() -> None:
                application.start_soon(send_later)

            application.start_soon(subject.send, Announce([Job(until(first_may_end)), Job(leaves_a_task)]))
            await anyio.wait_all_tasks_blocked()
            application.start_soon(subject.send, Announce([Job(until(third_may_end))]))
            await anyio.wait_all_tasks_blocked()
            send_late.set()
            await anyio.wait_all_tasks_blocked()
            assert gauge.running == 2
            third_may_end.set()
            await anyio.wait_all_tasks_blocked()
            assert gauge.handled == 2
            first_may_end.set()
    assert gauge.peak == 2


async def test_mediators_made_for_each_request_leave_nothing_in_the_loop() -> None:
    """A mediator that is dropped takes its limiter with it, while the event loop runs on."""

    def limiters() -> int:
        gc.collect()
        return sum(isinstance(thing, anyio.CapacityLimiter) for thing in gc.get_objects())

    async def work() -> None:
        await checkpoint()

    before = limiters()
    for _ in range(20):
        await mediator(2).send(Announce([Job(work), Job(work)]))
    assert limiters() == before


async def test_a_call_without_events_needs_no_permit() -> None:
    """A request without events is answered while all permits are taken."""
    subject, let_go = mediator(1), anyio.Event()

    async def hold() -> None:
        await let_go.wait()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subject.send, Announce([Job(hold)]))
            await anyio.wait_all_tasks_blocked()
            assert await subject.send(Announce([])) is None
            let_go.set()


def test_a_limit_below_one_is_refused() -> None:
    """A limit that no event could pass is an error of configuration."""
    with pytest.raises(cqrs.exceptions.ConfigurationError, match="at least 1"):
        processor(0)
