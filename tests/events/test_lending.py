"""No permit lies idle while a handler could use it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio import wait_all_tasks_blocked

import cqrs
from cqrs.events._permits import Permit


@dataclasses.dataclass(frozen=True)
class Job(cqrs.DCDomainEvent):
    """Does ``work``."""

    work: Callable[[], Awaitable[Any]]


class Worker(cqrs.EventHandler[Job]):
    """Does the job."""

    async def handle(self, event: Job) -> None:
        await event.work()


def _processor(limit: int) -> cqrs.EventProcessor:
    event_map = cqrs.EventMap()
    event_map.bind(Job, Worker)
    return cqrs.EventProcessor(event_map, cqrs.EventEmitter(event_map, cqrs.PlainContainer()), limit)


class Leaves:
    """Handlers that wait, and how many of them are running."""

    def __init__(self) -> None:
        self.running = 0
        self.go = anyio.Event()

    async def __call__(self) -> None:
        self.running += 1
        await self.go.wait()
        self.running -= 1


async def test_a_nested_call_uses_its_parents_permit_first() -> None:
    """At limit 2, a handler below a waiting one and another call's handler run at once."""
    processor, leaves = _processor(2), Leaves()

    async def parent() -> None:
        await processor.emit_events([Job(leaves)])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(processor.emit_events, [Job(parent)])
            await wait_all_tasks_blocked()
            tasks.start_soon(processor.emit_events, [Job(leaves)])
            await wait_all_tasks_blocked()
            assert leaves.running == 2
            leaves.go.set()


async def test_a_nested_call_takes_a_token_that_comes_free_while_the_permit_is_lent() -> None:
    """A call that waits for its parent's permit takes a token of the limiter where that is free earlier."""
    processor, other, long, ran = _processor(2), Leaves(), Leaves(), anyio.Event()

    async def leaf() -> None:
        ran.set()

    async def parent() -> None:
        async with anyio.create_task_group() as nested:
            nested.start_soon(processor.emit_events, [Job(long)])
            await wait_all_tasks_blocked()
            nested.start_soon(processor.emit_events, [Job(leaf)])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(processor.emit_events, [Job(other)])
            await wait_all_tasks_blocked()
            tasks.start_soon(processor.emit_events, [Job(parent)])
            await wait_all_tasks_blocked()
            assert not ran.is_set()
            other.go.set()
            await wait_all_tasks_blocked()
            assert ran.is_set()
            long.go.set()


async def test_a_nested_call_takes_the_permit_that_comes_back_while_no_token_is_free() -> None:
    """A call that waits for a token takes its parent's permit where that comes back earlier."""
    processor, other, first, ran = _processor(2), Leaves(), Leaves(), anyio.Event()

    async def leaf() -> None:
        ran.set()

    async def parent() -> None:
        async with anyio.create_task_group() as nested:
            nested.start_soon(processor.emit_events, [Job(first)])
            await wait_all_tasks_blocked()
            nested.start_soon(processor.emit_events, [Job(leaf)])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(processor.emit_events, [Job(other)])
            tasks.start_soon(processor.emit_events, [Job(parent)])
            await wait_all_tasks_blocked()
            assert not ran.is_set()
            first.go.set()
            await wait_all_tasks_blocked()
            assert ran.is_set()
            other.go.set()


async def test_one_that_waited_and_was_cancelled_leaves_the_permit_to_the_next() -> None:
    """Of two calls that wait, the first is cancelled at the moment the permit comes back: the second gets it."""
    processor, first, ran = _processor(1), Leaves(), anyio.Event()
    scope = anyio.CancelScope()

    async def leaf() -> None:
        ran.set()

    async def cancelled() -> None:
        with scope:
            await processor.emit_events([Job(anyio.sleep_forever)])

    async def parent() -> None:
        async with anyio.create_task_group() as nested:
            nested.start_soon(processor.emit_events, [Job(first)])
            await wait_all_tasks_blocked()
            nested.start_soon(cancelled)
            await wait_all_tasks_blocked()
            nested.start_soon(processor.emit_events, [Job(leaf)])
            await wait_all_tasks_blocked()
            first.go.set()
            scope.cancel()

    with anyio.fail_after(10):
        await processor.emit_events([Job(parent)])
    assert ran.is_set()


async def test_one_whose_wait_was_called_off_can_wait_again() -> None:
    """When events follow after all, it waits for a token once more, and does not spin."""
    limiter = anyio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("somebody else")
    permit = Permit(limiter, None, None)
    answers: list[bool] = []

    async def worker() -> None:
        answers.append(await permit.wait())
        answers.append(await permit.wait())
        permit.release()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker)
            await wait_all_tasks_blocked()
            permit.stop_waiting()
            await wait_all_tasks_blocked()
            assert answers == [False]
            limiter.release_on_behalf_of("somebody else")
    assert answers == [False, True]
    assert limiter.borrowed_tokens == 0
