"""Recovery by itself: a worker that looks for sagas that nobody runs any more, and brings them to their end."""

from __future__ import annotations

import functools
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

import anyio
from anyio.abc import TaskStatus

from cqrs._concurrency import SingleErrorTaskGroup, nobodys_cancellation_fails, run_protected
from cqrs._options import at_least_one, seconds
from cqrs.exceptions import (
    SagaConcurrencyError,
    SagaDeadlineExceededError,
    SagaParkedError,
    SagaRolledBackError,
    StrayCancellationError,
)
from cqrs.saga._run import RecoveryTurn
from cqrs.saga.journal import new_owner
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.options import LEASE_DURATION
from cqrs.saga.storage.models import SagaLease
from cqrs.saga.storage.protocol import ILeasedSagaStorage

_T = TypeVar("_T")
_logger = logging.getLogger("cqrs")
_GIVE_BACK_TIMEOUT = 5.0
_OUTCOMES = (SagaRolledBackError, SagaDeadlineExceededError, SagaParkedError, SagaConcurrencyError)
_ANY_NUMBER = 2**31 - 1


class SagaRecoveryWorker:
    """Polls the storage of a mediator, claims sagas, recovers them, and renews its leases while it works.

    ::

        async with anyio.create_task_group() as tasks:
            await tasks.start(SagaRecoveryWorker(mediator).run)

    Any number of workers may share a storage with leases: no two of them run one saga at the same time. A
    recovery that fails is tried again after ``backoff`` seconds, twice as many the next time, and so on; when
    ``max_recovery_attempts`` have failed the saga is parked (``storage.get_parked_sagas()``,
    ``storage.unpark_saga()``). A recovery has not failed when it has rolled the saga back.

    With a storage without leases there must be one worker, and ``lease_duration`` is how long a saga must not have
    changed to be taken for abandoned.

    :param poll_interval: seconds between two looks into the storage when there was nothing to do.
    :param max_concurrent_sagas: how many sagas are recovered at once.
    :param max_recovery_attempts: after how many failed recoveries a saga is parked.
    :param backoff: seconds before the second attempt.
    :param max_backoff: seconds that it waits at most.
    :param lease_duration: seconds after which others may take a saga over, should this worker die.
    :raises InvalidOptionError: a number is none, or too small.
    :raises ConfigurationError: two sagas of the mediator have one name.
    """

    def __init__(
        self,
        mediator: SagaMediator,
        *,
        poll_interval: float = 5.0,
        max_concurrent_sagas: int = 10,
        max_recovery_attempts: int = 5,
        backoff: float = 1.0,
        max_backoff: float = 300.0,
        lease_duration: float = LEASE_DURATION,
    ) -> None:
        self._mediator = mediator
        self._names = mediator.saga_names
        self._poll_interval = seconds("poll_interval", poll_interval)
        self._slots = at_least_one("max_concurrent_sagas", max_concurrent_sagas)
        self._max_attempts = at_least_one("max_recovery_attempts", max_recovery_attempts)
        self._backoff = seconds("backoff", backoff, may_be_zero=True)
        self._max_backoff = seconds("max_backoff", max_backoff, may_be_zero=True)
        self._lease_duration = seconds("lease_duration", lease_duration)
        self._owner = new_owner()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Recover sagas until cancelled. Whatever a saga or the storage raises goes to the log.

        Cancelled, it leaves the sagas that it works on as they are, to other workers; a rollback that has begun
        goes on for at most its ``compensation_timeout``.
        """
        storage = self._mediator.storage
        task_status.started()
        if isinstance(storage, ILeasedSagaStorage):
            await self._run_leased(storage)
        else:
            await self._run_unleased()

    async def _run_unleased(self) -> NoReturn:
        while True:
            await self._try(self.recover_once)
            await anyio.sleep(self._poll_interval)

    async def _run_leased(self, storage: ILeasedSagaStorage) -> NoReturn:
        slots = anyio.Semaphore(self._slots)

        async def recover(lease: SagaLease) -> None:
            try:
                await self._recover_leased(storage, lease)
            finally:
                slots.release()

        async with SingleErrorTaskGroup("a recovery worker failed") as tasks:
            while True:
                async with slots:
                    free = slots.value + 1
                leases = await self._try(functools.partial(self._claim, storage, free)) or ()
                for lease in leases:
                    slots.acquire_nowait()
                    tasks.start_soon(nobodys_cancellation_fails, functools.partial(recover, lease))
                if len(leases) < free:
                    await anyio.sleep(self._poll_interval)

    async def _try(self, look: Callable[[], Awaitable[_T]]) -> _T | None:
        try:
            return await look()
        except Exception:
            _logger.exception("Sagas to recover could not be claimed")
            return None

    async def recover_once(self) -> int:
        """Claim the sagas that are due, up to ``max_concurrent_sagas``, and recover them; give how many there were.

        :raises Exception: what the storage raised when it was asked for them.
        """
        storage = self._mediator.storage
        if not isinstance(storage, ILeasedSagaStorage):
            return await self._recover_unleased()
        leases = await self._claim(storage, self._slots)
        async with SingleErrorTaskGroup("a recovery worker failed") as tasks:
            for lease in leases:
                tasks.start_soon(nobodys_cancellation_fails, functools.partial(self._recover_leased, storage, lease))
        return len(leases)

    # However often recovery has failed: whoever was to park the saga may have died before.
    async def _claim(self, storage: ILeasedSagaStorage, limit: int) -> Sequence[SagaLease]:
        return await storage.claim_sagas(
            self._owner, self._lease_duration, limit, max_recovery_attempts=_ANY_NUMBER, saga_names=self._names
        )

    async def _recover_leased(self, storage: ILeasedSagaStorage, lease: SagaLease) -> None:
        try:
            record = await storage.load_saga(lease.saga_id)
        except BaseException as error:
            await self._give_back(storage, lease)
            if not isinstance(error, Exception):
                raise
            _logger.exception("Saga %s could not be loaded", lease.saga_id)
            return
        failed = record.recovery_attempts
        if failed >= self._max_attempts:
            await self._give_back(storage, lease, f"recovery failed {failed} times, or ended without a word")
            return
        gives_up = f"recovery failed {failed + 1} times" if failed + 1 >= self._max_attempts else None
        # A larger power of two would be no float.
        backoff = min(self._backoff * 2.0 ** min(failed, 64), self._max_backoff)
        await self._recover(lease.saga_id, record.name, RecoveryTurn(lease, backoff, gives_up))

    async def _give_back(self, storage: ILeasedSagaStorage, lease: SagaLease, parks: str | None = None) -> None:
        async def write() -> None:
            async with storage.create_run(lease) as run:
                await (run.release_lease() if parks is None else run.park_saga(parks))
                await run.commit()

        try:
            await run_protected(write, _GIVE_BACK_TIMEOUT)
        except Exception:
            _logger.exception("Saga %s could not be given back", lease.saga_id)
        else:
            if parks is not None:
                _logger.error("Saga %s is parked: %s", lease.saga_id, parks)

    async def _recover_unleased(self) -> int:
        recovered = 0
        for name in self._names:
            for saga_id in await self._mediator.storage.get_sagas_for_recovery(
                self._slots, self._max_attempts, math.ceil(self._lease_duration), name
            ):
                # In a task of its own, where its cancellations can be told from those of others.
                async with SingleErrorTaskGroup("a recovery worker failed") as tasks:
                    tasks.start_soon(self._recover, saga_id, name, RecoveryTurn())
                recovered += 1
        return recovered

    async def _recover(self, saga_id: uuid.UUID, name: str | None, turn: RecoveryTurn) -> None:
        recover = functools.partial(self._mediator.recover, saga_id, saga_name=name, turn=turn)
        try:
            await nobodys_cancellation_fails(recover)
        except StrayCancellationError:
            _logger.exception("Recovering saga %s ended with an error", saga_id)
            # For the saga it was a cancellation of the worker, which costs nothing.
            await self._try(lambda: self._mediator.storage.increment_recovery_attempts(saga_id))
        except Exception as outcome:
            if isinstance(outcome, _OUTCOMES) and getattr(outcome, "saga_id", None) == saga_id:
                _logger.info("%s", outcome)
            else:
                _logger.exception("Recovering saga %s ended with an error", saga_id)
        else:
            _logger.info("Saga %s has been recovered", saga_id)
