"""The contract of a saga storage, as tests: what recovery needs of one with leases."""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import collections
import uuid
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs.exceptions import SagaNotFoundError
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease
from cqrs.saga.storage.protocol import ILeasedSagaStorage
from cqrs.testing.saga_leases import LONG, SHORT, SagaLeaseContract, assert_held, release, start_saga
from cqrs.testing.saga_runs import assert_written, write_everything
from cqrs.testing.saga_storage import BOUND, CONTEXT, TICK, logged_names, new_saga

UNENDED = (SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.COMPENSATION_FAILED)
ENDED = (SagaStatus.COMPLETED, SagaStatus.FAILED)


async def claim(storage: ILeasedSagaStorage, owner: str = "worker", limit: int = 100) -> list[uuid.UUID]:
    """The sagas that recovery can have now, leased to ``owner`` from here on."""
    leases = await storage.claim_sagas(owner, LONG, limit, max_recovery_attempts=3)
    return [lease.saga_id for lease in leases]


async def park(storage: ILeasedSagaStorage, reason: str = "look at it", name: str = "OrderSaga") -> uuid.UUID:
    """A saga that was leased and parked."""
    lease = await storage.acquire_lease(await new_saga(storage, name=name), "parker", LONG)
    async with storage.create_run(lease) as run:
        await run.park_saga(reason)
        await run.commit()
    return lease.saga_id


class LeasedSagaStorageContract(SagaLeaseContract):
    """The contract of :class:`~cqrs.saga.storage.ILeasedSagaStorage`, that of any saga storage included.

    Used like :class:`~cqrs.testing.SagaStorageContract`. Where leases end, the tests sleep for a few
    hundredths of a second; where the storage's clock can be moved by hand, override ``let_time_pass``.
    """

    async def test_a_release_after_a_failure_backs_off(self, storage: ILeasedSagaStorage) -> None:
        """Released with ``retry_after``, a saga has one more failed recovery, and is not claimed before its time."""
        lease = await storage.acquire_lease(await new_saga(storage), "worker", LONG)
        await release(storage, lease, retry_after=LONG)
        record = await storage.load_saga(lease.saga_id)
        assert (record.locked_by, record.locked_until, record.recovery_attempts) == (None, None, 1)
        assert record.available_at is not None
        assert await claim(storage) == []

    async def test_a_saga_that_backs_off_is_claimed_when_it_is_due(self, storage: ILeasedSagaStorage) -> None:
        """After ``retry_after`` seconds recovery gets the saga again; each failure counts."""
        saga_id = await new_saga(storage)
        for failures in (1, 2):
            lease = await storage.acquire_lease(saga_id, "worker", LONG)
            await release(storage, lease, retry_after=SHORT)
            assert (await storage.load_saga(saga_id)).recovery_attempts == failures
        await self.let_time_pass(storage, 2 * SHORT)
        assert await claim(storage) == [saga_id]

    async def test_a_saga_that_backs_off_can_be_leased(self, storage: ILeasedSagaStorage) -> None:
        """Who asks for a saga that recovery is to leave alone for a while gets it at once."""
        lease = await start_saga(storage)
        await release(storage, lease, retry_after=LONG)
        taken = await storage.acquire_lease(lease.saga_id, "operator", LONG)
        assert_held(await storage.load_saga(lease.saga_id), taken)

    @pytest.mark.parametrize("status", UNENDED)
    async def test_recovery_claims_what_has_not_ended(self, storage: ILeasedSagaStorage, status: SagaStatus) -> None:
        """A saga in each status that is no end is claimed, and listed for recovery until it is."""
        saga_id = await new_saga(storage, status)
        assert await storage.get_sagas_for_recovery(10) == [saga_id]
        [lease] = await storage.claim_sagas("worker", LONG, 10, max_recovery_attempts=1)
        assert (lease.saga_id, lease.owner, lease.duration) == (saga_id, "worker", LONG)
        record = await storage.load_saga(saga_id)
        assert_held(record, lease)
        assert (record.status, record.context, record.version) == (status, CONTEXT, 1)
        assert await storage.get_sagas_for_recovery(10) == []

    @pytest.mark.parametrize("status", ENDED)
    async def test_recovery_leaves_what_has_ended(self, storage: ILeasedSagaStorage, status: SagaStatus) -> None:
        """A saga that is COMPLETED or FAILED is not claimed."""
        saga_id = await new_saga(storage, status)
        assert await claim(storage) == []
        assert (await storage.load_saga(saga_id)).locked_by is None

    async def test_recovery_leaves_what_somebody_holds(self, storage: ILeasedSagaStorage) -> None:
        """A saga under a lease is neither claimed nor listed, not even by its holder, until the lease has ended."""
        await start_saga(storage)
        short = await start_saga(storage, duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        assert await storage.get_sagas_for_recovery(10) == [short.saga_id]
        [taken] = await storage.claim_sagas("starter", LONG, 10, max_recovery_attempts=3)
        assert (taken.saga_id, taken.version > short.version) == (short.saga_id, True)
        assert await storage.claim_sagas("starter", LONG, 10, max_recovery_attempts=3) == []

    async def test_claims_go_to_those_first_that_wait_longest(self, storage: ILeasedSagaStorage) -> None:
        """A claim gets as many as it asks for, those first that were changed the longest time ago."""
        sagas = [*await self._new_sagas_one_after_another(storage, 5)]
        await storage.update_context(sagas[0], {"changed": True})
        order = [*sagas[1:], sagas[0]]
        assert await claim(storage, limit=2) == order[:2]
        assert await claim(storage, limit=2) == order[2:4]
        assert await claim(storage, limit=2) == order[4:]

    async def test_a_released_saga_waits_behind_the_others(self, storage: ILeasedSagaStorage) -> None:
        """A saga that was claimed and released is claimed after those that have waited meanwhile."""
        first, second = await self._new_sagas_one_after_another(storage, 2)
        [lease] = await storage.claim_sagas("worker", LONG, 1, max_recovery_attempts=3)
        await release(storage, lease, retry_after=0)
        await self.let_time_pass(storage, TICK)
        assert await claim(storage) == [second, first]

    async def test_claims_can_ask_for_names(self, storage: ILeasedSagaStorage) -> None:
        """With names, a claim gets the sagas of these names alone, and as many as it asks for."""
        sagas = {name: await new_saga(storage, name=name) for name in ("A", "B", "C", "AB")}
        leases = await storage.claim_sagas("worker", LONG, 2, max_recovery_attempts=3, saga_names={"AB", "C"})
        assert {lease.saga_id for lease in leases} == {sagas["AB"], sagas["C"]}
        assert set(await claim(storage)) == {sagas["A"], sagas["B"]}

    async def test_claims_leave_those_alone_that_failed_too_often(self, storage: ILeasedSagaStorage) -> None:
        """A saga with as many failed recoveries as the claim allows is left alone."""
        often, seldom = await new_saga(storage), await new_saga(storage)
        await storage.set_recovery_attempts(often, 3)
        await storage.set_recovery_attempts(seldom, 2)
        assert await claim(storage) == [seldom]

    async def test_a_lease_that_was_not_given_back_is_counted(self, storage: ILeasedSagaStorage) -> None:
        """A claim counts a failed recovery for each one that was lost, not for who began the saga or gave it back."""
        lost, given_back = await start_saga(storage, duration=SHORT), await start_saga(storage, duration=SHORT)
        await release(storage, given_back)
        for failures in (0, 1, 2):
            await self.let_time_pass(storage, 2 * SHORT)
            leases = await storage.claim_sagas("worker", SHORT, 10, max_recovery_attempts=9)
            assert {lease.saga_id for lease in leases} == {lost.saga_id, given_back.saga_id}
            assert (await storage.load_saga(lost.saga_id)).recovery_attempts == failures
            assert (await storage.load_saga(given_back.saga_id)).recovery_attempts == 0
            await release(storage, next(lease for lease in leases if lease.saga_id == given_back.saga_id))

    async def test_the_last_lease_that_is_lost_counts_too(self, storage: ILeasedSagaStorage) -> None:
        """A claim gets a saga that has one attempt left, counted as failed by then: it can be parked."""
        lease = await start_saga(storage, duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        await storage.claim_sagas("lost", SHORT, 10, max_recovery_attempts=3)
        await storage.set_recovery_attempts(lease.saga_id, 2)
        await self.let_time_pass(storage, 2 * SHORT)
        [claimed] = await storage.claim_sagas("worker", LONG, 10, max_recovery_attempts=3)
        record = await storage.load_saga(lease.saga_id)
        assert_held(record, claimed)
        assert record.recovery_attempts == 3

    async def test_a_lease_that_somebody_asked_for_is_not_counted(self, storage: ILeasedSagaStorage) -> None:
        """Who takes over by ``acquire_lease`` counts nothing."""
        lease = await start_saga(storage, duration=SHORT)
        await self.let_time_pass(storage, 2 * SHORT)
        await storage.claim_sagas("lost", SHORT, 10, max_recovery_attempts=3)
        await self.let_time_pass(storage, 2 * SHORT)
        await storage.acquire_lease(lease.saga_id, "operator", LONG)
        assert (await storage.load_saga(lease.saga_id)).recovery_attempts == 0

    async def test_claims_at_once_never_share(self, storage: ILeasedSagaStorage) -> None:
        """Twenty workers that claim fifty sagas at once get each of them once, and none is left."""
        sagas = {await new_saga(storage) for _ in range(50)}
        claimed: list[SagaLease] = []

        async def work(owner: str) -> None:
            while leases := await storage.claim_sagas(owner, LONG, 3, max_recovery_attempts=3):
                claimed.extend(leases)
                await checkpoint()

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as workers:
                for number in range(20):
                    workers.start_soon(work, f"worker-{number}")
        # A worker may find what is left locked by others that then take less: nothing is claimed twice all the same.
        times = collections.Counter(lease.saga_id for lease in claimed)
        assert set(times.values()) == {1}
        assert set(times) | set(await claim(storage)) == sagas
        for lease in claimed:
            assert_held(await storage.load_saga(lease.saga_id), lease)

    async def test_a_parked_saga_is_left_alone(self, storage: ILeasedSagaStorage) -> None:
        """A parked saga has no lease, is neither claimed nor listed for recovery, and says why it was parked."""
        saga_id = await park(storage, "the bank says no")
        record = await storage.load_saga(saga_id)
        assert (record.parked_reason, record.locked_by, record.locked_until) == ("the bank says no", None, None)
        assert (record.status, record.recovery_attempts) == (SagaStatus.RUNNING, 0)
        assert await claim(storage) == []
        assert await storage.get_sagas_for_recovery(10) == []

    async def test_parking_is_committed_with_its_run(self, storage: ILeasedSagaStorage) -> None:
        """A saga is parked with the writes of the run: not before, and not without them."""
        lease = await start_saga(storage)
        async with storage.create_run(lease) as run:
            await run.park_saga("never mind")
        assert_held(await storage.load_saga(lease.saga_id), lease)
        async with storage.create_run(lease) as run:
            await write_everything(run, lease.saga_id)
            await run.park_saga("look at it")
            await run.commit()
        await assert_written(storage, lease.saga_id)
        assert (await storage.load_saga(lease.saga_id)).parked_reason == "look at it"

    async def test_parked_sagas_are_listed(self, storage: ILeasedSagaStorage) -> None:
        """Parked sagas are listed as records, those first that wait longest, by name and number where asked."""
        parked: list[uuid.UUID] = []
        for name in ("A", "B", "A"):
            parked.append(await park(storage, name=name))
            await self.let_time_pass(storage, TICK)
        await new_saga(storage, name="A")
        assert [record.saga_id for record in await storage.get_parked_sagas()] == parked
        assert [record.saga_id for record in await storage.get_parked_sagas(2)] == parked[:2]
        [record] = await storage.get_parked_sagas(saga_name="B")
        assert record == await storage.load_saga(parked[1])

    async def test_a_parked_saga_can_be_leased(self, storage: ILeasedSagaStorage) -> None:
        """Who asks for a parked saga gets its lease; it stays parked."""
        saga_id = await park(storage)
        lease = await storage.acquire_lease(saga_id, "operator", LONG)
        record = await storage.load_saga(saga_id)
        assert_held(record, lease)
        assert record.parked_reason == "look at it"

    async def test_an_unparked_saga_is_recovered_at_once(self, storage: ILeasedSagaStorage) -> None:
        """Unparked, a saga is due now, with no failed recovery counted."""
        lease = await start_saga(storage)
        await release(storage, lease, retry_after=LONG)
        lease = await storage.acquire_lease(lease.saga_id, "worker", LONG)
        async with storage.create_run(lease) as run:
            await run.park_saga("look at it")
            await run.commit()
        await storage.unpark_saga(lease.saga_id)
        record = await storage.load_saga(lease.saga_id)
        assert (record.parked_reason, record.recovery_attempts, record.available_at) == (None, 0, None)
        assert await storage.get_parked_sagas() == []
        assert await claim(storage) == [lease.saga_id]

    async def test_unparking_changes_nothing_that_is_not_parked(self, storage: ILeasedSagaStorage) -> None:
        """A saga that is not parked stays as it is: its count, its time and its lease."""
        lease = await start_saga(storage)
        await release(storage, lease, retry_after=LONG)
        await storage.acquire_lease(lease.saga_id, "worker", LONG)
        before = await storage.load_saga(lease.saga_id)
        await storage.unpark_saga(lease.saga_id)
        assert await storage.load_saga(lease.saga_id) == before

    async def test_what_ended_is_purged_with_its_log(self, storage: ILeasedSagaStorage) -> None:
        """COMPLETED and FAILED sagas that are old enough are deleted with their logs; their ids are free again."""
        ended = [await new_saga(storage, status) for status in ENDED]
        for saga_id in ended:
            await storage.log_step(saga_id, "Pay", "act", SagaStepStatus.COMPLETED)
        await self.let_time_pass(storage, 2 * SHORT)
        assert await storage.purge_finished(timedelta(seconds=SHORT)) == 2
        for saga_id in ended:
            with pytest.raises(SagaNotFoundError):
                await storage.load_saga(saga_id)
            await storage.create_saga(saga_id, "OrderSaga", {})
            assert await logged_names(storage, saga_id) == []

    async def test_what_has_not_ended_is_not_purged(self, storage: ILeasedSagaStorage) -> None:
        """Sagas that recovery may have to do with, and parked ones, are never deleted."""
        sagas = [await new_saga(storage, status) for status in UNENDED]
        sagas.append(await park(storage))
        await self.let_time_pass(storage, 2 * SHORT)
        assert await storage.purge_finished(timedelta(seconds=SHORT)) == 0
        for saga_id in sagas:
            assert (await storage.load_saga(saga_id)).saga_id == saga_id

    async def test_what_ended_lately_is_not_purged(self, storage: ILeasedSagaStorage) -> None:
        """A saga is kept that ended less long ago, however long ago it was begun."""
        saga_id = await new_saga(storage)
        await self.let_time_pass(storage, 2 * SHORT)
        await storage.update_status(saga_id, SagaStatus.COMPLETED)
        assert await storage.purge_finished(timedelta(seconds=LONG)) == 0
        assert (await storage.load_saga(saga_id)).status is SagaStatus.COMPLETED

    async def test_a_purge_deletes_so_many_at_most(self, storage: ILeasedSagaStorage) -> None:
        """A purge deletes as many as it is told, and says how many there were."""
        for _ in range(5):
            await new_saga(storage, SagaStatus.COMPLETED)
        await self.let_time_pass(storage, 2 * SHORT)
        purged = [await storage.purge_finished(timedelta(seconds=SHORT), limit=2) for _ in range(4)]
        assert purged == [2, 2, 1, 0]
