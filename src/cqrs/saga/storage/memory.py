"""A saga storage inside one process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any

from cqrs._clock import utc_now
from cqrs.exceptions import SagaLockedError
from cqrs.saga.storage._memory_tables import ENDED, MemorySagaRun, SagaTable, longest_unchanged
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord, StepAction
from cqrs.saga.storage.protocol import ILeasedSagaStorage, LeasedSagaRun


class MemorySagaStorage(ILeasedSagaStorage):
    """Keeps sagas in this process's memory: for tests, and for sagas that need not outlive the process.

    Sagas that ended are kept until :meth:`purge_finished` deletes them. A write to a saga that is not there
    raises ``SagaNotFoundError`` at once, in a run too. No method suspends, so that none can be cancelled
    half-way, and tasks of one event loop can share a storage; threads cannot.

    :param clock: what leases, backing off, purging and the times of log entries go by; timezone-aware.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self._table = SagaTable(clock)

    def create_run(self, lease: SagaLease | None = None) -> AbstractAsyncContextManager[LeasedSagaRun]:
        """See :meth:`ILeasedSagaStorage.create_run`. A commit that fails rolls the run back."""
        return MemorySagaRun(self._table, lease)

    async def create_saga(self, saga_id: uuid.UUID, name: str, context: dict[str, Any]) -> None:
        """See :meth:`SagaStorageRun.create_saga`."""
        run = MemorySagaRun(self._table)
        await run.create_saga(saga_id, name, context)
        await run.commit()

    async def update_context(
        self, saga_id: uuid.UUID, context: dict[str, Any], current_version: int | None = None
    ) -> None:
        """See :meth:`SagaStorageRun.update_context`."""
        run = MemorySagaRun(self._table)
        await run.update_context(saga_id, context, current_version)
        await run.commit()

    async def update_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        """See :meth:`SagaStorageRun.update_status`."""
        run = MemorySagaRun(self._table)
        await run.update_status(saga_id, status)
        await run.commit()

    async def log_step(
        self,
        saga_id: uuid.UUID,
        step_name: str,
        action: StepAction,
        status: SagaStepStatus,
        details: str | None = None,
    ) -> None:
        """See :meth:`SagaStorageRun.log_step`."""
        run = MemorySagaRun(self._table)
        await run.log_step(saga_id, step_name, action, status, details)
        await run.commit()

    async def load_saga_state(
        self, saga_id: uuid.UUID, *, read_for_update: bool = False
    ) -> tuple[SagaStatus, dict[str, Any], int]:
        """See :meth:`SagaStorageRun.load_saga_state`."""
        return await MemorySagaRun(self._table).load_saga_state(saga_id, read_for_update=read_for_update)

    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        """The log, in the order in which it was written; empty where there is no such saga."""
        return await MemorySagaRun(self._table).get_step_history(saga_id)

    async def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = 5,
        stale_after_seconds: int | None = None,
        saga_name: str | None = None,
    ) -> list[uuid.UUID]:
        """See :meth:`ISagaStorage.get_sagas_for_recovery`. Parked sagas and those that somebody runs are left out."""
        now = self._clock()
        names = None if saga_name is None else (saga_name,)
        sagas = self._table.recoverable(now, max_recovery_attempts, names)
        if stale_after_seconds is not None:
            changed_before = now - timedelta(seconds=stale_after_seconds)
            sagas = (saga for saga in sagas if saga.updated_at < changed_before)
        return [saga.saga_id for saga in longest_unchanged(limit, sagas)]

    async def increment_recovery_attempts(self, saga_id: uuid.UUID, new_status: SagaStatus | None = None) -> None:
        """See :meth:`ISagaStorage.increment_recovery_attempts`."""
        saga = self._table.find(saga_id)
        saga.recovery_attempts += 1
        saga.status = new_status or saga.status
        self._table.touch(saga, self._clock())

    async def set_recovery_attempts(self, saga_id: uuid.UUID, attempts: int) -> None:
        """See :meth:`ISagaStorage.set_recovery_attempts`."""
        saga = self._table.find(saga_id)
        saga.recovery_attempts = attempts
        self._table.touch(saga, self._clock())

    async def load_saga(self, saga_id: uuid.UUID) -> SagaRecord:
        """See :meth:`ILeasedSagaStorage.load_saga`."""
        return self._table.find(saga_id).record()

    async def acquire_lease(self, saga_id: uuid.UUID, owner: str, duration: float) -> SagaLease:
        """See :meth:`ILeasedSagaStorage.acquire_lease`."""
        now = self._clock()
        saga = self._table.find(saga_id)
        if saga.is_leased(now):
            raise SagaLockedError(saga_id, saga.locked_by)
        return saga.lease_to(owner, duration, now)

    async def claim_sagas(
        self,
        owner: str,
        duration: float,
        limit: int,
        *,
        max_recovery_attempts: int,
        saga_names: Collection[str] | None = None,
    ) -> list[SagaLease]:
        """See :meth:`ILeasedSagaStorage.claim_sagas`."""
        now = self._clock()
        sagas = self._table.recoverable(now, max_recovery_attempts, saga_names)
        due = (saga for saga in sagas if saga.available_at is None or saga.available_at <= now)
        claimed = longest_unchanged(limit, due)
        for saga in claimed:
            # The first lease is that of the run that began the saga: its end is no recovery's failure.
            saga.recovery_attempts += saga.locked_by is not None and saga.lease_version > 1
        return [saga.lease_to(owner, duration, now) for saga in claimed]

    async def renew_lease(self, lease: SagaLease) -> None:
        """See :meth:`ILeasedSagaStorage.renew_lease`."""
        self._table.find_leased(lease).hold_for(lease.duration, self._clock())

    async def get_parked_sagas(self, limit: int = 100, saga_name: str | None = None) -> list[SagaRecord]:
        """See :meth:`ILeasedSagaStorage.get_parked_sagas`."""
        parked = (
            saga
            for saga in self._table.sagas.values()
            if saga.parked_reason is not None and saga_name in (None, saga.name)
        )
        return [saga.record() for saga in longest_unchanged(limit, parked)]

    async def unpark_saga(self, saga_id: uuid.UUID) -> None:
        """See :meth:`ILeasedSagaStorage.unpark_saga`."""
        saga = self._table.find(saga_id)
        if saga.parked_reason is not None:
            saga.parked_reason = None
            saga.recovery_attempts = 0
            saga.available_at = None

    async def purge_finished(self, older_than: timedelta, limit: int = 1000) -> int:
        """See :meth:`ILeasedSagaStorage.purge_finished`. Those go first that ended the longest time ago."""
        ended_by = self._clock() - older_than
        ended = (saga for saga in self._table.sagas.values() if saga.status in ENDED and saga.updated_at <= ended_by)
        purged = longest_unchanged(limit, ended)
        for saga in purged:
            del self._table.sagas[saga.saga_id.int]
        return len(purged)
