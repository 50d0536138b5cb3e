"""One schedule: a saga is run, things go wrong, and workers recover it until nothing more is to be done."""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from cqrs.dispatcher.saga import SagaDispatcher
from cqrs.events.map import EventMap
from cqrs.requests.map import SagaMap
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.recovery_worker import SagaRecoveryWorker
from cqrs.saga.storage.enums import SagaStatus
from cqrs.saga.storage.memory import MemorySagaStorage
from saga_model.faults import CANCELS, Fault, Kind, Place, Point
from saga_model.process import Process
from saga_model.shapes import Scenario
from saga_model.steps import Acted, ActedHandler, ModelContext
from saga_model.storage import ProcessStorage
from saga_model.truth import Truth, is_parked_or_over

_T = TypeVar("_T")

MAX_ATTEMPTS = 5
ROUNDS = 12
"""In so many rounds of recovery everything must have come to an end."""

TAKING_OVER = ("claim", "claimed", "load", "history")
"""Cancelled there, a worker leaves the saga locked until its lease ends."""

_A_LONG_TIME = timedelta(seconds=1000)
_SAGA_ID = uuid.UUID(int=7)
_STORAGE_PLACES = (Place.BEFORE_WRITE, Place.AFTER_WRITE, Place.READ)


class ModelDispatcher(SagaDispatcher):
    """Goes by the world's clock."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        storage: Any = self.storage
        self.options = dataclasses.replace(self.options, clock=storage._clock)


class World:
    """What there is beside the processes: a clock, a storage, and what really happened.

    :param schedule: what goes wrong.
    :param workers: how many recover at once.
    """

    def __init__(self, scenario: Scenario, schedule: Sequence[Fault], workers: int, is_asyncio: bool) -> None:
        self.scenario = scenario
        self.is_asyncio = is_asyncio
        self.truth = Truth(scenario)
        self.trace: list[Point] = []
        self.reached: set[Fault] = set()
        self.has_recovered = False
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.memory = MemorySagaStorage(clock=self.clock)
        self._workers = workers
        self._faults = {fault.point: fault for fault in schedule}
        self._visits: Counter[tuple[str, str]] = Counter()
        self._processes: list[Process] = []

    def clock(self) -> datetime:
        return self.now

    @property
    def is_going_forward(self) -> bool:
        """Whether no rollback has begun."""
        record = self.truth.record
        return record is None or record.status in (SagaStatus.RUNNING, SagaStatus.COMPLETED)

    # Told by processes

    def arrive(self, process: Process, label: str, place: Place) -> Kind | None:
        """``process`` is at a point. Give what goes wrong there."""
        visit = (process.name, label)
        self._visits[visit] += 1
        point = Point(process.name, label, self._visits[visit], place)
        self.trace.append(point)
        fault = self._faults.get(point)
        if fault is None:
            return None
        self.reached.add(fault)
        if place in _STORAGE_PLACES and fault.kind is Kind.ERROR:
            process.is_torn = True
        return fault.kind

    def observe_commit(self, process: Process) -> None:
        """Something of ``process`` is durable."""
        log = _at_once(self.memory.get_step_history(_SAGA_ID))
        self.truth.observe_commit(process, _at_once(self.memory.load_saga(_SAGA_ID)), log)

    def _look(self) -> None:
        if _SAGA_ID.int in self.memory._table.sagas:
            self.truth.record = _at_once(self.memory.load_saga(_SAGA_ID))

    # The schedule

    async def run(self) -> None:
        """Run the schedule to its end."""
        async with anyio.create_task_group() as tasks:
            runner = await self._run_to_halt(tasks, [("runner", self._consume)])
            if runner[0].ended.is_set():
                self._look()
                self._check_runner(runner[0])
            await self._recover(tasks, "worker")
            while paused := [process for process in self._processes if not process.ended.is_set()]:
                for process in paused:
                    process.resume()
                    await process.ended.wait()
                await self._recover(tasks, "late worker")
        self._look()
        self.truth.check_end()

    async def _run_to_halt(
        self, tasks: TaskGroup, works: Sequence[tuple[str, Callable[[Process], Awaitable[None]]]]
    ) -> list[Process]:
        processes = [Process(self, name) for name, _ in works]
        self._processes += processes
        for process, (_, work) in zip(processes, works, strict=True):
            tasks.start_soon(process.run, work)
        for process in processes:
            await process.halted.wait()
        return processes

    async def _recover(self, tasks: TaskGroup, name: str) -> None:
        for number in range(1, ROUNDS + 1):
            self.now += _A_LONG_TIME
            self._look()
            if is_parked_or_over(self.truth.record, MAX_ATTEMPTS):
                return
            self.has_recovered = True
            names = [f"{name} {number}{letter}" for letter in "abcdefghij"[: self._workers]]
            for process in await self._run_to_halt(tasks, [(each, self._work) for each in names]):
                self._look()
                self._check_worker(process)
        self.truth.broken("recovery does not come to an end")

    def _check_runner(self, process: Process) -> None:
        if not process.is_alive:
            return
        kinds = {fault.kind for fault in self.reached}
        self.truth.check_runner(process, kinds)
        if not process.is_torn:
            self.truth.check_rest(process, self._may_run_on(kinds))

    def _may_run_on(self, kinds: set[Kind]) -> bool:
        scenario = self.scenario
        return Kind.LEAVE in kinds or scenario.mode == "pull" or scenario.has_pivot or scenario.has("retry")

    def _check_worker(self, process: Process) -> None:
        if not process.ended.is_set() or not process.is_alive:
            return
        suffered = [fault for fault in self.reached if fault.point.process == process.name]
        self.truth.expect(process.outcome is None or bool(suffered), f"{process} ended with {process.outcome!r}")
        is_cut_off_early = any(fault.kind in CANCELS and fault.point.label in TAKING_OVER for fault in suffered)
        if not process.is_torn and not is_cut_off_early and self.truth.holder is process:
            self.truth.check_rest(process, may_run_on=True)

    # What processes do

    def _mediator(self, process: Process) -> SagaMediator:
        return SagaMediator(
            _saga_map(self.scenario),
            process,
            event_map=_event_map(),
            storage=ProcessStorage(process),
            compensation_retry_count=2,
            compensation_retry_delay=0.0,
            compensation_retry_backoff=1.0,
            dispatcher_type=ModelDispatcher,
        )

    async def _consume(self, process: Process) -> None:
        mediator, context = self._mediator(process), ModelContext()
        if self.scenario.mode == "transaction":
            async with mediator._dispatcher.transaction(context, _SAGA_ID) as transaction:
                await self._read(process, transaction)
        elif self.scenario.mode == "pull":
            stream = mediator.stream(context, _SAGA_ID)
            try:
                await self._read(process, stream)
            finally:
                await stream.aclose()
        else:
            async with mediator.stream(context, _SAGA_ID) as results:
                await self._read(process, results)

    async def _read(self, process: Process, results: Any) -> None:
        async for result in results:
            self.truth.check_result(result.response)
            if await process.reach(f"result {result.response}", Place.RESULT) is Kind.LEAVE:
                process.has_left = True
                return

    async def _work(self, process: Process) -> None:
        await SagaRecoveryWorker(self._mediator(process), max_recovery_attempts=MAX_ATTEMPTS).recover_once()


_MAPS: dict[str, SagaMap] = {}


def _saga_map(scenario: Scenario) -> SagaMap:
    if scenario.name not in _MAPS:
        _MAPS[scenario.name] = SagaMap()
        _MAPS[scenario.name].bind(ModelContext, scenario.saga)
    return _MAPS[scenario.name]


def _event_map() -> EventMap:
    events = EventMap()
    events.bind(Acted, ActedHandler)
    return events


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    coroutine.close()
    raise AssertionError("it suspended")
