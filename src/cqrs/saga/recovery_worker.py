"""Recovery by itself: a worker that looks for sagas that nobody runs any more, and brings them to their end."""

from __future__ import annotations

import logging
import math
import uuid

import anyio
from anyio.abc import TaskStatus

from cqrs._options import at_least_one
from cqrs.exceptions import (
    InvalidOptionError,
    SagaConcurrencyError,
    SagaDeadlineExceededError,
    SagaParkedError,
    SagaRolledBackError,
)
from cqrs.saga._run import RecoveryTurn
from cqrs.saga.journal import new_owner
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.options import LEASE_DURATION
from cqrs.saga.storage.models import SagaLease
from cqrs.saga.storage.protocol import ILeasedSagaStorage

_logger = logging.getLogger("cqrs")


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
        for option, value in (("poll_interval", poll_interval), ("lease_duration", lease_duration)):
            if not value > 0:
                raise InvalidOptionError(option, value, "a number of seconds greater than zero")
        self._mediator = mediator
        self._names = mediator.saga_names
        self._poll_interval = poll_interval
        self._slots = at_least_one("max_concurrent_sagas", max_concurrent_sagas)
        self._max_attempts = at_least_one("max_recovery_attempts", max_recovery_attempts)
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._lease_duration = lease_duration
        self._owner = new_owner()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Recover sagas until cancelled. Whatever a saga or the storage raises goes to the log.

        Cancelled, it leaves the sagas that it works on as they are, to other workers; a rollback that has begun
        goes on for at most its ``compensation_timeout``.
        """
        task_status.started()
        while True:
            try:
                recovered = await self.recover_once()
            except Exception:
                _logger.exception("Sagas to recover could not be claimed")
                recovered = 0
            if recovered < self._slots:
                await anyio.sleep(self._poll_interval)

    async def recover_once(self) -> int:
        """Claim the sagas that are due, up to ``max_concurrent_sagas``, and recover them; give how many there were.

        :raises Exception: what the storage raised when it was asked for them.
        """
        storage = self._mediator.storage
        if not isinstance(storage, ILeasedSagaStorage):
            return await self._recover_unleased()
        leases = await storage.claim_sagas(
            self._owner,
            self._lease_duration,
            self._slots,
            max_recovery_attempts=self._max_attempts,
            saga_names=self._names,
        )
        async with anyio.create_task_group() as tasks:
            for lease in leases:
                tasks.start_soon(self._recover_leased, storage, lease)
        return len(leases)

    async def _recover_leased(self, storage: ILeasedSagaStorage, lease: SagaLease) -> None:
        try:
            record = await storage.load_saga(lease.saga_id)
        except Exception:
            _logger.exception("Saga %s could not be loaded", lease.saga_id)
            return
        failed = record.recovery_attempts
        if failed >= self._max_attempts:
            await self._give_up(storage, lease, f"{failed} runs of it have ended without a word")
            return
        gives_up = f"recovery failed {failed + 1} times" if failed + 1 >= self._max_attempts else None
        turn = RecoveryTurn(lease, min(self._backoff * 2**failed, self._max_backoff), gives_up)
        await self._recover(lease.saga_id, record.name, turn)

    async def _give_up(self, storage: ILeasedSagaStorage, lease: SagaLease, reason: str) -> None:
        try:
            async with storage.create_run(lease) as run:
                await run.park_saga(reason)
                await run.commit()
        except Exception:
            _logger.exception("Saga %s could not be parked", lease.saga_id)
        else:
            _logger.error("Saga %s is parked: %s", lease.saga_id, reason)

    async def _recover_unleased(self) -> int:
        recovered = 0
        for name in self._names:
            for saga_id in await self._mediator.storage.get_sagas_for_recovery(
                self._slots, self._max_attempts, math.ceil(self._lease_duration), name
            ):
                await self._recover(saga_id, name, RecoveryTurn())
                recovered += 1
        return recovered

    async def _recover(self, saga_id: uuid.UUID, name: str | None, turn: RecoveryTurn) -> None:
        try:
            await self._mediator.recover(saga_id, saga_name=name, turn=turn)
        except (SagaRolledBackError, SagaDeadlineExceededError, SagaParkedError, SagaConcurrencyError) as outcome:
            _logger.info("%s", outcome)
        except Exception:
            _logger.exception("Recovering saga %s ended with an error", saga_id)
        else:
            _logger.info("Saga %s has been recovered", saga_id)
