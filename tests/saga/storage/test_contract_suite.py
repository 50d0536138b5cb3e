"""The contract suite can fail: each of these storages is broken in one way, and a test finds it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from cqrs.exceptions import SagaAlreadyExistsError, SagaConcurrencyError, SagaLeaseLostError, SagaLockedError
from cqrs.saga.storage import ISagaStorage, MemorySagaStorage, SagaLease, SagaStatus
from cqrs.testing import LeasedSagaStorageContract


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One is enough: what is tested here is the suite."""
    return "asyncio", {}


CONTRACT = LeasedSagaStorageContract()


class SharesWhatItHandsOut(MemorySagaStorage):
    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[Any, Any] = {}

    async def load_saga_state(self, saga_id, *, read_for_update=False):
        return self.shared.setdefault(saga_id, await super().load_saga_state(saga_id))


class SharesWhatItIsHanded(MemorySagaStorage):
    async def create_saga(self, saga_id, name, context):
        await super().create_saga(saga_id, name, context)
        self._table.sagas[saga_id.int].context = context


class CopiesContextsOneLevelDeep(MemorySagaStorage):
    async def update_context(self, saga_id, context, current_version=None):
        await super().update_context(saga_id, context, current_version)
        self._table.sagas[saga_id.int].context = dict(context)


class SortsTheLogByName(MemorySagaStorage):
    async def get_step_history(self, saga_id):
        return sorted(await super().get_step_history(saga_id), key=lambda entry: entry.step_name)


class ForgetsZones(MemorySagaStorage):
    async def get_step_history(self, saga_id):
        log = await super().get_step_history(saga_id)
        return [type(entry)(**{**vars(entry), "timestamp": entry.timestamp.replace(tzinfo=None)}) for entry in log]


class IgnoresVersions(MemorySagaStorage):
    async def update_context(self, saga_id, context, current_version=None):
        await super().update_context(saga_id, context)


class KeepsTheFirstQuietly(MemorySagaStorage):
    async def create_saga(self, saga_id, name, context):
        with contextlib.suppress(SagaAlreadyExistsError):
            await super().create_saga(saga_id, name, context)


class RecoversInNoOrder(MemorySagaStorage):
    async def get_sagas_for_recovery(self, *args, **kwargs):
        return (await super().get_sagas_for_recovery(*args, **kwargs))[::-1]


class RecoversFreshSagas(MemorySagaStorage):
    async def get_sagas_for_recovery(self, limit, max_recovery_attempts=5, stale_after_seconds=None, saga_name=None):
        return await super().get_sagas_for_recovery(limit, max_recovery_attempts, None, saga_name)


class _Run:
    """Hands on to another run, or to what stands in for it."""

    def __init__(self, run: Any, **instead: Any) -> None:
        self._run = run
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


async def _nothing(*args: Any) -> None:
    pass


class WritesAtOnce(MemorySagaStorage):
    """Its runs are none."""

    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        yield _Run(self, commit=_nothing, rollback=_nothing)


class CommitsWhenLeft(MemorySagaStorage):
    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        async with super().create_run(lease) as run:
            try:
                yield run
            finally:
                await run.commit()


class CommitsInTwoParts(MemorySagaStorage):
    """A log entry is committed with all that comes before it."""

    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        async with super().create_run(lease) as run:

            async def log_step(*entry: Any) -> None:
                await run.log_step(*entry)
                await run.commit()

            yield _Run(run, log_step=log_step)


class IsTornByACancelledCommit(MemorySagaStorage):
    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        async with super().create_run(lease) as run:

            async def update_status(saga_id: Any, status: SagaStatus) -> None:
                await checkpoint()
                await self.update_status(saga_id, status)

            yield _Run(run, update_status=update_status)


class DoesNotFence(MemorySagaStorage):
    def create_run(self, lease=None):
        return super().create_run()


class FencesByOwnerAlone(MemorySagaStorage):
    def create_run(self, lease=None):
        saga = self._table.sagas.get(lease.saga_id.int) if lease else None
        if saga is not None and saga.locked_by == lease.owner:
            lease = SagaLease(lease.saga_id, lease.owner, saga.lease_version, lease.duration)
        return super().create_run(lease)


class FencesAfterWriting(MemorySagaStorage):
    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        async with super().create_run() as run:

            async def commit() -> None:
                await run.commit()
                if lease is not None:
                    await self.renew_lease(lease)

            yield _Run(run, commit=commit)


class FencesOneSagaAlone(MemorySagaStorage):
    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        async with super().create_run(lease) as run:

            async def update_context(saga_id: Any, context: dict[str, Any]) -> None:
                fenced = lease is not None and lease.saga_id == saga_id
                await (run if fenced else self).update_context(saga_id, context)

            yield _Run(run, update_context=update_context)


class DoesNotRenew(MemorySagaStorage):
    @contextlib.asynccontextmanager
    async def create_run(self, lease=None) -> AsyncIterator[Any]:
        async with super().create_run(lease) as run:

            async def commit() -> None:
                until = self._table.find(lease.saga_id).locked_until if lease else None
                await run.commit()
                if lease is not None:
                    self._table.find(lease.saga_id).locked_until = until

            yield _Run(run, commit=commit)


class LosesEndedLeases(MemorySagaStorage):
    async def renew_lease(self, lease):
        if not self._table.find(lease.saga_id).is_leased(self._clock()):
            raise SagaLeaseLostError(lease.saga_id, lease.owner)
        await super().renew_lease(lease)


class LetsHoldersLeaseAgain(MemorySagaStorage):
    async def acquire_lease(self, saga_id, owner, duration):
        try:
            return await super().acquire_lease(saga_id, owner, duration)
        except SagaLockedError as locked:
            if locked.owner != owner:
                raise
            return self._table.find(saga_id).lease_to(owner, duration, self._clock())


class StartsVersionsAnew(MemorySagaStorage):
    async def acquire_lease(self, saga_id, owner, duration):
        self._table.find(saga_id).lease_version = 0
        return await super().acquire_lease(saga_id, owner, duration)


class SharesClaims(MemorySagaStorage):
    """Reads what can be claimed, and claims it later."""

    async def claim_sagas(self, owner, duration, limit, *, max_recovery_attempts, saga_names=None):
        sagas = await self.get_sagas_for_recovery(limit, max_recovery_attempts)
        await checkpoint()
        return [self._table.find(saga_id).lease_to(owner, duration, self._clock()) for saga_id in sagas]


class ClaimsWhatIsNotDue(MemorySagaStorage):
    async def claim_sagas(self, owner, duration, limit, *, max_recovery_attempts, saga_names=None):
        for saga in self._table.sagas.values():
            saga.available_at = None
        return await super().claim_sagas(
            owner, duration, limit, max_recovery_attempts=max_recovery_attempts, saga_names=saga_names
        )


class ClaimsWhatIsParked(MemorySagaStorage):
    async def claim_sagas(self, owner, duration, limit, *, max_recovery_attempts, saga_names=None):
        for record in await self.get_parked_sagas():
            await self.unpark_saga(record.saga_id)
        return await super().claim_sagas(
            owner, duration, limit, max_recovery_attempts=max_recovery_attempts, saga_names=saga_names
        )


class ClaimsAnyName(MemorySagaStorage):
    async def claim_sagas(self, owner, duration, limit, *, max_recovery_attempts, saga_names=None):
        return await super().claim_sagas(owner, duration, limit, max_recovery_attempts=max_recovery_attempts)


class CountsNoLostLeases(MemorySagaStorage):
    async def claim_sagas(self, *args, **kwargs):
        attempts = {saga.saga_id: saga.recovery_attempts for saga in self._table.sagas.values()}
        leases = await super().claim_sagas(*args, **kwargs)
        for lease in leases:
            self._table.find(lease.saga_id).recovery_attempts = attempts[lease.saga_id]
        return leases


class CountsEveryClaim(CountsNoLostLeases):
    async def claim_sagas(self, *args, **kwargs):
        leases = await super().claim_sagas(*args, **kwargs)
        for lease in leases:
            self._table.find(lease.saga_id).recovery_attempts += 1
        return leases


class CountsWhatIsAskedFor(MemorySagaStorage):
    async def acquire_lease(self, saga_id, owner, duration):
        was_lost = self._table.find(saga_id).locked_by is not None
        lease = await super().acquire_lease(saga_id, owner, duration)
        self._table.find(saga_id).recovery_attempts += was_lost
        return lease


class PurgesTooEarly(MemorySagaStorage):
    async def purge_finished(self, older_than, limit=1000):
        return await super().purge_finished(timedelta(0), limit)


class PurgesWithoutEnd(MemorySagaStorage):
    async def purge_finished(self, older_than, limit=1000):
        return await super().purge_finished(older_than)


FOUND: list[tuple[type[ISagaStorage], Callable[..., Any], dict[str, Any]]] = [
    (SharesWhatItHandsOut, CONTRACT.test_what_is_handed_out_is_not_shared, {}),
    (SharesWhatItIsHanded, CONTRACT.test_what_is_handed_in_is_not_shared, {}),
    (CopiesContextsOneLevelDeep, CONTRACT.test_what_is_handed_in_is_not_shared, {}),
    (SortsTheLogByName, CONTRACT.test_a_log_keeps_the_order_of_its_writes, {}),
    (ForgetsZones, CONTRACT.test_log_entries_say_what_was_logged, {"action": "act"}),
    (IgnoresVersions, CONTRACT.test_a_write_to_another_version_is_refused, {"version": 1}),
    (IgnoresVersions, CONTRACT.test_no_update_is_lost_where_writers_name_the_version, {}),
    (KeepsTheFirstQuietly, CONTRACT.test_an_id_is_given_once, {}),
    (RecoversInNoOrder, CONTRACT.test_recovery_gets_those_first_that_wait_longest, {}),
    (RecoversFreshSagas, CONTRACT.test_recovery_can_leave_fresh_sagas_alone, {}),
    (WritesAtOnce, CONTRACT.test_nobody_else_sees_what_is_not_committed, {}),
    (WritesAtOnce, CONTRACT.test_leaving_without_a_commit_rolls_back, {}),
    (WritesAtOnce, CONTRACT.test_an_error_rolls_back, {}),
    (WritesAtOnce, CONTRACT.test_a_rollback_forgets_and_the_run_goes_on, {}),
    (WritesAtOnce, CONTRACT.test_a_conflict_of_versions_writes_nothing, {}),
    (WritesAtOnce, CONTRACT.test_an_id_is_given_once_in_runs_too, {}),
    (CommitsWhenLeft, CONTRACT.test_leaving_without_a_commit_rolls_back, {}),
    (CommitsWhenLeft, CONTRACT.test_a_cancellation_rolls_back, {}),
    (CommitsInTwoParts, CONTRACT.test_nobody_else_sees_what_is_not_committed, {}),
    (IsTornByACancelledCommit, CONTRACT.test_a_cancellation_rolls_back, {}),
    (DoesNotFence, CONTRACT.test_a_lost_lease_writes_nothing, {"taker": "somebody else"}),
    (DoesNotFence, CONTRACT.test_a_commit_of_nothing_renews_too, {}),
    (FencesByOwnerAlone, CONTRACT.test_a_lost_lease_writes_nothing, {"taker": "starter"}),
    (FencesAfterWriting, CONTRACT.test_a_lost_lease_writes_nothing, {"taker": "somebody else"}),
    (FencesOneSagaAlone, CONTRACT.test_a_lost_lease_writes_nothing_of_other_sagas, {}),
    (DoesNotRenew, CONTRACT.test_a_commit_renews_the_lease, {}),
    (DoesNotRenew, CONTRACT.test_a_late_commit_succeeds_where_nobody_took_over, {}),
    (LosesEndedLeases, CONTRACT.test_an_ended_lease_can_be_renewed_until_it_is_taken, {}),
    (LetsHoldersLeaseAgain, CONTRACT.test_a_leased_saga_is_locked, {"owner": "starter"}),
    (StartsVersionsAnew, CONTRACT.test_versions_of_leases_grow, {}),
    (SharesClaims, CONTRACT.test_claims_at_once_never_share, {}),
    (ClaimsWhatIsNotDue, CONTRACT.test_a_release_after_a_failure_backs_off, {}),
    (ClaimsWhatIsParked, CONTRACT.test_a_parked_saga_is_left_alone, {}),
    (ClaimsAnyName, CONTRACT.test_claims_can_ask_for_names, {}),
    (CountsNoLostLeases, CONTRACT.test_a_lease_that_was_not_given_back_is_counted, {}),
    (CountsNoLostLeases, CONTRACT.test_the_last_lease_that_is_lost_counts_too, {}),
    (CountsEveryClaim, CONTRACT.test_a_lease_that_was_not_given_back_is_counted, {}),
    (CountsWhatIsAskedFor, CONTRACT.test_a_lease_that_somebody_asked_for_is_not_counted, {}),
    (PurgesTooEarly, CONTRACT.test_what_ended_lately_is_not_purged, {}),
    (PurgesWithoutEnd, CONTRACT.test_a_purge_deletes_so_many_at_most, {}),
]


@pytest.mark.parametrize(
    ("broken", "test", "arguments"), FOUND, ids=[f"{broken.__name__}-{test.__name__}" for broken, test, _ in FOUND]
)
async def test_what_is_broken_is_found(
    broken: type[ISagaStorage], test: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    """A storage that does not keep a part of the contract fails the test for that part."""
    with pytest.raises((AssertionError, SagaConcurrencyError, pytest.fail.Exception)):
        await test(broken(), **arguments)


@pytest.mark.parametrize(("test", "arguments"), [row[1:] for row in FOUND], ids=[row[1].__name__ for row in FOUND])
async def test_the_same_tests_pass_on_what_is_whole(test: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """The tests above fail for the fault alone."""
    await test(MemorySagaStorage(), **arguments)


def test_without_pytest_the_extra_is_named() -> None:
    """Importing the suite where pytest is missing says what to install."""
    script = "import sys; sys.modules['pytest'] = None\nimport cqrs.testing"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode != 0
    assert "MissingDependencyError" in ended.stderr
    assert "anyio-cqrs[testing]" in ended.stderr
