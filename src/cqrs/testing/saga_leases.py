"""The contract of a saga storage, as tests: leases."""
# ruff: noqa: S101, PT012 - these are tests; a run may be refused by any of its writes, or by its commit

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs.exceptions import SagaAlreadyExistsError, SagaLeaseLostError, SagaLockedError, SagaNotFoundError
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease, SagaRecord
from cqrs.saga.storage.protocol import ILeasedSagaStorage, ISagaStorage, SagaStorageRun
from cqrs.testing.saga_runs import SagaRunContract, assert_untouched, assert_written, write_everything
from cqrs.testing.saga_storage import BOUND, CONTEXT, TICK, new_saga

LONG = 600.0
"""Seconds for which a lease is held throughout a test."""

SHORT = 0.05
"""Seconds after which a lease ends within a test."""

_Write: TypeAlias = Callable[[ISagaStorage | SagaStorageRun, uuid.UUID], Awaitable[None]]
_WRITES: dict[str, _Write] = {
    "update_context": lambda target, saga_id: target.update_context(saga_id, {}),
    "update_status": lambda target, saga_id: target.update_status(saga_id, SagaStatus.FAILED),
    "log_step": lambda target, saga_id: target.log_step(saga_id, "Pay", "act", SagaStepStatus.STARTED),
}
_each_write = pytest.mark.parametrize("write", _WRITES.values(), ids=_WRITES.keys())


async def start_saga(
    storage: ILeasedSagaStorage, *, name: str = "OrderSaga", owner: str = "starter", duration: float = LONG
) -> SagaLease:
    """The lease on a new saga with ``CONTEXT`` and an empty log, which ``owner`` runs."""
    async with storage.create_run() as run:
        lease = await run.start_saga(uuid.uuid4(), name, CONTEXT, owner=owner, lease_duration=duration)
        await run.commit()
    return lease


async def release(storage: ILeasedSagaStorage, lease: SagaLease, retry_after: float | None = None) -> None:
    """Give a lease back, in a run of its own."""
    async with storage.create_run(lease) as run:
        await run.release_lease(retry_after)
        await run.commit()


def assert_held(record: SagaRecord, lease: SagaLease) -> None:
    """A saga is leased, as ``lease`` says."""
    assert (record.saga_id, record.locked_by, record.lease_version) == (lease.saga_id, lease.owner, lease.version)
    assert end_of_lease(record).utcoffset() is not None


def end_of_lease(record: SagaRecord) -> datetime:
    """When the lease on a saga ends, which has one."""
    assert record.locked_until is not None
    return record.locked_until


class SagaLeaseContract(SagaRunContract):
    """What a storage with leases keeps to, whoever recovers its sagas."""

    async def test_a_started_saga_runs_under_a_lease(self, storage: ILeasedSagaStorage) -> None:
        """A started saga is RUNNING, at version 1, and leased to the one who started it."""
        deadline = datetime(2040, 2, 29, 12, 30, 15, tzinfo=timezone.utc)
        saga_id = uuid.uuid4()
        async with storage.create_run() as run:
            lease = await run.start_saga(
                saga_id, "OrderSaga", CONTEXT, owner="starter", lease_duration=LONG, deadline=deadline
            )
            await run.commit()
        assert (lease.saga_id, lease.owner, lease.duration) == (saga_id, "starter", LONG)
        record = await storage.load_saga(saga_id)
        _assert_new(record, deadline)
        assert_held(record, lease)

    async def test_a_deadline_keeps_its_moment(self, storage: ILeasedSagaStorage) -> None:
        """A deadline given in any time zone comes back as the same moment, with a zone."""
        deadline = datetime(2040, 2, 29, 12, 30, 15, tzinfo=timezone(timedelta(hours=-7)))
        async with storage.create_run() as run:
            lease = await run.start_saga(
                uuid.uuid4(), "OrderSaga", CONTEXT, owner="starter", lease_duration=LONG, deadline=deadline
            )
            await run.commit()
        assert (await storage.load_saga(lease.saga_id)).deadline == deadline

    async def test_a_start_is_nothing_before_its_commit(self, storage: ILeasedSagaStorage) -> None:
        """A saga whose start was not committed is not there, and can be started by somebody else."""
        saga_id = uuid.uuid4()
        async with storage.create_run() as run:
            await run.start_saga(saga_id, "OrderSaga", CONTEXT, owner="first", lease_duration=LONG)
        with pytest.raises(SagaNotFoundError):
            await storage.load_saga(saga_id)
        async with storage.create_run() as run:
            lease = await run.start_saga(saga_id, "OrderSaga", CONTEXT, owner="second", lease_duration=LONG)
            await run.commit()
        assert_held(await storage.load_saga(saga_id), lease)

    async def test_a_start_and_what_follows_are_one_commit(self, storage: ILeasedSagaStorage) -> None:
        """What is written after the start in its run is committed with it."""
        saga_id = uuid.uuid4()
        async with storage.create_run() as run:
            lease = await run.start_saga(saga_id, "OrderSaga", CONTEXT, owner="starter", lease_duration=LONG)
            await write_everything(run, saga_id)
            await run.commit()
        await assert_written(storage, saga_id)
        assert_held(await storage.load_saga(saga_id), lease)

    async def test_an_id_is_started_once(self, storage: ILeasedSagaStorage) -> None:
        """Starting a saga of a taken id raises SagaAlreadyExistsError and rolls the run back."""
        saga_id, taken = await new_saga(storage), await new_saga(storage)
        async with storage.create_run() as run:
            await write_everything(run, saga_id)
            with pytest.raises(SagaAlreadyExistsError):
                await run.start_saga(taken, "OtherSaga", {}, owner="second", lease_duration=LONG)
            await run.commit()
        await assert_untouched(storage, saga_id)
        await assert_untouched(storage, taken)
        assert (await storage.load_saga(taken)).locked_by is None

    async def test_one_of_many_starts_wins(self, storage: ILeasedSagaStorage) -> None:
        """Of tasks that start one id at once, one has the lease, and the others get SagaAlreadyExistsError."""
        saga_id, won, lost = uuid.uuid4(), list[SagaLease](), list[str]()

        async def start(owner: str) -> None:
            try:
                async with storage.create_run() as run:
                    lease = await run.start_saga(saga_id, "OrderSaga", CONTEXT, owner=owner, lease_duration=LONG)
                    await checkpoint()
                    await run.commit()
            except SagaAlreadyExistsError:
                lost.append(owner)
            else:
                won.append(lease)

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as starters:
                for number in range(8):
                    starters.start_soon(start, f"starter-{number}")
        assert (len(won), len(lost)) == (1, 7)
        assert_held(await storage.load_saga(saga_id), won[0])

    async def test_a_record_tells_what_is_stored(self, storage: ILeasedSagaStorage) -> None:
        """A record holds what was written, and when, by times with a zone; it is not shared."""
        saga_id = await new_saga(storage, name="RefundSaga")
        made = await storage.load_saga(saga_id)
        await self.let_time_pass(storage, TICK)
        await storage.update_context(saga_id, {"items": []})
        await storage.increment_recovery_attempts(saga_id, SagaStatus.COMPENSATING)
        record = await storage.load_saga(saga_id)
        assert (record.name, record.status, record.version) == ("RefundSaga", SagaStatus.COMPENSATING, 2)
        assert (record.recovery_attempts, record.locked_by, record.locked_until) == (1, None, None)
        assert made.created_at == record.created_at < record.updated_at
        assert made.created_at.utcoffset() is not None
        record.context["items"].append("spoilt")
        assert (await storage.load_saga(saga_id)).context == {"items": []}

    async def test_a_missing_saga_is_not_found(self, storage: ILeasedSagaStorage) -> None:
        """What asks for a saga that is not there raises SagaNotFoundError."""
        saga_id = uuid.uuid4()
        with pytest.raises(SagaNotFoundError):
            await storage.load_saga(saga_id)
        with pytest.raises(SagaNotFoundError):
            await storage.load_saga_state(saga_id)
        with pytest.raises(SagaNotFoundError):
            await storage.acquire_lease(saga_id, "worker", LONG)
        with pytest.raises(SagaNotFoundError):
            await storage.unpark_saga(saga_id)

    @_each_write
    async def test_a_missing_saga_cannot_be_written(self, storage: ILeasedSagaStorage, write: _Write) -> None:
        """A write to a saga that is not there raises SagaNotFoundError; in a run, by its commit at the latest."""
        saga_id = uuid.uuid4()
        with pytest.raises(SagaNotFoundError):
            await write(storage, saga_id)
        with pytest.raises(SagaNotFoundError):
            async with storage.create_run() as run:
                await write(run, saga_id)
                await run.commit()
        assert await storage.get_step_history(saga_id) == []

    async def test_taken_ids_are_told_by_their_error(self, storage: ILeasedSagaStorage) -> None:
        """Creating a saga of a taken id raises SagaAlreadyExistsError, which knows the id."""
        saga_id = await new_saga(storage)
        with pytest.raises(SagaAlreadyExistsError) as caught:
            await storage.create_saga(saga_id, "OrderSaga", {})
        assert caught.value.saga_id == saga_id

    @pytest.mark.parametrize("status", list(SagaStatus))
    async def test_a_free_saga_can_be_leased(self, storage: ILeasedSagaStorage, status: SagaStatus) -> None:
        """A saga that nobody holds can be leased, whatever its status, which stays."""
        saga_id = await new_saga(storage, status)
        lease = await storage.acquire_lease(saga_id, "worker", LONG)
        assert (lease.saga_id, lease.owner, lease.duration) == (saga_id, "worker", LONG)
        record = await storage.load_saga(saga_id)
        assert_held(record, lease)
        assert (record.status, record.context, record.version) == (status, CONTEXT, 1)

    @pytest.mark.parametrize("owner", ["somebody else", "starter"])
    async def test_a_leased_saga_is_locked(self, storage: ILeasedSagaStorage, owner: str) -> None:
        """A saga that somebody holds cannot be leased, by the holder neither; the error says who holds it."""
        lease = await start_saga(storage, owner="starter")
        with pytest.raises(SagaLockedError) as caught:
            await storage.acquire_lease(lease.saga_id, owner, LONG)
        assert (caught.value.saga_id, caught.value.owner) == (lease.saga_id, "starter")
        assert_held(await storage.load_saga(lease.saga_id), lease)

    async def test_one_of_many_takes_a_lease(self, storage: ILeasedSagaStorage) -> None:
        """Of tasks that lease one saga at once, one gets it, and the others get SagaLockedError."""
        saga_id, won, locked = await new_saga(storage), list[SagaLease](), list[str]()

        async def acquire(owner: str) -> None:
            try:
                won.append(await storage.acquire_lease(saga_id, owner, LONG))
            except SagaLockedError:
                locked.append(owner)

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as workers:
                for number in range(8):
                    workers.start_soon(acquire, f"worker-{number}")
        assert (len(won), len(locked)) == (1, 7)
        assert_held(await storage.load_saga(saga_id), won[0])

    async def test_an_ended_lease_can_be_taken_over(self, storage: ILeasedSagaStorage) -> None:
        """A saga whose lease has ended can be leased to somebody else, with a higher version."""
        lease = await start_saga(storage, duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        taken = await storage.acquire_lease(lease.saga_id, "taker", LONG)
        assert taken.version > lease.version
        assert_held(await storage.load_saga(lease.saga_id), taken)

    async def test_versions_of_leases_grow(self, storage: ILeasedSagaStorage) -> None:
        """Each lease on a saga has a higher version than the one before, also after a release."""
        saga_id = await new_saga(storage)
        versions: list[int] = []
        for _ in range(3):
            lease = await storage.acquire_lease(saga_id, "worker", LONG)
            versions.append(lease.version)
            await release(storage, lease)
        assert versions == sorted(set(versions))

    async def test_a_lease_can_be_renewed(self, storage: ILeasedSagaStorage) -> None:
        """A renewed lease is held for its duration from the renewal on."""
        lease = await start_saga(storage)
        before = await storage.load_saga(lease.saga_id)
        await self.let_time_pass(storage, TICK)
        await storage.renew_lease(lease)
        after = await storage.load_saga(lease.saga_id)
        assert end_of_lease(after) > end_of_lease(before)
        assert after.lease_version == lease.version

    async def test_an_ended_lease_can_be_renewed_until_it_is_taken(self, storage: ILeasedSagaStorage) -> None:
        """A lease that ended, and that nobody took, is renewed; taken over, it is lost."""
        lease = await start_saga(storage, duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        await storage.renew_lease(lease)
        await self.let_time_pass(storage, 2 * SHORT)
        taken = await storage.acquire_lease(lease.saga_id, "taker", LONG)
        with pytest.raises(SagaLeaseLostError) as caught:
            await storage.renew_lease(lease)
        assert (caught.value.saga_id, caught.value.owner) == (lease.saga_id, "starter")
        assert_held(await storage.load_saga(lease.saga_id), taken)

    async def test_a_released_lease_cannot_be_renewed(self, storage: ILeasedSagaStorage) -> None:
        """A lease that was given back is lost to the one who had it."""
        lease = await start_saga(storage)
        await release(storage, lease)
        with pytest.raises(SagaLeaseLostError):
            await storage.renew_lease(lease)
        assert (await storage.load_saga(lease.saga_id)).locked_by is None

    async def test_a_commit_renews_the_lease(self, storage: ILeasedSagaStorage) -> None:
        """A commit in a run with a lease holds that for its duration from now; a rollback does not."""
        lease = await start_saga(storage)
        started = await storage.load_saga(lease.saga_id)
        await self.let_time_pass(storage, TICK)
        async with storage.create_run(lease) as run:
            await write_everything(run, lease.saga_id)
        assert (await storage.load_saga(lease.saga_id)).locked_until == started.locked_until
        async with storage.create_run(lease) as run:
            await write_everything(run, lease.saga_id)
            await run.commit()
        committed = await storage.load_saga(lease.saga_id)
        assert end_of_lease(committed) > end_of_lease(started)
        assert_held(committed, lease)

    async def test_a_commit_of_nothing_renews_too(self, storage: ILeasedSagaStorage) -> None:
        """A commit with nothing to write renews the lease of its run, and fails where it is lost."""
        lease = await start_saga(storage, duration=SHORT)
        started = await storage.load_saga(lease.saga_id)
        await self.let_time_pass(storage, 2 * SHORT)
        async with storage.create_run(lease) as run:
            await run.commit()
        assert end_of_lease(await storage.load_saga(lease.saga_id)) > end_of_lease(started)
        await self.let_time_pass(storage, 2 * SHORT)
        await storage.acquire_lease(lease.saga_id, "taker", LONG)
        with pytest.raises(SagaLeaseLostError):
            async with storage.create_run(lease) as run:
                await run.commit()

    async def test_a_late_commit_succeeds_where_nobody_took_over(self, storage: ILeasedSagaStorage) -> None:
        """A commit after the end of its lease writes, and renews it, while nobody else has taken the saga."""
        lease = await start_saga(storage, duration=SHORT)
        started = await storage.load_saga(lease.saga_id)
        await self.let_time_pass(storage, 2 * SHORT)
        async with storage.create_run(lease) as run:
            await write_everything(run, lease.saga_id)
            await run.commit()
        await assert_written(storage, lease.saga_id)
        assert end_of_lease(await storage.load_saga(lease.saga_id)) > end_of_lease(started)

    @pytest.mark.parametrize("taker", ["somebody else", "starter"])
    async def test_a_lost_lease_writes_nothing(self, storage: ILeasedSagaStorage, taker: str) -> None:
        """After the saga was leased again, were it to one of the same name, the earlier holder's commit is refused."""
        lease = await start_saga(storage, owner="starter", duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        taken = await storage.acquire_lease(lease.saga_id, taker, LONG)
        with pytest.raises(SagaLeaseLostError):
            async with storage.create_run(lease) as run:
                await write_everything(run, lease.saga_id)
                await run.commit()
        await assert_untouched(storage, lease.saga_id)
        assert_held(await storage.load_saga(lease.saga_id), taken)

    async def test_a_lost_lease_writes_nothing_of_other_sagas(self, storage: ILeasedSagaStorage) -> None:
        """A refused commit writes nothing of its run, of whichever saga."""
        other, lease = await new_saga(storage), await start_saga(storage)
        await release(storage, lease)
        with pytest.raises(SagaLeaseLostError):
            async with storage.create_run(lease) as run:
                await write_everything(run, other)
                await run.update_status(lease.saga_id, SagaStatus.COMPLETED)
                await run.commit()
        await assert_untouched(storage, other)

    @pytest.mark.parametrize("retry_after", [None, 0.0])
    async def test_a_lost_lease_cannot_be_released(
        self, storage: ILeasedSagaStorage, retry_after: float | None
    ) -> None:
        """Who lost a lease cannot release that of somebody else, nor count a failure."""
        lease = await start_saga(storage, duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        taken = await storage.acquire_lease(lease.saga_id, "taker", LONG)
        with pytest.raises(SagaLeaseLostError):
            await release(storage, lease, retry_after)
        record = await storage.load_saga(lease.saga_id)
        assert_held(record, taken)
        assert (record.recovery_attempts, record.available_at) == (0, None)

    async def test_a_lost_lease_cannot_park(self, storage: ILeasedSagaStorage) -> None:
        """Who lost a lease cannot park the saga of somebody else."""
        lease = await start_saga(storage)
        await release(storage, lease)
        with pytest.raises(SagaLeaseLostError):
            async with storage.create_run(lease) as run:
                await run.park_saga("too late")
                await run.commit()
        assert await storage.get_parked_sagas() == []

    async def test_a_run_has_the_lease_of_the_saga_it_started(self, storage: ILeasedSagaStorage) -> None:
        """Later commits of the run that started a saga renew its lease, and are refused where it is lost."""
        async with storage.create_run() as run:
            lease = await run.start_saga(uuid.uuid4(), "OrderSaga", CONTEXT, owner="starter", lease_duration=SHORT)
            await run.commit()
            started = await storage.load_saga(lease.saga_id)
            await self.let_time_pass(storage, 2 * SHORT)
            await run.commit()
            assert end_of_lease(await storage.load_saga(lease.saga_id)) > end_of_lease(started)
            await self.let_time_pass(storage, 2 * SHORT)
            await storage.acquire_lease(lease.saga_id, "taker", LONG)
            with pytest.raises(SagaLeaseLostError):
                await self._write_and_commit(run, lease.saga_id)
        await assert_untouched(storage, lease.saga_id)

    async def _write_and_commit(self, run: SagaStorageRun, saga_id: uuid.UUID) -> None:
        await write_everything(run, saga_id)
        await run.commit()

    async def test_a_release_is_committed_with_its_run(self, storage: ILeasedSagaStorage) -> None:
        """The lease is given back with the writes of the run: not before, and not without them."""
        lease = await start_saga(storage)
        async with storage.create_run(lease) as run:
            await run.release_lease()
        assert_held(await storage.load_saga(lease.saga_id), lease)
        async with storage.create_run(lease) as run:
            await write_everything(run, lease.saga_id)
            await run.release_lease()
            await run.commit()
        await assert_written(storage, lease.saga_id)
        record = await storage.load_saga(lease.saga_id)
        assert (record.locked_by, record.locked_until, record.lease_version) == (None, None, lease.version)
        assert (record.recovery_attempts, record.available_at, record.parked_reason) == (0, None, None)
        assert (await storage.acquire_lease(lease.saga_id, "taker", LONG)).version > lease.version

    async def test_a_rollback_forgets_a_release(self, storage: ILeasedSagaStorage) -> None:
        """What is committed after a rollback renews the lease, although it was to be released before."""
        lease = await start_saga(storage)
        async with storage.create_run(lease) as run:
            await run.release_lease(retry_after=LONG)
            await run.rollback()
            await write_everything(run, lease.saga_id)
            await run.commit()
        record = await storage.load_saga(lease.saga_id)
        assert_held(record, lease)
        assert record.recovery_attempts == 0

    async def test_recoveries_are_counted_under_a_lease(self, storage: ILeasedSagaStorage) -> None:
        """Failed recoveries can be counted, and the count set, whoever holds the saga; the lease stays."""
        lease = await start_saga(storage)
        await storage.increment_recovery_attempts(lease.saga_id)
        assert (await storage.load_saga(lease.saga_id)).recovery_attempts == 1
        await storage.set_recovery_attempts(lease.saga_id, 0)
        record = await storage.load_saga(lease.saga_id)
        assert record.recovery_attempts == 0
        assert_held(record, lease)

    async def test_writes_outside_of_runs_need_no_lease(self, storage: ILeasedSagaStorage) -> None:
        """Writes by themselves are made whoever holds the saga; the lease stays."""
        lease = await start_saga(storage)
        await storage.log_step(lease.saga_id, "Pay", "act", SagaStepStatus.STARTED)
        await storage.update_status(lease.saga_id, SagaStatus.COMPENSATING)
        await storage.update_context(lease.saga_id, {"paid": True})
        assert await storage.load_saga_state(lease.saga_id) == (SagaStatus.COMPENSATING, {"paid": True}, 2)
        assert_held(await storage.load_saga(lease.saga_id), lease)


def _assert_new(record: SagaRecord, deadline: datetime) -> None:
    assert (record.name, record.status, record.context) == ("OrderSaga", SagaStatus.RUNNING, CONTEXT)
    assert (record.version, record.deadline, record.recovery_attempts) == (1, deadline, 0)
    assert (record.available_at, record.parked_reason) == (None, None)
    assert all(moment.utcoffset() is not None for moment in (record.created_at, record.updated_at))
