"""Workers that deliver the events of one call concurrently."""

from __future__ import annotations

from anyio import CapacityLimiter
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from cqrs._concurrency import SingleErrorTaskGroup, drive
from cqrs.events._permits import Loan, Permit, enclosing_loan
from cqrs.events._unit_of_work import UnitOfWork


class FanOut:
    """The workers of one call.

    The calling task is the first worker. Others are started when there is work left and all that are
    there are suspended: first one, and once that is suspended too, as many as have work. So while handlers do
    not suspend, one task does everything.

    :param limiter: how many handlers run at once, over all calls.
    :param limit: the total of ``limiter``, and the most workers.
    """

    __slots__ = ("_has_started", "_limit", "_limiter", "_loan", "_outer", "_tasks", "_unit", "_waiting", "_workers")

    def __init__(self, unit: UnitOfWork, limiter: CapacityLimiter, limit: int) -> None:
        self._unit = unit
        self._limiter = limiter
        self._limit = limit
        self._outer: Loan | None = enclosing_loan()
        self._loan = None if self._outer is None else self._outer.find(limiter)
        self._workers = 1
        self._has_started = False
        self._waiting: set[Permit] = set()
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Deliver everything. Nothing is started for events that come one at a time."""
        permit = Permit(self._limiter, self._loan, self._outer)
        queue = self._unit.queue
        while queue and (self._limit == 1 or len(queue) == 1):
            await self._deliver_one(permit)
            if queue:
                await checkpoint_if_cancelled()
        if queue:
            async with SingleErrorTaskGroup("several event handlers failed") as self._tasks:
                await self._work(permit)

    async def _deliver_one(self, permit: Permit) -> None:
        try:
            if permit.enter() or await permit.wait():
                await self._unit.deliver(self._unit.queue.popleft())
        finally:
            permit.release()

    async def _work(self, permit: Permit) -> None:
        def suspended() -> None:
            permit.was_suspended = True
            if self._unit.queue:
                self._start_workers()

        self._waiting.discard(permit)
        try:
            await drive(self._deliver_all(permit), on_suspend=suspended)
        except BaseException:
            self._unit.stop()
            raise
        finally:
            permit.release()
            self._workers -= 1
        for waiting in self._waiting:
            waiting.stop_waiting()

    async def _deliver_all(self, permit: Permit) -> None:
        queue, deliver = self._unit.queue, self._unit.deliver
        while queue:
            if (permit.is_entered or permit.enter() or await self._wait_for(permit)) and queue:
                await deliver(queue.popleft())
                if permit.was_suspended:
                    # While it was not, nobody else could have used it, or have cancelled this.
                    permit.release()
                    if queue:
                        await checkpoint_if_cancelled()

    async def _wait_for(self, permit: Permit) -> bool:
        self._waiting.add(permit)
        try:
            return await permit.wait()
        finally:
            self._waiting.discard(permit)

    def _start_workers(self) -> None:
        wanted = min(len(self._unit.queue), self._limit - self._workers) if self._has_started else 1
        self._has_started = True
        for _ in range(wanted):
            if self._tasks is None or self._waiting:  # for a token: another one would wait as well
                return
            self._start_worker(self._tasks)

    def _start_worker(self, tasks: TaskGroup) -> None:
        permit = Permit(self._limiter, self._loan, self._outer)
        if not permit.acquire_nowait():
            self._waiting.add(permit)
        self._workers += 1
        tasks.start_soon(self._work, permit)
