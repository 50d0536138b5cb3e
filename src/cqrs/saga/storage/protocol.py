"""What sagas ask of a storage, as a contract.

There are two levels. :class:`ISagaStorage` is the documented one: it makes sagas durable, for one runner
of each saga at a time. :class:`ILeasedSagaStorage` adds leases, which keep two runners of one saga
apart, and deadlines, backing off and parking. An implementation of the first works everywhere; what it
cannot do is told in the documentation ("Storages without leases").

The contract, which ``cqrs.testing.SagaStorageContract`` tests:

* **Order.** The log of a saga comes back in the order in which it was written, whatever the clock says.
* **Atomicity.** What was written between ``create_run()`` (or the last commit) and ``commit()`` becomes
  durable together, or not at all: after ``rollback()``, an error, a cancellation or a crash, nothing of it
  is there. A commit that was cancelled may have happened.
* **Isolation.** What is not committed is seen by nobody else. What is handed in or out is never shared:
  changing a dictionary afterwards changes nothing that is stored.
* **Absence.** Writing to a saga that is not there raises :class:`~cqrs.exceptions.SagaNotFoundError` (or another
  ValueError), by the commit at the latest.
* **Closing.** Who calls ``create_run()`` leaves its context. Leaving without a commit rolls back. The
  library opens one run for each checkpoint, and holds none while a step acts or a consumer has a result.
* **Contexts** are dictionaries of JSON's types.
* **Leases** are judged by the storage's own clock. Committing in a run that has a lease renews it; if
  somebody else has leased the saga in the meantime, the commit raises
  :class:`~cqrs.exceptions.SagaLeaseLostError` and writes nothing.
"""

from __future__ import annotations

import abc
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord, StepAction


class SagaStorageRun(Protocol):
    """A unit of work on a storage. Nothing is durable before :meth:`commit`."""

    async def create_saga(self, saga_id: uuid.UUID, name: str, context: dict[str, Any]) -> None:
        """Add a saga with status PENDING, at version 1.

        :raises ValueError: there is one of this id.
        """
        ...

    async def update_context(
        self, saga_id: uuid.UUID, context: dict[str, Any], current_version: int | None = None
    ) -> None:
        """Replace the context, and count the version up.

        :param current_version: the version it is to have now; None: any.
        :raises SagaConcurrencyError: it has another version.
        """
        ...

    async def update_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        """Set the status."""
        ...

    async def log_step(
        self,
        saga_id: uuid.UUID,
        step_name: str,
        action: StepAction,
        status: SagaStepStatus,
        details: str | None = None,
    ) -> None:
        """Append to the log."""
        ...

    async def load_saga_state(
        self, saga_id: uuid.UUID, *, read_for_update: bool = False
    ) -> tuple[SagaStatus, dict[str, Any], int]:
        """The status, the context and its version.

        :param read_for_update: lock the saga until the run ends, where the storage can.
        :raises ValueError: there is no such saga.
        """
        ...

    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        """The log, in the order in which it was written."""
        ...

    async def commit(self) -> None:
        """Make all that was written since the last commit durable, at once."""
        ...

    async def rollback(self) -> None:
        """Forget what was written since the last commit."""
        ...


class LeasedSagaRun(SagaStorageRun, Protocol):
    """A unit of work for the holder of a lease. Its commit raises SagaLeaseLostError where the lease is lost."""

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
        """Add a saga with status RUNNING, leased to ``owner``. From here on the run has that lease.

        :param lease_duration: seconds.
        :raises SagaAlreadyExistsError: there is one of this id. The run is rolled back.
        """
        ...

    async def release_lease(self, retry_after: float | None = None) -> None:
        """Give the lease back with the next commit; others can take the saga at once.

        :param retry_after: a recovery has failed: count it, and let recovery wait for so many seconds.
        """
        ...

    async def park_saga(self, reason: str) -> None:
        """Give the lease back with the next commit, and keep recovery away until the saga is unparked."""
        ...


class ISagaStorage(abc.ABC):
    """The documented storage. Each write is durable when it returns, unless it is made in a run."""

    @abc.abstractmethod
    async def create_saga(self, saga_id: uuid.UUID, name: str, context: dict[str, Any]) -> None:
        """See :meth:`SagaStorageRun.create_saga`."""

    @abc.abstractmethod
    async def update_context(
        self, saga_id: uuid.UUID, context: dict[str, Any], current_version: int | None = None
    ) -> None:
        """See :meth:`SagaStorageRun.update_context`."""

    @abc.abstractmethod
    async def update_status(self, saga_id: uuid.UUID, status: SagaStatus) -> None:
        """See :meth:`SagaStorageRun.update_status`."""

    @abc.abstractmethod
    async def log_step(
        self,
        saga_id: uuid.UUID,
        step_name: str,
        action: StepAction,
        status: SagaStepStatus,
        details: str | None = None,
    ) -> None:
        """See :meth:`SagaStorageRun.log_step`."""

    @abc.abstractmethod
    async def load_saga_state(
        self, saga_id: uuid.UUID, *, read_for_update: bool = False
    ) -> tuple[SagaStatus, dict[str, Any], int]:
        """See :meth:`SagaStorageRun.load_saga_state`."""

    @abc.abstractmethod
    async def get_step_history(self, saga_id: uuid.UUID) -> list[SagaLogEntry]:
        """See :meth:`SagaStorageRun.get_step_history`."""

    @abc.abstractmethod
    async def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = 5,
        stale_after_seconds: int | None = None,
        saga_name: str | None = None,
    ) -> list[uuid.UUID]:
        """Sagas that have not ended (RUNNING and COMPENSATING at least), those first that have waited longest.

        :param limit: how many at most.
        :param max_recovery_attempts: leave those alone whose recovery has failed so many times.
        :param stale_after_seconds: only those that nobody has changed for so long; None: all.
        :param saga_name: only those of this name; None: all.
        """

    @abc.abstractmethod
    async def increment_recovery_attempts(self, saga_id: uuid.UUID, new_status: SagaStatus | None = None) -> None:
        """Count a failed recovery, and set the status where one is given."""

    @abc.abstractmethod
    async def set_recovery_attempts(self, saga_id: uuid.UUID, attempts: int) -> None:
        """Set the count of failed recoveries: 0 after one that succeeded, the maximum to have it left alone."""

    def create_run(self) -> AbstractAsyncContextManager[SagaStorageRun]:
        """A unit of work.

        :raises NotImplementedError: this storage has none, and makes each write durable by itself.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not support create_run()")


class ILeasedSagaStorage(ISagaStorage):
    """A storage that keeps the runners of a saga apart."""

    @abc.abstractmethod
    def create_run(self, lease: SagaLease | None = None) -> AbstractAsyncContextManager[LeasedSagaRun]:
        """A unit of work, for the holder of ``lease``: its commit renews that, or fails where it is lost."""

    @abc.abstractmethod
    async def load_saga(self, saga_id: uuid.UUID) -> SagaRecord:
        """All that is stored of a saga, its log aside.

        :raises SagaNotFoundError: there is no such saga.
        """

    @abc.abstractmethod
    async def acquire_lease(self, saga_id: uuid.UUID, owner: str, duration: float) -> SagaLease:
        """Lease a saga that nobody holds, in whatever status it is, parked or not.

        :param duration: seconds.
        :raises SagaNotFoundError: there is no such saga.
        :raises SagaLockedError: somebody holds it.
        """

    @abc.abstractmethod
    async def claim_sagas(
        self,
        owner: str,
        duration: float,
        limit: int,
        *,
        max_recovery_attempts: int,
        saga_names: Collection[str] | None = None,
    ) -> Sequence[SagaLease]:
        """Lease what recovery has to do: sagas that have not ended and that nobody holds.

        Those in status PENDING, RUNNING, COMPENSATING or COMPENSATION_FAILED, not parked, due, and with fewer
        failed recoveries than ``max_recovery_attempts``; those first that have waited longest. Two claims at
        once never get the same saga. A saga whose last lease, other than its first, ended without having been
        given back has taken its runner down with it, for all that is known: that counts as a failed recovery.

        :param duration: seconds.
        :param limit: how many at most.
        :param saga_names: only those of these names; None: all.
        """

    @abc.abstractmethod
    async def renew_lease(self, lease: SagaLease) -> None:
        """Hold ``lease`` for its duration from now.

        :raises SagaLeaseLostError: somebody else has leased the saga since, or it was released.
        """

    @abc.abstractmethod
    async def get_parked_sagas(self, limit: int = 100, saga_name: str | None = None) -> list[SagaRecord]:
        """Sagas that wait for somebody to look at them, those first that have waited longest."""

    @abc.abstractmethod
    async def unpark_saga(self, saga_id: uuid.UUID) -> None:
        """Let recovery have a saga again, at once and with no failed recovery counted. Not parked, it stays as it is.

        :raises SagaNotFoundError: there is no such saga.
        """

    @abc.abstractmethod
    async def purge_finished(self, older_than: timedelta, limit: int = 1000) -> int:
        """Delete sagas that ended, COMPLETED or FAILED, longer ago than that, with their logs.

        :param limit: how many at most.
        :returns: how many were deleted.
        """
