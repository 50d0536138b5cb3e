"""The storage inside one process passes the contract suite, and what is its own."""

from __future__ import annotations

import decimal
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cqrs.exceptions import (
    CQRSError,
    SagaAlreadyExistsError,
    SagaConcurrencyError,
    SagaLeaseLostError,
    SagaNotFoundError,
)
from cqrs.saga.storage import ISagaStorage, MemorySagaStorage, SagaStatus, SagaStepStatus
from cqrs.testing import LeasedSagaStorageContract


class StorageOnTestTime(MemorySagaStorage):
    """Its clock stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)
        super().__init__(clock=lambda: self.now)


@pytest.fixture
def storage() -> StorageOnTestTime:
    return StorageOnTestTime()


class TestOnTestTime(LeasedSagaStorageContract):
    async def let_time_pass(self, storage: ISagaStorage, seconds: float) -> None:
        assert isinstance(storage, StorageOnTestTime)
        storage.now += timedelta(seconds=seconds)


class TestInRealTime(LeasedSagaStorageContract):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {}

    @pytest.fixture
    def storage(self) -> MemorySagaStorage:
        return MemorySagaStorage()


async def test_log_entries_have_the_time_of_the_clock(storage: StorageOnTestTime) -> None:
    """An entry in a run is dated when it is logged, not when it is committed."""
    saga_id = await _new_saga(storage)
    begin = storage.now
    async with storage.create_run() as run:
        await run.log_step(saga_id, "Pay", "act", SagaStepStatus.STARTED)
        storage.now += timedelta(seconds=5)
        await run.log_step(saga_id, "Pay", "act", SagaStepStatus.COMPLETED)
        await run.commit()
    log = await storage.get_step_history(saga_id)
    assert [entry.timestamp for entry in log] == [begin, begin + timedelta(seconds=5)]


async def test_sagas_changed_at_one_time_are_recovered_in_the_order_of_their_changes(
    storage: StorageOnTestTime,
) -> None:
    """Where the clock stands still, the order of the changes decides which saga waits longest."""
    sagas = [await _new_saga(storage) for _ in range(20)]
    await storage.log_step(sagas[0], "Pay", "act", SagaStepStatus.STARTED)
    assert await storage.get_sagas_for_recovery(100) == [*sagas[1:], sagas[0]]


async def test_the_time_of_a_lease_is_that_of_the_clock(storage: StorageOnTestTime) -> None:
    """A lease is held up to its duration, and no longer."""
    saga_id = await _new_saga(storage)
    await storage.acquire_lease(saga_id, "worker", 10)
    storage.now += timedelta(seconds=9.9)
    assert await storage.claim_sagas("other", 10, 1, max_recovery_attempts=1) == []
    storage.now += timedelta(seconds=0.1)
    [lease] = await storage.claim_sagas("other", 10, 1, max_recovery_attempts=1)
    assert (lease.saga_id, lease.version) == (saga_id, 2)


async def test_of_two_runs_that_read_one_version_the_second_fails(storage: StorageOnTestTime) -> None:
    """A version is compared again by the commit, which then writes nothing of its run."""
    saga_id, other = await _new_saga(storage), await _new_saga(storage)
    async with storage.create_run() as first, storage.create_run() as second:
        for run in (first, second):
            await run.update_status(other, SagaStatus.COMPENSATING)
            await run.update_context(saga_id, {"by": id(run)}, current_version=1)
            await run.update_context(saga_id, {"again_by": id(run)}, current_version=2)
        await storage.update_status(other, SagaStatus.RUNNING)
        await second.commit()
        await storage.update_status(other, SagaStatus.FAILED)
        with pytest.raises(SagaConcurrencyError):
            await first.commit()
        assert await storage.load_saga_state(saga_id) == (SagaStatus.PENDING, {"again_by": id(second)}, 3)
        assert (await storage.load_saga_state(other))[0] is SagaStatus.FAILED


async def test_a_commit_that_fails_rolls_its_run_back(storage: StorageOnTestTime) -> None:
    """What a refused commit was to write is forgotten; the run can go on."""
    saga_id = await _new_saga(storage)
    async with storage.create_run() as run:
        await run.update_context(saga_id, {"mine": True}, current_version=1)
        await storage.update_context(saga_id, {"theirs": True})
        with pytest.raises(SagaConcurrencyError):
            await run.commit()
        await run.update_status(saga_id, SagaStatus.RUNNING)
        await run.commit()
    assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, {"theirs": True}, 2)


async def test_writers_of_different_things_do_not_undo_one_another(storage: StorageOnTestTime) -> None:
    """A commit writes what its run wrote, and leaves what others have changed since."""
    saga_id = await _new_saga(storage)
    async with storage.create_run() as first, storage.create_run() as second:
        await first.update_context(saga_id, {"paid": True})
        await first.log_step(saga_id, "Pay", "act", SagaStepStatus.COMPLETED)
        await second.update_status(saga_id, SagaStatus.COMPENSATING)
        await second.log_step(saga_id, "Ship", "act", SagaStepStatus.FAILED)
        await second.commit()
        await first.commit()
    assert await storage.load_saga_state(saga_id) == (SagaStatus.COMPENSATING, {"paid": True}, 2)
    assert [entry.step_name for entry in await storage.get_step_history(saga_id)] == ["Ship", "Pay"]


async def test_a_saga_that_was_made_meanwhile_is_told_by_the_commit(storage: StorageOnTestTime) -> None:
    """Of two runs that make a saga of one id, the second commit is refused, with all of its writes."""
    saga_id, other = uuid.uuid4(), await _new_saga(storage)
    async with storage.create_run() as first, storage.create_run() as second:
        lease = await first.start_saga(saga_id, "OrderSaga", {}, owner="first", lease_duration=1)
        await second.start_saga(saga_id, "OrderSaga", {}, owner="second", lease_duration=1)
        await second.update_status(other, SagaStatus.FAILED)
        await first.commit()
        with pytest.raises(SagaAlreadyExistsError):
            await second.commit()
    await storage.renew_lease(lease)
    assert (await storage.load_saga_state(other))[0] is SagaStatus.PENDING


async def test_a_saga_that_was_purged_meanwhile_is_told_by_the_commit(storage: StorageOnTestTime) -> None:
    """A commit to a saga that is gone is refused: it is not found, and a lease on it is lost."""
    saga_id = await _new_saga(storage)
    lease = await storage.acquire_lease(saga_id, "worker", 1)
    async with storage.create_run() as run, storage.create_run(lease) as leased:
        await run.update_status(saga_id, SagaStatus.RUNNING)
        await leased.update_status(saga_id, SagaStatus.RUNNING)
        await storage.update_status(saga_id, SagaStatus.FAILED)
        assert await storage.purge_finished(timedelta(0)) == 1
        with pytest.raises(SagaNotFoundError):
            await run.commit()
        with pytest.raises(SagaLeaseLostError):
            await leased.commit()
    assert await storage.get_step_history(saga_id) == []


async def test_a_write_to_a_missing_saga_is_refused_at_once(storage: StorageOnTestTime) -> None:
    """In a run, a write to a saga that is not there raises before the commit."""
    async with storage.create_run() as run:
        with pytest.raises(SagaNotFoundError):
            await run.log_step(uuid.uuid4(), "Pay", "act", SagaStepStatus.STARTED)


async def test_a_run_without_a_lease_has_none_to_give_back(storage: StorageOnTestTime) -> None:
    """Releasing and parking need a lease, and say where to get it."""
    async with storage.create_run() as run:
        with pytest.raises(CQRSError, match=r"create_run\(lease\)"):
            await run.release_lease()
        with pytest.raises(CQRSError, match=r"start_saga\(\)"):
            await run.park_saga("look at it")


async def test_a_saga_can_be_started_and_released_in_one_commit(storage: StorageOnTestTime) -> None:
    """What is released with the commit that starts it is nobody's, and keeps the version of its lease."""
    async with storage.create_run() as run:
        lease = await run.start_saga(uuid.uuid4(), "OrderSaga", {}, owner="starter", lease_duration=1)
        await run.release_lease()
        await run.commit()
    record = await storage.load_saga(lease.saga_id)
    assert (record.locked_by, record.lease_version) == (None, lease.version)


async def test_other_values_are_kept_as_they_are(storage: StorageOnTestTime) -> None:
    """A value that JSON does not know is stored as it is: nothing is converted in memory."""
    saga_id, total = uuid.uuid4(), decimal.Decimal("10.10")
    await storage.create_saga(saga_id, "OrderSaga", {"total": total, "all": [total]})
    assert (await storage.load_saga_state(saga_id))[1] == {"total": total, "all": [total]}


async def test_tuples_come_back_as_lists(storage: StorageOnTestTime) -> None:
    """A tuple in a context becomes a list, as it does in JSON, and what is in it is not shared."""
    item = {"sku": "a"}
    saga_id = uuid.uuid4()
    await storage.create_saga(saga_id, "OrderSaga", {"items": (item, (1, 2))})
    item["sku"] = "spoilt"
    assert (await storage.load_saga_state(saga_id))[1] == {"items": [{"sku": "a"}, [1, 2]]}


def test_leases_go_by_wall_time_unless_told_otherwise() -> None:
    """Without a clock, times are those of the system, with their zone."""
    record = _run_to_the_end(_made_now())
    age = datetime.now(timezone.utc) - record.created_at
    assert timedelta(0) <= age < timedelta(minutes=1)


async def _made_now() -> Any:
    storage = MemorySagaStorage()
    return await storage.load_saga(await _new_saga(storage))


def _run_to_the_end(coroutine: Any) -> Any:
    """No method of the storage suspends: it needs no event loop."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


async def _new_saga(storage: MemorySagaStorage) -> uuid.UUID:
    saga_id = uuid.uuid4()
    await storage.create_saga(saga_id, "OrderSaga", {})
    return saga_id
