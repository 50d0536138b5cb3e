"""What a saga storage in memory keeps, and units of work on it."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import uuid
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeAlias, cast

from typing_extensions import Self

from cqrs.exceptions import (
    CQRSError,
    SagaAlreadyExistsError,
    SagaConcurrencyError,
    SagaLeaseLostError,
    SagaNotFoundError,
)
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord, StepAction

ENDED = (SagaStatus.COMPLETED, SagaStatus.FAILED)

_Entry: TypeAlias = tuple[str, StepAction, SagaStepStatus, datetime, "str | None"]
"""A log entry without its saga's id. Few are ever read: they become a SagaLogEntry when they are."""


@dataclasses.dataclass(slots=True, eq=False)
class StoredSaga:
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
        self.locked_until = now + seconds(duration)


class SagaTable:
    """All sagas, as they were committed last."""

    __slots__ = ("_changes", "clock", "sagas")

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        # By the number of the UUID: its own hash is computed in Python, again and again.
        self.sagas: dict[int, StoredSaga] = {}
        self._changes = itertools.count(1)

    def find(self, saga_id: uuid.UUID) -> StoredSaga:
        try:
            return self.sagas[saga_id.int]
        except KeyError:
            raise SagaNotFoundError(saga_id) from None

    def find_leased(self, lease: SagaLease) -> StoredSaga:
        saga = self.sagas.get(lease.saga_id.int)
        if saga is None or saga.lease_version != lease.version or saga.locked_by != lease.owner:
            raise SagaLeaseLostError(lease.saga_id, lease.owner)
        return saga

    def touch(self, saga: StoredSaga, now: datetime) -> None:
        saga.updated_at = now
        saga.nth_change = next(self._changes)

    def recoverable(
        self, now: datetime, max_recovery_attempts: int, names: Collection[str] | None
    ) -> Iterable[StoredSaga]:
        return (
            saga
            for saga in self.sagas.values()
            if saga.status not in ENDED
            and saga.parked_reason is None
            and saga.recovery_attempts < max_recovery_attempts
            and (names is None or saga.name in names)
            and not saga.is_leased(now)
        )


class _Changes:
    """What a run has written of one saga, and not committed."""

    __slots__ = ("context", "context_writes", "entries", "hand_back", "is_new", "read_version", "saga", "status")

    def __init__(self, saga: StoredSaga, *, is_new: bool = False) -> None:
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

    def check(self, table: SagaTable) -> None:
        """Whether they can be made still."""
        saga = self.saga
        stored = table.sagas.get(saga.saga_id.int)
        if self.is_new and stored is not None:
            raise SagaAlreadyExistsError(saga.saga_id)
        if not self.is_new and stored is not saga:
            raise SagaNotFoundError(saga.saga_id)
        if self.read_version is not None and self.read_version != saga.version:
            raise _changed_meanwhile(saga.saga_id)

    def make(self, table: SagaTable, now: datetime) -> None:
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

    def make(self, saga: StoredSaga, now: datetime) -> None:
        saga.locked_by = saga.locked_until = None
        if self.parked_reason is not None:
            saga.parked_reason = self.parked_reason
        if self.retry_after is not None:
            saga.recovery_attempts += 1
            saga.available_at = now + seconds(self.retry_after)


class MemorySagaRun:
    """A unit of work: checked and made as a whole by its commit."""

    __slots__ = ("_changes", "_lease", "_new_lease", "_table")

    def __init__(self, table: SagaTable, lease: SagaLease | None = None) -> None:
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
        self._add(StoredSaga(saga_id, name, SagaStatus.PENDING, _copy(context), now, now))

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
        saga = StoredSaga(saga_id, name, SagaStatus.RUNNING, _copy(context), now, now, deadline)
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

    def _add(self, saga: StoredSaga) -> None:
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
def seconds(number: float) -> timedelta:
    """So many seconds. A lease's duration is asked for at each commit."""
    # Each commit needs one, and they hardly differ.
    return timedelta(seconds=number)


def _changed_meanwhile(saga_id: uuid.UUID) -> SagaConcurrencyError:
    return SagaConcurrencyError(f"Saga {saga_id} was changed by somebody else since it was read: load it again.")


def longest_unchanged(limit: int, sagas: Iterable[StoredSaga]) -> list[StoredSaga]:
    """Those of ``sagas``, ``limit`` at most, that were changed the longest time ago."""
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
