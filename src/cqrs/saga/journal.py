"""What a run of a saga writes into its storage, and when: one checkpoint, one commit."""

from __future__ import annotations

import abc
import dataclasses
import math
import os
import secrets
import socket
import time
import uuid
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from typing import Any

import anyio

from cqrs.exceptions import ConfigurationError, SagaAlreadyExistsError, SagaLeaseLostError, SagaNotFoundError
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord, StepAction
from cqrs.saga.storage.protocol import ILeasedSagaStorage, ISagaStorage, LeasedSagaRun, SagaStorageRun

_NEVER_AGAIN = 1_000_000
# As a count of failed recoveries: what a storage that cannot park a saga understands.


@dataclasses.dataclass
class Checkpoint:
    """What becomes durable together.

    :param entries: what is appended to the log: step, action, status, details.
    :param releases: whether the lease is given back.
    :param retry_after: a recovery has failed, and the next one is to wait for so many seconds.
    :param parks: why the saga is to be parked.
    """

    entries: list[tuple[str, StepAction, SagaStepStatus, str | None]] = dataclasses.field(
        default_factory=list[tuple[str, StepAction, SagaStepStatus, "str | None"]]
    )
    status: SagaStatus | None = None
    context: dict[str, Any] | None = None
    releases: bool = False
    retry_after: float | None = None
    parks: str | None = None

    def log(self, step_name: str, action: StepAction, status: SagaStepStatus, error: object = None) -> None:
        """Append an entry to the log."""
        self.entries.append((step_name, action, status, None if error is None else repr(error)))


class Journal(abc.ABC):
    """The writes of one run of one saga."""

    def __init__(self, saga_id: uuid.UUID) -> None:
        self.saga_id = saga_id

    @abc.abstractmethod
    async def begin(self, name: str, context: dict[str, Any], deadline: datetime | None, first: Checkpoint) -> None:
        """Add the saga, in status RUNNING, and write ``first`` with it.

        :raises SagaAlreadyExistsError: there is one of this id.
        """

    @abc.abstractmethod
    async def load(self) -> tuple[SagaRecord, list[SagaLogEntry]]:
        """Take the saga over; give what is stored of it. One that has COMPLETED is not taken over.

        :raises SagaNotFoundError: there is none of this id.
        :raises SagaLockedError: somebody else is running it.
        """

    @abc.abstractmethod
    async def write(self, checkpoint: Checkpoint) -> None:
        """Make ``checkpoint`` durable.

        :raises SagaLeaseLostError: somebody else has taken the saga over.
        """

    @abc.abstractmethod
    async def find(self) -> bool:
        """Whether the saga was begun, after a beginning that was cut off."""

    @abc.abstractmethod
    async def keep(self) -> None:
        """See that the saga stays this run's for a good while from now.

        :raises SagaLeaseLostError: somebody else has taken it over.
        """

    def check_is_held(self) -> None:
        """:raises SagaLeaseLostError: the lease has ended, as far as one can tell from here."""
        return

    @property
    def is_held(self) -> bool:
        """Whether there is a lease to give back."""
        return False

    @property
    @abc.abstractmethod
    def renewal_interval(self) -> float | None:
        """After how many seconds :meth:`keep` is to be called again. None: there is no need to."""


class LeasedJournal(Journal):
    """Writes for the holder of a lease.

    :param duration: how many seconds a lease is to last from each write.
    :param lease: the lease, where the saga has been claimed already.
    """

    def __init__(
        self, storage: ILeasedSagaStorage, saga_id: uuid.UUID, duration: float, lease: SagaLease | None = None
    ) -> None:
        super().__init__(saga_id)
        self._storage = storage
        self._duration = duration if lease is None else lease.duration
        self._lease = lease
        self._owner = new_owner() if lease is None else lease.owner
        self._renewed_at = (-math.inf, -math.inf)
        self._gives_back = False

    async def begin(self, name: str, context: dict[str, Any], deadline: datetime | None, first: Checkpoint) -> None:
        """See :meth:`Journal.begin`."""
        now = _now()
        async with self._storage.create_run() as run:
            lease = await run.start_saga(
                self.saga_id, name, context, owner=self._owner, lease_duration=self._duration, deadline=deadline
            )
            await _put(run, self.saga_id, first)
            await run.commit()
        self._lease, self._renewed_at = lease, now

    async def load(self) -> tuple[SagaRecord, list[SagaLogEntry]]:
        """See :meth:`Journal.load`."""
        if self._lease is None:
            record = await self._storage.load_saga(self.saga_id)
            if record.status is SagaStatus.COMPLETED:
                return record, []
            self._lease = await self._storage.acquire_lease(self.saga_id, self._owner, self._duration)
        self._renewed_at = _now()
        return await self._storage.load_saga(self.saga_id), await self._storage.get_step_history(self.saga_id)

    async def find(self) -> bool:
        """See :meth:`Journal.find`."""
        if self._lease is None:
            try:
                record = await self._storage.load_saga(self.saga_id)
            except SagaNotFoundError:
                return False
            if record.locked_by == self._owner:
                self._lease = SagaLease(self.saga_id, self._owner, record.lease_version, self._duration)
        return self._lease is not None

    async def write(self, checkpoint: Checkpoint) -> None:
        """See :meth:`Journal.write`."""
        now = _now()
        self._gives_back = checkpoint.releases or checkpoint.parks is not None
        async with self._storage.create_run(self._lease) as run:
            await _put(run, self.saga_id, checkpoint)
            await self._let_go(run, checkpoint)
            await run.commit()
        self._renewed_at = now

    async def _let_go(self, run: LeasedSagaRun, checkpoint: Checkpoint) -> None:
        if checkpoint.parks is not None:
            await run.park_saga(checkpoint.parks)
        elif checkpoint.releases:
            await run.release_lease(checkpoint.retry_after)

    async def keep(self) -> None:
        """See :meth:`Journal.keep`."""
        if self._lease is None:
            raise SagaLeaseLostError(self.saga_id, self._owner)
        now = _now()
        if not self._gives_back and self._age(now) >= self._duration / 3:
            await self._storage.renew_lease(self._lease)
            self._renewed_at = now

    def check_is_held(self) -> None:
        """See :meth:`Journal.check_is_held`."""
        if self._age(_now()) >= self._duration:
            raise SagaLeaseLostError(self.saga_id, self._owner)

    def _age(self, now: tuple[float, float]) -> float:
        return max(now[0] - self._renewed_at[0], now[1] - self._renewed_at[1])

    @property
    def is_held(self) -> bool:
        """See :attr:`Journal.is_held`."""
        return self._lease is not None

    @property
    def renewal_interval(self) -> float | None:
        """See :attr:`Journal.renewal_interval`."""
        return self._duration / 3


class UnleasedJournal(Journal):
    """Writes into a storage that knows no leases: one commit a checkpoint where it has units of work."""

    def __init__(self, storage: ISagaStorage, saga_id: uuid.UUID) -> None:
        super().__init__(saga_id)
        self._storage = storage

    async def begin(self, name: str, context: dict[str, Any], deadline: datetime | None, first: Checkpoint) -> None:
        """See :meth:`Journal.begin`."""
        if await self.find():
            raise SagaAlreadyExistsError(self.saga_id)
        first.status = SagaStatus.RUNNING
        run = self._run()
        if run is None:
            await self._storage.create_saga(self.saga_id, name, context)
            await _put(self._storage, self.saga_id, first)
            return
        async with run as opened:
            await opened.create_saga(self.saga_id, name, context)
            await _put(opened, self.saga_id, first)
            await opened.commit()

    async def load(self) -> tuple[SagaRecord, list[SagaLogEntry]]:
        """See :meth:`Journal.load`."""
        try:
            status, context, version = await self._storage.load_saga_state(self.saga_id)
        except (ValueError, LookupError) as error:
            raise SagaNotFoundError(self.saga_id) from error
        unknown = datetime.min.replace(tzinfo=timezone.utc)
        record = SagaRecord(self.saga_id, "", SagaStatus(status), context, version, unknown, unknown)
        return record, await self._storage.get_step_history(self.saga_id)

    async def find(self) -> bool:
        """See :meth:`Journal.find`."""
        try:
            await self._storage.load_saga_state(self.saga_id)
        except (ValueError, LookupError):
            return False
        return True

    async def write(self, checkpoint: Checkpoint) -> None:
        """See :meth:`Journal.write`."""
        run = self._run()
        if run is None:
            await _put(self._storage, self.saga_id, checkpoint)
        else:
            async with run as opened:
                await _put(opened, self.saga_id, checkpoint)
                await opened.commit()
        if checkpoint.parks is not None:
            await self._storage.set_recovery_attempts(self.saga_id, _NEVER_AGAIN)
        elif checkpoint.retry_after is not None:
            await self._storage.increment_recovery_attempts(self.saga_id)

    async def keep(self) -> None:
        """Do nothing: there is no lease that could end."""

    @property
    def renewal_interval(self) -> float | None:
        """None."""
        return None

    def _run(self) -> AbstractAsyncContextManager[SagaStorageRun] | None:
        try:
            return self._storage.create_run()
        except NotImplementedError:
            return None


# The clock of the event loop stands still while the machine is suspended, the other one may be set back.
def _now() -> tuple[float, float]:
    return anyio.current_time(), time.time()


def journal_for(
    storage: ISagaStorage, saga_id: uuid.UUID, lease_duration: float, lease: SagaLease | None = None
) -> Journal:
    """The journal of one run of a saga in ``storage``."""
    if isinstance(storage, ILeasedSagaStorage):
        return LeasedJournal(storage, saga_id, lease_duration, lease)
    return UnleasedJournal(storage, saga_id)


def new_owner() -> str:
    """A name for whoever holds a lease: the machine, the process, and something that nobody else has."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(8)}"


# The context before the log, and the log before the status: where each of them is durable by itself, a
# step is not COMPLETED before its context is there, and a saga has not ended before its steps have.
async def _put(run: SagaStorageRun | ISagaStorage, saga_id: uuid.UUID, checkpoint: Checkpoint) -> None:
    if checkpoint.context is not None:
        await run.update_context(saga_id, checkpoint.context)
    for step_name, action, status, details in checkpoint.entries:
        await run.log_step(saga_id, step_name, action, status, details)
    if checkpoint.status is not None:
        await run.update_status(saga_id, checkpoint.status)


async def stored_name(storage: ISagaStorage, saga_id: uuid.UUID) -> str:
    """The name under which ``storage`` keeps a saga.

    :raises ConfigurationError: it cannot tell.
    """
    if not isinstance(storage, ILeasedSagaStorage):
        raise ConfigurationError(
            f"{type(storage).__qualname__} does not tell its sagas' names: pass saga_name=, or use recover_saga()."
        )
    return (await storage.load_saga(saga_id)).name
