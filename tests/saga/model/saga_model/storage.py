"""The storage as one process sees it: each access is a point, and what is written is shared."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from cqrs.saga.storage.memory import MemorySagaStorage
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord
from cqrs.saga.storage.protocol import LeasedSagaRun
from saga_model.faults import Place

if TYPE_CHECKING:
    from saga_model.process import Process


class ProcessStorage(MemorySagaStorage):
    """The world's storage, reached from one process."""

    def __init__(self, process: Process) -> None:
        world = process.world
        super().__init__(clock=world.clock)
        self._table = world.memory._table
        self._process = process

    def create_run(self, lease: SagaLease | None = None) -> AbstractAsyncContextManager[LeasedSagaRun]:
        return ProcessRun(self._process, super().create_run(lease))  # type: ignore[return-value]

    async def load_saga(self, saga_id: uuid.UUID) -> SagaRecord:
        await self._process.reach("load", Place.READ)
        return await super().load_saga(saga_id)

    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        await self._process.reach("history", Place.READ)
        return await super().get_step_history(saga_id)

    async def acquire_lease(self, saga_id: uuid.UUID, owner: str, duration: float) -> SagaLease:
        await self._process.reach("acquire", Place.BEFORE_WRITE)
        before = await super().load_saga(saga_id)
        lease = await super().acquire_lease(saga_id, owner, duration)
        self._process.truth.take(self._process, before, self._clock())
        await self._process.reach("acquired", Place.AFTER_WRITE)
        return lease

    async def claim_sagas(
        self,
        owner: str,
        duration: float,
        limit: int,
        *,
        max_recovery_attempts: int,
        saga_names: Collection[str] | None = None,
    ) -> list[SagaLease]:
        await self._process.reach("claim", Place.BEFORE_WRITE)
        before = [saga.record() for saga in self._table.sagas.values()]
        leases = await super().claim_sagas(
            owner, duration, limit, max_recovery_attempts=max_recovery_attempts, saga_names=saga_names
        )
        if leases:
            self._process.truth.take(self._process, before[0], self._clock())
        await self._process.reach("claimed", Place.AFTER_WRITE)
        return leases

    async def renew_lease(self, lease: SagaLease) -> None:
        await self._process.reach("renew", Place.BEFORE_WRITE)
        await super().renew_lease(lease)


class ProcessRun:
    """A unit of work of one process."""

    def __init__(self, process: Process, run: Any) -> None:
        self._process = process
        self._run = run
        self._is_start = False
        self._said: list[str] = []

    async def __aenter__(self) -> Self:
        self._process.stay_dead()
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._run.__aexit__(exc_type, exc, traceback)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    async def start_saga(self, *args: Any, **options: Any) -> SagaLease:
        lease: SagaLease = await self._run.start_saga(*args, **options)
        self._is_start = True
        self._said.append("start")
        return lease

    async def log_step(
        self, saga_id: uuid.UUID, step: str, action: str, status: Any, details: str | None = None
    ) -> None:
        self._said.append(f"{step} {action} {status}")
        await self._run.log_step(saga_id, step, action, status, details)

    async def update_status(self, saga_id: uuid.UUID, status: Any) -> None:
        self._said.append(str(status))
        await self._run.update_status(saga_id, status)

    async def commit(self) -> None:
        what = ", ".join(self._said) or "nothing"
        await self._process.reach(f"commit {what}", Place.BEFORE_WRITE)
        await self._run.commit()
        if self._is_start:
            self._process.truth.holder = self._process
        self._process.world.observe_commit(self._process)
        await self._process.reach(f"committed {what}", Place.AFTER_WRITE)
