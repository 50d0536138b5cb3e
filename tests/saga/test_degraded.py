"""Storages that implement the documented protocol and know no leases."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs import Fallback, ISagaStorage, Parallel, Pivot, SagaRecoveryWorker, SagaStatus, SagaStepStatus
from cqrs.exceptions import ConfigurationError, SagaNotFoundError, SagaRolledBackError, SagaStepTimeoutError
from cqrs.saga.storage.models import SagaLogEntry


class DocumentedStorage(ISagaStorage):
    """What somebody wrote who has read the documentation: each write is durable by itself."""

    def __init__(self) -> None:
        self.sagas: dict[uuid.UUID, dict[str, Any]] = {}
        self.log: list[SagaLogEntry] = []
        self.commits = 0

    async def create_saga(self, saga_id: uuid.UUID, name: str, context: dict[str, Any]) -> None:
        await checkpoint()
        if saga_id in self.sagas:
            raise ValueError(f"Saga {saga_id} already exists")
        self.sagas[saga_id] = {
            "name": name,
            "status": SagaStatus.PENDING,
            "context": dict(context),
            "version": 1,
            "attempts": 0,
        }

    async def update_context(
        self, saga_id: uuid.UUID, context: dict[str, Any], current_version: int | None = None
    ) -> None:
        await checkpoint()
        saga = self.sagas[saga_id]
        saga["context"] = dict(context)
        saga["version"] += 1

    async def update_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        await checkpoint()
        self.sagas[saga_id]["status"] = status

    async def log_step(
        self, saga_id: uuid.UUID, step_name: str, action: Any, status: SagaStepStatus, details: str | None = None
    ) -> None:
        await checkpoint()
        self.log.append(SagaLogEntry(saga_id, step_name, action, status, datetime.now(timezone.utc), details))

    async def load_saga_state(self, saga_id: uuid.UUID, *, read_for_update: bool = False) -> Any:
        await checkpoint()
        if saga_id not in self.sagas:
            raise ValueError(f"Saga {saga_id} not found")
        saga = self.sagas[saga_id]
        return saga["status"], dict(saga["context"]), saga["version"]

    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        await checkpoint()
        return [entry for entry in self.log if entry.saga_id == saga_id]

    async def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = 5,
        stale_after_seconds: int | None = None,
        saga_name: str | None = None,
    ) -> list[uuid.UUID]:
        await checkpoint()
        return [
            saga_id
            for saga_id, saga in self.sagas.items()
            if saga["status"] not in (SagaStatus.COMPLETED, SagaStatus.FAILED)
            and saga["attempts"] < max_recovery_attempts
            and saga_name in (None, saga["name"])
        ][:limit]

    async def increment_recovery_attempts(self, saga_id: uuid.UUID, new_status: SagaStatus | None = None) -> None:
        await checkpoint()
        self.sagas[saga_id]["attempts"] += 1

    async def set_recovery_attempts(self, saga_id: uuid.UUID, attempts: int) -> None:
        await checkpoint()
        self.sagas[saga_id]["attempts"] = attempts


class Run:
    """A unit of work: what was written comes into the storage with its commit."""

    def __init__(self, storage: StorageWithRuns) -> None:
        self._storage = storage
        self._writes: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name.startswith(("load", "get")):
            return method

        async def write(*args: Any, **kwargs: Any) -> None:
            self._writes.append((method, args, kwargs))

        return write

    async def commit(self) -> None:
        writes, self._writes = self._writes, []
        for method, args, kwargs in writes:
            await method(*args, **kwargs)
        self._storage.commits += 1

    async def rollback(self) -> None:
        self._writes.clear()


class StorageWithRuns(DocumentedStorage):
    @asynccontextmanager
    async def create_run(self) -> AsyncIterator[Any]:  # type: ignore[override]
        yield Run(self)


@pytest.fixture(params=[DocumentedStorage, StorageWithRuns], ids=["without runs", "with runs"])
def documented(request: pytest.FixtureRequest, lab: Any) -> Any:
    """The lab, over a storage that knows no leases. Any warning is an error."""
    lab.storage = request.param()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield lab


async def test_a_saga_completes(documented: Any, how: str) -> None:
    """A saga with all kinds of steps runs, in whatever way, and its log is as ever."""
    lab = documented
    saga = lab.saga(
        lab.step("A"),
        Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q")),
        Parallel(lab.step("B"), lab.step("C")),
        Pivot(lab.step("D")),
    )
    responses = await lab.run(saga, how)
    assert sorted(responses) == ["A", "B", "C", "D", "Q"]
    assert (await lab.history())[:6] == [
        *("A started", "A completed", "P started", "P failed", "Q started", "Q completed"),
    ]
    assert await lab.status() == "completed"


async def test_three_steps_are_five_commits(lab: Any) -> None:
    """With units of work, a documented storage is asked for as few commits as one with leases."""
    lab.storage = StorageWithRuns()
    await lab.run(lab.saga(*map(lab.step, "ABC")))
    assert lab.storage.commits <= 5


async def test_a_step_is_not_completed_before_its_context_is_there(lab: Any) -> None:
    """Where each write is durable by itself, the context comes first, then the log, then the status."""

    async def act(context: Any) -> None:
        context.total += 1

    order: list[str] = []

    class Storage(DocumentedStorage):
        async def update_context(self, *args: Any, **kwargs: Any) -> None:
            order.append("context")
            await super().update_context(*args, **kwargs)

        async def log_step(self, saga_id: Any, step_name: str, action: Any, status: Any, details: Any = None) -> None:
            order.append(f"{step_name} {status}")
            await super().log_step(saga_id, step_name, action, status, details)

        async def update_status(self, saga_id: Any, status: Any) -> None:
            order.append(str(status))
            await super().update_status(saga_id, status)

    lab.storage = Storage()
    await lab.run(lab.saga(lab.step("A", act)))
    assert order.index("context") < order.index("A completed") < order.index("completed")
    assert order.index("A started") < order.index("running")


async def test_a_saga_is_undone(documented: Any, how: str) -> None:
    """A failure is compensated in reverse, and the saga is FAILED."""
    lab = documented
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), lab.step("B"), lab.step("C", lab.Raising(lab.Boom()))), how)
    assert lab.log == ["A", "B", "C", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_cancelled_saga_is_undone(documented: Any, cancelled_by: str) -> None:
    """A cancellation is compensated too, and does not tear it."""
    lab = documented
    gate, undoing = lab.Gate(), lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", gate, undoing))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga), gate.reached, undoing.open)
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_recovery_goes_forward(documented: Any) -> None:
    """A saga that was left RUNNING is gone on with."""
    lab = documented
    saga = lab.saga(*map(lab.step, "ABC"))
    async with lab.transaction(saga) as transaction:
        await anext(transaction)
    assert await lab.storage.get_sagas_for_recovery(10) == [lab.id]
    await lab.recover(saga)
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "completed"
    assert await lab.storage.get_sagas_for_recovery(10) == []


async def test_recovery_goes_backward(documented: Any) -> None:
    """A rollback that was left is finished; a compensation that failed is tried again and counted."""
    lab = documented
    undo = lab.Raising(KeyError(), times=6)
    saga = lab.saga(lab.step("A"), lab.step("B", undo=undo), lab.step("C", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga)
    assert await lab.status() == "compensation_failed"
    with pytest.raises(SagaRolledBackError):
        await lab.recover(saga)
    assert lab.storage.sagas[lab.id]["attempts"] == 1
    with pytest.raises(SagaRolledBackError):
        await lab.recover(saga)
    assert await lab.status() == "failed"
    assert lab.log.count("~A") == 1


async def test_recovery_of_a_saga_that_is_not_there(documented: Any) -> None:
    """What the storage raises for it becomes SagaNotFoundError."""
    lab = documented
    with pytest.raises(SagaNotFoundError) as caught:
        await lab.recover(lab.saga(lab.step("A")))
    assert caught.value.saga_id == lab.id


async def test_recovery_of_a_saga_that_never_got_beyond_pending(documented: Any) -> None:
    """A crash between adding a saga and its first status leaves it PENDING: recovery begins it."""
    lab = documented
    saga = lab.saga(lab.step("A"), lab.step("B"))
    await lab.storage.create_saga(lab.id, "OrderSaga", lab.context.to_dict())
    await lab.recover(saga)
    assert lab.log == ["A", "B"]
    assert await lab.status() == "completed"


async def test_an_id_that_is_used_again(documented: Any) -> None:
    """A second start under the id of a saga that has COMPLETED does nothing."""
    lab = documented
    saga = lab.saga(lab.step("A"))
    await lab.run(saga)
    lab.log.clear()
    lab.results.clear()
    assert await lab.run(saga) == []
    assert lab.log == []


async def test_parking_keeps_recovery_away(documented: Any) -> None:
    """A storage that cannot park leaves a saga alone that has failed too often for any count."""
    lab = documented
    step = lab.step("B", lab.Gate(), timeout=0.03, on_unknown="park")
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(lab.saga(lab.step("A"), step))
    assert lab.log == ["A", "B"]
    assert await lab.storage.get_sagas_for_recovery(10) == []
    assert await lab.storage.get_sagas_for_recovery(10, max_recovery_attempts=1000) == []


@pytest.mark.parametrize("seam", ["create_saga", "update_status", "log_step"])
async def test_a_beginning_that_is_cancelled(lab: Any, cancelled_by: str, seam: str) -> None:
    """Cancelled while the saga is added, write by write, nothing acts, nor would recovery let it."""
    gate = lab.Gate()
    has_waited = False

    async def wait(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal has_waited
        await getattr(DocumentedStorage, seam)(self, *args, **kwargs)
        if not has_waited:
            has_waited = True
            await gate()

    lab.storage = type("Storage", (DocumentedStorage,), {seam: wait})()
    await lab.cancel(cancelled_by, lambda: lab.run(lab.saga(lab.step("A"))), gate.reached, lambda: None)
    assert lab.log == []
    assert await lab.status() == "failed"


async def test_a_worker_recovers(documented: Any) -> None:
    """One SagaRecoveryWorker recovers the sagas of a storage without leases."""
    lab = documented
    saga = lab.saga(*map(lab.step, "AB"))
    async with lab.transaction(saga) as transaction:
        await anext(transaction)
    worker = SagaRecoveryWorker(lab.mediator(saga), poll_interval=0.01)
    with anyio.fail_after(5):
        assert await worker.recover_once() == 1
    assert lab.log == ["A", "B"]
    assert await lab.status() == "completed"


async def test_a_mediator_must_be_told_the_name(documented: Any) -> None:
    """A storage without leases does not tell a saga's name: ``mediator.recover`` says what to do."""
    lab = documented
    saga = lab.saga(*map(lab.step, "AB"))
    async with lab.transaction(saga) as transaction:
        await anext(transaction)
    mediator = lab.mediator(saga)
    with pytest.raises(ConfigurationError, match="saga_name="):
        await mediator.recover(lab.id)
    await mediator.recover(lab.id, saga_name="OrderSaga")
    assert await lab.status() == "completed"
