"""A saga storage inside one process."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, TypeAlias, cast

from typing_extensions import Self

from cqrs.exceptions import (
    CQRSError,
    SagaAlreadyExistsError,
    SagaConcurrencyError,
    SagaLeaseLostError,
    SagaLockedError,
    SagaNotFoundError,
)
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord, StepAction
from cqrs.saga.storage.protocol import ILeasedSagaStorage, LeasedSagaRun

_UTC = timezone.utc
_ENDED = (SagaStatus.COMPLETED, SagaStatus.FAILED)

_Entry: TypeAlias = tuple[str, StepAction, SagaStepStatus, datetime, "str | None"]
"""A log entry without its saga's id. Few are ever read: they become a SagaLogEntry when they are."""


def utc_now() -> datetime:
    """The time, timezone-aware."""
    return datetime.now(_UTC)


class MemorySagaStorage(ILeasedSagaStorage):
    """Keeps sagas in this process's memory: for tests, and for sagas that need not outlive the process.

    Sagas that ended are kept until :meth:`purge_finished` deletes them. A write to a saga that is not there
    raises ``SagaNotFoundError`` at once, in a run too. No method suspends, so that none can be cancelled
    half-way, and tasks of one event loop can share a storage; threads cannot.

    :param clock: what leases, backing off, purging and the times of log entries go by; timezone-aware.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self._table = _Table(clock)

    def create_run(self, lease: SagaLease | None = None) -> AbstractAsyncContextManager[LeasedSagaRun]:
        """See :meth:`ILeasedSagaStorage.create_run`. A commit that fails rolls the run back."""
        return _MemoryRun(self._table, lease)

    async def create_saga(self, saga_id: uuid.UUID, name: str, context: dict[str, Any]) -> None:
        """See :meth:`SagaStorageRun.create_saga`."""
        run = _MemoryRun(self._table)
        await run.create_saga(saga_id, name, context)
        await run.commit()

    async def update_context(
        self, saga_id: uuid.UUID, context: dict[str, Any], current_version: int | None = None
    ) -> None:
        """See :meth:`SagaStorageRun.update_context`."""
        run = _MemoryRun(self._table)
        await run.update_context(saga_id, context, current_version)
        await run.commit()

    async def update_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        """See :meth:`SagaStorageRun.update_status`."""
        run = _MemoryRun(self._table)
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
        run = _MemoryRun(self._table)
        await run.log_step(saga_id, step_name, action, status, details)
        await run.commit()

    async def load_saga_state(
        self, saga_id: uuid.UUID, *, read_for_update: bool = False
    ) -> tuple[SagaStatus, dict[str, Any], int]:
        """See :meth:`SagaStorageRun.load_saga_state`."""
        return await _MemoryRun(self._table).load_saga_state(saga_id, read_for_update=read_for_update)

    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        """The log, in the order in which it was written; empty where there is no such saga."""
        return await _MemoryRun(self._table).get_step_history(saga_id)

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
            changed_before = now - _seconds(stale_after_seconds)
            sagas = (saga for saga in sagas if saga.updated_at < changed_before)
        return [saga.saga_id for saga in _longest_unchanged(limit, sagas)]

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
        claimed = _longest_unchanged(limit, due)
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
        return [saga.record() for saga in _longest_unchanged(limit, parked)]

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
        ended = (saga for saga in self._table.sagas.values() if saga.status in _ENDED and saga.updated_at <= ended_by)
        purged = _longest_unchanged(limit, ended)
        for saga in purged:
            del self._table.sagas[saga.saga_id.int]
        return len(purged)


@dataclasses.dataclass(slots=True, eq=False)
class _Saga:
    """A saga, as it was committed last."""

    saga_id: uuid.UUID
    name: str
    status: SagaStatus
    context: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    deadline: datetime | None = None
    version: int = 1
    locked_by: str | None = None
    locked_until: datetime | None = None
    lease_version: int = 0
    recovery_attempts: int = 0
    available_at: datetime | None = None
    parked_reason: str | None = None
    nth_change: int = 0
    log: list[_Entry] = dataclasses.field(default_factory=list[_Entry])

    def record(self) -> SagaRecord:
        return SagaRecord(
            saga_id=self.saga_id,
            name=self.name,
            status=self.status,
            context=_copy(self.context),
            version=self.version,
            created_at=self.created_at,
            updated_at=self.updated_at,
            deadline=self.deadline,
            locked_by=self.locked_by,
            locked_until=self.locked_until,
            lease_version=self.lease_version,
            recovery_attempts=self.recovery_attempts,
            available_at=self.available_at,
            parked_reason=self.parked_reason,
        )

    def is_leased(self, now: datetime) -> bool:
        return self.locked_until is not None and self.locked_until > now

    def lease_to(self, owner: str, duration: float, now: datetime) -> SagaLease:
        self.locked_by = owner
        self.lease_version += 1
        self.hold_for(duration, now)
        return SagaLease(self.saga_id, owner, self.lease_version, duration)

    def hold_for(self, duration: float, now: datetime) -> None:
        self.locked_until = now + _seconds(duration)


class _Table:
    """All sagas, as they were committed last."""

    __slots__ = ("_changes", "clock", "sagas")

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        # By the number of the UUID: its own hash is computed in Python, again and again.
        self.sagas: dict[int, _Saga] = {}
        self._changes = itertools.count(1)

    def find(self, saga_id: uuid.UUID) -> _Saga:
        try:
            return self.sagas[saga_id.int]
        except KeyError:
            raise SagaNotFoundError(saga_id) from None

    def find_leased(self, lease: SagaLease) -> _Saga:
        saga = self.sagas.get(lease.saga_id.int)
        if saga is None or saga.lease_version != lease.version or saga.locked_by != lease.owner:
            raise SagaLeaseLostError(lease.saga_id, lease.owner)
        return saga

    def touch(self, saga: _Saga, now: datetime) -> None:
        saga.updated_at = now
        saga.nth_change = next(self._changes)

    def recoverable(self, now: datetime, max_recovery_attempts: int, names: Collection[str] | None) -> Iterable[_Saga]:
        return (
            saga
            for saga in self.sagas.values()
            if saga.status not in _ENDED
            and saga.parked_reason is None
            and saga.recovery_attempts < max_recovery_attempts
            and (names is None or saga.name in names)
            and not saga.is_leased(now)
        )


class _Changes:
    """What a run has written of one saga, and not committed."""

    __slots__ = ("context", "context_writes", "entries", "hand_back", "is_new", "read_version", "saga", "status")

    def __init__(self, saga: _Saga, *, is_new: bool = False) -> None:
        self.saga = saga
        self.is_new = is_new
        self.status: SagaStatus | None = None
        self.context: dict[str, Any] | None = None
        self.context_writes = 0
        self.read_version: int | None = None
        self.entries: list[_Entry] = []
        self.hand_back: _HandBack | None = None

    @property
    def version(self) -> int:
        return self.saga.version + self.context_writes

    def check(self, table: _Table) -> None:
        """Whether they can be made still."""
        saga = self.saga
        stored = table.sagas.get(saga.saga_id.int)
        if self.is_new and stored is not None:
            raise SagaAlreadyExistsError(saga.saga_id)
        if not self.is_new and stored is not saga:
            raise SagaNotFoundError(saga.saga_id)
        if self.read_version is not None and self.read_version != saga.version:
            raise _changed_meanwhile(saga.saga_id)

    def make(self, table: _Table, now: datetime) -> None:
        saga = self.saga
        if self.is_new:
            table.sagas[saga.saga_id.int] = saga
        if self.status is not None:
            saga.status = self.status
        if self.context is not None:
            saga.context = self.context
            saga.version += self.context_writes
        saga.log += self.entries
        table.touch(saga, now)
        if self.hand_back is not None:
            self.hand_back.make(saga, now)


@dataclasses.dataclass(frozen=True, slots=True)
class _HandBack:
    """The end of a lease."""

    retry_after: float | None = None
    parked_reason: str | None = None

    def make(self, saga: _Saga, now: datetime) -> None:
        saga.locked_by = saga.locked_until = None
        if self.parked_reason is not None:
            saga.parked_reason = self.parked_reason
        if self.retry_after is not None:
            saga.recovery_attempts += 1
            saga.available_at = now + _seconds(self.retry_after)


class _MemoryRun:
    """A unit of work: checked and made as a whole by its commit."""

    __slots__ = ("_changes", "_lease", "_new_lease", "_table")

    def __init__(self, table: _Table, lease: SagaLease | None = None) -> None:
        self._table = table
        self._lease = lease
        self._new_lease: SagaLease | None = None
        self._changes: dict[int, _Changes] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forget()

    async def create_saga(self, saga_id: uuid.UUID, name: str, context: dict[str, Any]) -> None:
        now = self._table.clock()
        self._add(_Saga(saga_id, name, SagaStatus.PENDING, _copy(context), now, now))

    async def start_saga(
        self,
        saga_id: uuid.UUID,
        name: str,
        context: dict[str, Any],
        *,
        owner: str,
        lease_duration: float,
        deadline: datetime | None = None,
    ) -> SagaLease:
        now = self._table.clock()
        saga = _Saga(saga_id, name, SagaStatus.RUNNING, _copy(context), now, now, deadline)
        self._add(saga)
        self._new_lease = saga.lease_to(owner, lease_duration, now)
        return self._new_lease

    async def update_context(
        self, saga_id: uuid.UUID, context: dict[str, Any], current_version: int | None = None
    ) -> None:
        changes = self._changes_of(saga_id)
        if current_version is not None:
            if current_version != changes.version:
                raise _changed_meanwhile(saga_id)
            changes.read_version = changes.saga.version
        changes.context = _copy(context)
        changes.context_writes += 1

    async def update_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        self._changes_of(saga_id).status = status

    async def log_step(
        self,
        saga_id: uuid.UUID,
        step_name: str,
        action: StepAction,
        status: SagaStepStatus,
        details: str | None = None,
    ) -> None:
        entry: _Entry = (step_name, action, status, self._table.clock(), details)
        self._changes_of(saga_id).entries.append(entry)

    async def load_saga_state(
        self, saga_id: uuid.UUID, *, read_for_update: bool = False
    ) -> tuple[SagaStatus, dict[str, Any], int]:
        changes = self._changes.get(saga_id.int) or _Changes(self._table.find(saga_id))
        context = changes.saga.context if changes.context is None else changes.context
        return changes.status or changes.saga.status, _copy(context), changes.version

    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        changes, saga = self._changes.get(saga_id.int), self._table.sagas.get(saga_id.int)
        entries = [*(saga.log if saga else ()), *(changes.entries if changes else ())]
        return [SagaLogEntry(saga_id, *entry) for entry in entries]

    async def release_lease(self, retry_after: float | None = None) -> None:
        self._changes_of_leased().hand_back = _HandBack(retry_after)

    async def park_saga(self, reason: str) -> None:
        self._changes_of_leased().hand_back = _HandBack(parked_reason=reason)

    async def commit(self) -> None:
        table, changes_by_saga, new_lease = self._table, self._changes, self._new_lease
        self._forget()
        if self._lease is not None:
            table.find_leased(self._lease)
        for changes in changes_by_saga.values():
            changes.check(table)
        now = table.clock()
        self._lease = new_lease or self._lease
        if self._lease is not None:
            self._renew(self._lease, changes_by_saga.get(self._lease.saga_id.int), now)
        for changes in changes_by_saga.values():
            changes.make(table, now)

    async def rollback(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._changes = {}
        self._new_lease = None

    def _add(self, saga: _Saga) -> None:
        key = saga.saga_id.int
        if key in self._table.sagas or key in self._changes:
            self._forget()
            raise SagaAlreadyExistsError(saga.saga_id)
        self._changes[key] = _Changes(saga, is_new=True)

    def _changes_of(self, saga_id: uuid.UUID) -> _Changes:
        changes = self._changes.get(saga_id.int)
        if changes is None:
            changes = self._changes[saga_id.int] = _Changes(self._table.find(saga_id))
        return changes

    def _changes_of_leased(self) -> _Changes:
        lease = self._new_lease or self._lease
        if lease is None:
            raise CQRSError("This run has no lease. Open it with create_run(lease), or call start_saga() in it.")
        return self._changes_of(lease.saga_id)

    def _renew(self, lease: SagaLease, changes: _Changes | None, now: datetime) -> None:
        saga = self._table.sagas[lease.saga_id.int] if changes is None else changes.saga
        saga.hold_for(lease.duration, now)


@functools.lru_cache(maxsize=64)
def _seconds(number: float) -> timedelta:
    # Each commit needs one, and they hardly differ.
    return timedelta(seconds=number)


def _changed_meanwhile(saga_id: uuid.UUID) -> SagaConcurrencyError:
    return SagaConcurrencyError(f"Saga {saga_id} was changed by somebody else since it was read: load it again.")


def _longest_unchanged(limit: int, sagas: Iterable[_Saga]) -> list[_Saga]:
    return heapq.nsmallest(limit, sagas, key=lambda saga: (saga.updated_at, saga.nth_change))


_LEAVES = frozenset((str, int, float, bool, type(None)))


def _copy(context: dict[str, Any]) -> dict[str, Any]:
    copied = dict(context)
    for key, value in context.items():
        if type(value) not in _LEAVES:
            copied[key] = _copy_value(value)
    return copied


def _copy_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _copy(cast("dict[str, Any]", value))
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", value)
        return [item if type(item) in _LEAVES else _copy_value(item) for item in items]
    return value
