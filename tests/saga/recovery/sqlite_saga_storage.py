"""A saga storage in one SQLite file, on the standard library alone: a second implementation of the contract."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from anyio.lowlevel import checkpoint
from typing_extensions import Self

from cqrs.exceptions import (
    CQRSError,
    SagaAlreadyExistsError,
    SagaConcurrencyError,
    SagaLeaseLostError,
    SagaLockedError,
    SagaNotFoundError,
)
from cqrs.saga.storage import ILeasedSagaStorage, SagaLease, SagaLogEntry, SagaRecord, SagaStatus, SagaStepStatus

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
SCHEMA = """
CREATE TABLE IF NOT EXISTS sagas (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, context TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, deadline INTEGER,
    locked_by TEXT, locked_until INTEGER, lease_version INTEGER NOT NULL DEFAULT 0,
    recovery_attempts INTEGER NOT NULL DEFAULT 0, available_at INTEGER, parked_reason TEXT,
    change INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log (
    nth INTEGER PRIMARY KEY AUTOINCREMENT, saga_id TEXT NOT NULL, step_name TEXT NOT NULL, action TEXT NOT NULL,
    status TEXT NOT NULL, at INTEGER NOT NULL, details TEXT
);
CREATE INDEX IF NOT EXISTS log_of_saga ON log (saga_id);
"""
RECOVERABLE = (
    "status NOT IN ('completed', 'failed') AND parked_reason IS NULL AND recovery_attempts < :attempts "
    "AND (locked_until IS NULL OR locked_until <= :now)"
)


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def stored(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // MICROSECOND


def read(moment: int | None) -> datetime | None:
    return None if moment is None else EPOCH + moment * MICROSECOND


class Tables:
    """The statements of one transaction."""

    def __init__(self, connection: sqlite3.Connection, now: datetime) -> None:
        self.connection = connection
        self.now = stored(now)

    def rows(self, statement: str, **values: Any) -> list[sqlite3.Row]:
        return self.connection.execute(statement, {"now": self.now, **values}).fetchall()

    def change(self, saga_id: uuid.UUID, what: str, *, touches: bool = True, **values: Any) -> None:
        if touches:
            what += ", updated_at = :now, change = (SELECT max(change) + 1 FROM sagas)"
        values.update(id=str(saga_id), now=self.now)
        if self.connection.execute(f"UPDATE sagas SET {what} WHERE id = :id", values).rowcount == 0:
            raise SagaNotFoundError(saga_id)

    def insert(self, saga_id: uuid.UUID, name: str, status: SagaStatus, context: str, deadline: int | None) -> None:
        try:
            self.connection.execute(
                "INSERT INTO sagas (id, name, status, context, deadline, created_at, updated_at, change) "
                "SELECT ?, ?, ?, ?, ?, ?, ?, coalesce(max(change), 0) + 1 FROM sagas",
                (str(saga_id), name, status.value, context, deadline, self.now, self.now),
            )
        except sqlite3.IntegrityError:
            raise SagaAlreadyExistsError(saga_id) from None
        self.connection.execute("DELETE FROM log WHERE saga_id = ?", (str(saga_id),))

    def find(self, saga_id: uuid.UUID) -> SagaRecord:
        found = self.rows("SELECT * FROM sagas WHERE id = :id", id=str(saga_id))
        if not found:
            raise SagaNotFoundError(saga_id)
        return _record(found[0])

    def state(self, saga_id: uuid.UUID) -> tuple[SagaStatus, dict[str, Any], int]:
        record = self.find(saga_id)
        return record.status, record.context, record.version

    def history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        return [
            SagaLogEntry(saga_id, row["step_name"], row["action"], SagaStepStatus(row["status"]), at, row["details"])
            for row in self.rows("SELECT * FROM log WHERE saga_id = :id ORDER BY nth", id=str(saga_id))
            if (at := read(row["at"])) is not None
        ]

    def set_context(self, saga_id: uuid.UUID, context: str, current_version: int | None) -> None:
        if current_version not in (None, self.find(saga_id).version):
            raise SagaConcurrencyError(f"Saga {saga_id} was changed by somebody else since it was read.")
        self.change(saga_id, "context = :context, version = version + 1", context=context)

    def set_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        self.change(saga_id, "status = :status", status=status.value)

    def log(self, saga_id: uuid.UUID, entry: tuple[Any, ...]) -> None:
        self.change(saga_id, "id = id")
        self.connection.execute(
            "INSERT INTO log (saga_id, step_name, action, status, details, at) VALUES (?, ?, ?, ?, ?, ?)",
            (str(saga_id), *entry),
        )

    def lease(self, saga_id: uuid.UUID, owner: str, duration: float) -> SagaLease:
        self.change(
            saga_id,
            "locked_by = :owner, lease_version = lease_version + 1, locked_until = :now + :duration",
            touches=False,
            owner=owner,
            duration=int(duration * 1e6),
        )
        return SagaLease(saga_id, owner, self.find(saga_id).lease_version, duration)

    def renew(self, lease: SagaLease) -> None:
        renewed = self.connection.execute(
            "UPDATE sagas SET locked_until = ? + ? WHERE id = ? AND locked_by = ? AND lease_version = ?",
            (self.now, int(lease.duration * 1e6), str(lease.saga_id), lease.owner, lease.version),
        )
        if renewed.rowcount == 0:
            raise SagaLeaseLostError(lease.saga_id, lease.owner)

    def free(self, saga_id: uuid.UUID, retry_after: float | None, parked_reason: str | None) -> None:
        self.change(
            saga_id,
            "locked_by = NULL, locked_until = NULL, parked_reason = coalesce(:reason, parked_reason), "
            "recovery_attempts = recovery_attempts + :failed, "
            "available_at = CASE WHEN :failed THEN :now + :wait ELSE available_at END",
            reason=parked_reason,
            failed=int(retry_after is not None),
            wait=int((retry_after or 0) * 1e6),
        )


class SqliteSagaStorage(ILeasedSagaStorage):
    """Its transactions are begun and ended without suspending; before each of them there is a checkpoint."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self.clock = clock
        # It is held so that the last transaction to end does not fold the write-ahead log.
        self._held = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._held.execute("PRAGMA journal_mode = WAL")
        self._held.executescript(SCHEMA)

    def close(self) -> None:
        self._held.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Tables]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Tables(connection, self.clock())
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def create_run(self, lease: SagaLease | None = None) -> SqliteRun:
        return SqliteRun(self, lease)

    async def create_saga(self, saga_id, name, context):
        await self._write(lambda run: run.create_saga(saga_id, name, context))

    async def update_context(self, saga_id, context, current_version=None):
        await self._write(lambda run: run.update_context(saga_id, context, current_version))

    async def update_status(self, saga_id, status):
        await self._write(lambda run: run.update_status(saga_id, status))

    async def log_step(self, saga_id, step_name, action, status, details=None):
        await self._write(lambda run: run.log_step(saga_id, step_name, action, status, details))

    async def _write(self, work: Callable[[SqliteRun], Any]) -> None:
        async with self.create_run() as run:
            await work(run)
            await run.commit()

    async def load_saga_state(self, saga_id, *, read_for_update=False):
        return await self.create_run().load_saga_state(saga_id)

    async def get_step_history(self, saga_id):
        return await self.create_run().get_step_history(saga_id)

    async def get_sagas_for_recovery(self, limit, max_recovery_attempts=5, stale_after_seconds=None, saga_name=None):
        await checkpoint()
        with self.transaction() as tables:
            found = tables.rows(
                f"SELECT id FROM sagas WHERE {RECOVERABLE} AND (:name IS NULL OR name = :name) "
                "AND (:stale IS NULL OR updated_at < :now - :stale * 1000000) ORDER BY updated_at, change LIMIT :limit",
                attempts=max_recovery_attempts,
                stale=stale_after_seconds,
                name=saga_name,
                limit=limit,
            )
        return [uuid.UUID(row["id"]) for row in found]

    async def increment_recovery_attempts(self, saga_id, new_status=None):
        await checkpoint()
        with self.transaction() as tables:
            status = None if new_status is None else new_status.value
            what = "recovery_attempts = recovery_attempts + 1, status = coalesce(:status, status)"
            tables.change(saga_id, what, status=status)

    async def set_recovery_attempts(self, saga_id, attempts):
        await checkpoint()
        with self.transaction() as tables:
            tables.change(saga_id, "recovery_attempts = :attempts", attempts=attempts)

    async def load_saga(self, saga_id):
        await checkpoint()
        with self.transaction() as tables:
            return tables.find(saga_id)

    async def acquire_lease(self, saga_id, owner, duration):
        await checkpoint()
        with self.transaction() as tables:
            record = tables.find(saga_id)
            if record.locked_until is not None and record.locked_until > read(tables.now):
                raise SagaLockedError(saga_id, record.locked_by)
            return tables.lease(saga_id, owner, duration)

    async def claim_sagas(
        self,
        owner: str,
        duration: float,
        limit: int,
        *,
        max_recovery_attempts: int,
        saga_names: Collection[str] | None = None,
    ) -> list[SagaLease]:
        await checkpoint()
        with self.transaction() as tables:
            found = tables.rows(
                f"SELECT id, locked_by, lease_version FROM sagas WHERE {RECOVERABLE} "
                "AND (available_at IS NULL OR available_at <= :now) "
                "AND (:names IS NULL OR name IN (SELECT value FROM json_each(:names))) "
                "ORDER BY updated_at, change LIMIT :limit",
                attempts=max_recovery_attempts,
                names=None if saga_names is None else json.dumps(list(saga_names)),
                limit=limit,
            )
            for row in found:
                if row["locked_by"] is not None and row["lease_version"] > 1:
                    what = "recovery_attempts = recovery_attempts + 1"
                    tables.change(uuid.UUID(row["id"]), what, touches=False)
            return [tables.lease(uuid.UUID(row["id"]), owner, duration) for row in found]

    async def renew_lease(self, lease):
        await checkpoint()
        with self.transaction() as tables:
            tables.renew(lease)

    async def get_parked_sagas(self, limit=100, saga_name=None):
        await checkpoint()
        with self.transaction() as tables:
            found = tables.rows(
                "SELECT * FROM sagas WHERE parked_reason IS NOT NULL AND (:name IS NULL OR name = :name) "
                "ORDER BY updated_at, change LIMIT :limit",
                name=saga_name,
                limit=limit,
            )
        return [_record(row) for row in found]

    async def unpark_saga(self, saga_id):
        await checkpoint()
        with self.transaction() as tables:
            if tables.find(saga_id).parked_reason is not None:
                what = "parked_reason = NULL, recovery_attempts = 0, available_at = NULL"
                tables.change(saga_id, what, touches=False)

    async def purge_finished(self, older_than, limit=1000):
        await checkpoint()
        with self.transaction() as tables:
            purged = tables.rows(
                "DELETE FROM sagas WHERE id IN (SELECT id FROM sagas WHERE status IN ('completed', 'failed') "
                "AND updated_at <= :ended_by ORDER BY updated_at, change LIMIT :limit) RETURNING id",
                ended_by=stored(self.clock() - older_than),
                limit=limit,
            )
            for row in purged:
                tables.rows("DELETE FROM log WHERE saga_id = :id", id=row["id"])
        return len(purged)


class SqliteRun:
    """Keeps its writes until they are committed, in one transaction. To read, it makes them and takes them back."""

    def __init__(self, storage: SqliteSagaStorage, lease: SagaLease | None) -> None:
        self._storage = storage
        self._lease = lease
        self._new_lease: SagaLease | None = None
        self._writes: list[Callable[[Tables], object]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._forget()

    async def create_saga(self, saga_id, name, context):
        encoded = json.dumps(context)
        self._writes.append(lambda tables: tables.insert(saga_id, name, SagaStatus.PENDING, encoded, None))

    async def start_saga(self, saga_id, name, context, *, owner, lease_duration, deadline=None):
        encoded = json.dumps(context)

        def start(tables: Tables) -> SagaLease:
            tables.insert(saga_id, name, SagaStatus.RUNNING, encoded, stored(deadline))
            return tables.lease(saga_id, owner, lease_duration)

        try:
            self._new_lease = await self._read(start)
        except SagaAlreadyExistsError:
            self._forget()
            raise
        self._writes.append(start)
        return self._new_lease

    async def update_context(self, saga_id, context, current_version=None):
        encoded = json.dumps(context)
        self._writes.append(lambda tables: tables.set_context(saga_id, encoded, current_version))

    async def update_status(self, saga_id, status):
        self._writes.append(lambda tables: tables.set_status(saga_id, status))

    async def log_step(self, saga_id, step_name, action, status, details=None):
        entry = (step_name, action, status.value, details, stored(self._storage.clock()))
        self._writes.append(lambda tables: tables.log(saga_id, entry))

    async def load_saga_state(self, saga_id, *, read_for_update=False):
        return await self._read(lambda tables: tables.state(saga_id))

    async def get_step_history(self, saga_id):
        return await self._read(lambda tables: tables.history(saga_id))

    async def release_lease(self, retry_after=None):
        lease = self._leased()
        self._writes.append(lambda tables: tables.free(lease.saga_id, retry_after, None))

    async def park_saga(self, reason):
        lease = self._leased()
        self._writes.append(lambda tables: tables.free(lease.saga_id, None, reason))

    async def commit(self) -> None:
        await checkpoint()
        writes, new_lease = self._writes, self._new_lease
        self._forget()
        with self._storage.transaction() as tables:
            if self._lease is not None:
                tables.renew(self._lease)
            for write in writes:
                write(tables)
        self._lease = new_lease or self._lease

    async def rollback(self) -> None:
        self._forget()

    async def _read(self, question: Callable[[Tables], Any]) -> Any:
        await checkpoint()
        with self._storage.transaction() as tables:
            for write in self._writes:
                write(tables)
            answer = question(tables)
            tables.connection.execute("ROLLBACK")
            tables.connection.execute("BEGIN")
        return answer

    def _leased(self) -> SagaLease:
        lease = self._new_lease or self._lease
        if lease is None:
            raise CQRSError("This run has no lease.")
        return lease

    def _forget(self) -> None:
        self._writes = []
        self._new_lease = None


def _record(row: sqlite3.Row) -> SagaRecord:
    values = {key: row[key] for key in row.keys() if key != "change"}  # noqa: SIM118  # a row iterates over its values
    moments = ("created_at", "updated_at", "deadline", "locked_until", "available_at")
    values.update({key: read(values[key]) for key in moments})
    values.update(status=SagaStatus(values["status"]), context=json.loads(values["context"]))
    return SagaRecord(uuid.UUID(values.pop("id")), **values)
