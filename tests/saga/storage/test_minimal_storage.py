"""A storage of the documented protocol alone, without runs and leases, passes the suite for it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cqrs.exceptions import SagaConcurrencyError
from cqrs.saga.storage import ISagaStorage, SagaLogEntry, SagaStatus
from cqrs.testing import SagaStorageContract


class TestMinimalStorage(SagaStorageContract):
    @pytest.fixture
    def storage(self) -> MinimalStorage:
        return MinimalStorage()

    async def let_time_pass(self, storage: ISagaStorage, seconds: float) -> None:
        assert isinstance(storage, MinimalStorage)
        storage.now += timedelta(seconds=seconds)


def test_a_storage_without_runs_says_so() -> None:
    """``create_run()`` need not be implemented: it raises NotImplementedError, naming the storage."""
    with pytest.raises(NotImplementedError, match="MinimalStorage"):
        MinimalStorage().create_run()


@dataclasses.dataclass
class Row:
    name: str
    context: dict[str, Any]
    updated_at: tuple[datetime, int]
    status: SagaStatus = SagaStatus.PENDING
    version: int = 1
    attempts: int = 0
    log: list[SagaLogEntry] = dataclasses.field(default_factory=list)


class MinimalStorage(ISagaStorage):
    def __init__(self) -> None:
        self.rows: dict[uuid.UUID, Row] = {}
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.count = itertools.count()

    def row(self, saga_id: uuid.UUID) -> Row:
        if saga_id not in self.rows:
            raise ValueError(f"no saga {saga_id}")
        return self.rows[saga_id]

    def changed(self, saga_id: uuid.UUID) -> Row:
        row = self.row(saga_id)
        row.updated_at = (self.now, next(self.count))
        return row

    async def create_saga(self, saga_id, name, context):
        if saga_id in self.rows:
            raise ValueError(f"saga {saga_id} is there")
        self.rows[saga_id] = Row(name, copy.deepcopy(context), (self.now, next(self.count)))

    async def update_context(self, saga_id, context, current_version=None):
        if current_version not in (None, self.row(saga_id).version):
            raise SagaConcurrencyError("changed meanwhile")
        row = self.changed(saga_id)
        row.context = copy.deepcopy(context)
        row.version += 1

    async def update_status(self, saga_id, status):
        self.changed(saga_id).status = status

    async def log_step(self, saga_id, step_name, action, status, details=None):
        self.row(saga_id).log.append(SagaLogEntry(saga_id, step_name, action, status, self.now, details))

    async def load_saga_state(self, saga_id, *, read_for_update=False):
        row = self.row(saga_id)
        return row.status, copy.deepcopy(row.context), row.version

    async def get_step_history(self, saga_id):
        return list(self.row(saga_id).log)

    async def get_sagas_for_recovery(self, limit, max_recovery_attempts=5, stale_after_seconds=None, saga_name=None):
        stale = self.now - timedelta(seconds=stale_after_seconds) if stale_after_seconds else None
        found = [
            saga_id
            for saga_id, row in self.rows.items()
            if row.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING)
            and row.attempts < max_recovery_attempts
            and saga_name in (None, row.name)
            and (stale is None or row.updated_at[0] < stale)
        ]
        return sorted(found, key=lambda saga_id: self.rows[saga_id].updated_at)[:limit]

    async def increment_recovery_attempts(self, saga_id, new_status=None):
        row = self.changed(saga_id)
        row.attempts += 1
        row.status = new_status or row.status

    async def set_recovery_attempts(self, saga_id, attempts):
        self.changed(saga_id).attempts = attempts
