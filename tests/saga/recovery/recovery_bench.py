"""What the tests of recovery share: steps that tell what they do, sagas of them, and logs as a crash leaves them."""

from __future__ import annotations

import collections
import dataclasses
import types
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from anyio.lowlevel import checkpoint
from sqlite_saga_storage import SqliteSagaStorage

from cqrs import EventMap, PlainContainer, SagaMap
from cqrs.events.event_emitter import EventEmitter
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.models import SagaContext
from cqrs.saga.saga import Saga
from cqrs.saga.step import SagaStepHandler
from cqrs.saga.storage import ILeasedSagaStorage, ISagaStorage, MemorySagaStorage, SagaStatus, SagaStepStatus

BOUND = 10.0
"""Seconds after which a test that hangs is given up."""

NOON = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)


class Boom(Exception):
    pass


@dataclasses.dataclass
class OrderContext(SagaContext):
    key: str = "o-1"
    done: list[str] = dataclasses.field(default_factory=list)


class MemoryOnTestTime(MemorySagaStorage):
    """Its clock stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON
        super().__init__(clock=lambda: self.now)


class SqliteOnTestTime(SqliteSagaStorage):
    def __init__(self, path: Path) -> None:
        self.now = NOON
        super().__init__(path, clock=lambda: self.now)


def wait(storage: Any, seconds: float) -> None:
    """Move the clock of a storage."""
    storage.now += timedelta(seconds=seconds)


class Bench:
    """Makes steps and sagas. ``calls`` tells what steps did, as ``act A`` and ``compensate A``.

    No step of one context may be called while it is being called: that fails the test at once. ``on["act A"]``
    is awaited while A acts.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on: dict[str, Callable[[Any], Awaitable[Any]]] = {}
        self.at_work: set[tuple[str, str]] = set()
        self.overlaps: list[tuple[str, str]] = []
        self.ended: collections.Counter[tuple[str, str]] = collections.Counter()
        self.instances: list[tuple[str, Any]] = []
        self.events: dict[str, Sequence[Any]] = {}

    def step(self, name: str, **options: Any) -> Any:
        bench = self

        async def act(self: Any, context: Any) -> Any:
            await bench._call(self, f"act {name}", context)
            context.done = [*context.done, name]
            return self._generate_step_result(None)

        async def compensate(self: Any, context: Any) -> None:
            await bench._call(self, f"compensate {name}", context)

        body = {
            "act": act,
            "compensate": compensate,
            "events": property(lambda _: bench.events.get(name, ())),
            **options,
        }
        return types.new_class(name, (SagaStepHandler[OrderContext, None],), exec_body=lambda space: space.update(body))

    def steps(self, names: str, **options: Any) -> list[Any]:
        return [self.step(name, **options) for name in names]

    async def _call(self, step: Any, what: str, context: Any) -> None:
        key = (context.key, what.split()[1])
        self.calls.append(what)
        self.instances.append((what, step))
        if key in self.at_work:
            self.overlaps.append(key)
        self.at_work.add(key)
        try:
            await checkpoint()
            if what in self.on:
                await self.on[what](context)
        finally:
            self.at_work.discard(key)
        self.ended[context.key, what] += 1


def saga_of(*steps: Any, name: str = "OrderSaga", **options: Any) -> Any:
    return types.new_class(
        name, (Saga[OrderContext],), exec_body=lambda space: space.update(steps=list(steps), **options)
    )


def mediator_of(saga: Any, storage: ISagaStorage, event_map: EventMap | None = None, **options: Any) -> SagaMediator:
    sagas, container = SagaMap(), PlainContainer()
    sagas.bind(OrderContext, saga)
    options.setdefault("compensation_retry_delay", 0.0)
    emitter = EventEmitter(event_map or EventMap(), container)
    return SagaMediator(sagas, container, emitter, event_map=event_map, storage=storage, **options)


async def left_by_a_crash(
    storage: ISagaStorage,
    log: str | Sequence[str] = (),
    *,
    status: SagaStatus = SagaStatus.RUNNING,
    context: dict[str, Any] | None = None,
    name: str = "OrderSaga",
    deadline: datetime | None = None,
) -> uuid.UUID:
    """A saga that nobody runs, with a log of lines as ``act A started``."""
    saga_id = uuid.uuid4()
    written = {"key": str(saga_id), "done": []} if context is None else context
    if deadline is None:
        await storage.create_saga(saga_id, name, written)
    else:
        assert isinstance(storage, ILeasedSagaStorage)
        async with storage.create_run() as run:
            await run.start_saga(saga_id, name, written, owner="crashed", lease_duration=1, deadline=deadline)
            await run.release_lease()
            await run.commit()
    for line in log.split(", ") if isinstance(log, str) else log:
        action, step_name, outcome = line.split()
        await storage.log_step(saga_id, step_name, action, SagaStepStatus(outcome))
    if status is not SagaStatus.PENDING:
        await storage.update_status(saga_id, status)
    return saga_id


async def log_of(storage: ISagaStorage, saga_id: uuid.UUID) -> list[str]:
    """A log in the words of :func:`left_by_a_crash`."""
    return [f"{entry.action} {entry.step_name} {entry.status}" for entry in await storage.get_step_history(saga_id)]


async def status_of(storage: ISagaStorage, saga_id: uuid.UUID) -> SagaStatus:
    return (await storage.load_saga_state(saga_id))[0]


class Unleased(ISagaStorage):
    """The documented protocol and no more, around a storage in memory."""

    def __init__(self, *, has_runs: bool = True) -> None:
        self.inner = MemoryOnTestTime()
        self.has_runs = has_runs

    def create_run(self):
        return self.inner.create_run() if self.has_runs else super().create_run()

    async def create_saga(self, *args):
        await self.inner.create_saga(*args)

    async def update_context(self, *args):
        await self.inner.update_context(*args)

    async def update_status(self, *args):
        await self.inner.update_status(*args)

    async def log_step(self, *args):
        await self.inner.log_step(*args)

    async def load_saga_state(self, saga_id, *, read_for_update=False):
        return await self.inner.load_saga_state(saga_id)

    async def get_step_history(self, saga_id):
        return await self.inner.get_step_history(saga_id)

    async def get_sagas_for_recovery(self, *args):
        return await self.inner.get_sagas_for_recovery(*args)

    async def increment_recovery_attempts(self, *args):
        await self.inner.increment_recovery_attempts(*args)

    async def set_recovery_attempts(self, *args):
        await self.inner.set_recovery_attempts(*args)
