"""One run of a saga: begun or taken over, taken forward, and brought to an end that storage knows of."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import anyio

from cqrs._concurrency import run_protected
from cqrs.exceptions import (
    SagaAlreadyExistsError,
    SagaDeadlineExceededError,
    SagaDefinitionError,
    SagaLeaseLostError,
    SagaParkedError,
    SagaRolledBackError,
)
from cqrs.saga._forward import Forward
from cqrs.saga._ledger import Ledger
from cqrs.saga._plan import Stage
from cqrs.saga._progress import Progress
from cqrs.saga._step_run import Acted, StepCaller
from cqrs.saga._verdict import (
    Verdict,
    is_definite,
    parked_because,
    verdict_on_failure,
    verdict_on_recovery,
    verdict_on_rollback,
)
from cqrs.saga.compensation import Compensator, attach_compensation_errors
from cqrs.saga.journal import Checkpoint, Journal
from cqrs.saga.models import SagaContext, dump_context
from cqrs.saga.options import SagaOptions
from cqrs.saga.storage.enums import SagaStatus
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord

_logger = logging.getLogger("cqrs")
_RELEASE_TIMEOUT = 5.0


@dataclasses.dataclass(frozen=True)
class RecoveryTurn:
    """One attempt to bring a saga to its end that somebody else began.

    :param lease: the lease, where the saga has been claimed already.
    :param retry_after: seconds that recovery is to leave the saga alone should this attempt fail.
    :param gives_up: why the saga is to be parked should this attempt fail; None: it is not to be.
    """

    lease: SagaLease | None = None
    retry_after: float = 0.0
    gives_up: str | None = None


class SagaRun:
    """Runs a saga once. Between two calls of :meth:`next` nothing is held but the lease.

    :param name: what the saga is called in storage.
    :param context: None: it comes from the storage.
    :param deadline: seconds from the beginning in which a new saga must be done.
    :param recovery: this run is a recovery's.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[Stage],
        context: SagaContext | None,
        journal: Journal,
        caller: StepCaller,
        options: SagaOptions,
        deadline: float | None,
        recovery: RecoveryTurn | None = None,
    ) -> None:
        self._name = name
        self._recovery = recovery
        self._journal = journal
        self._options = options
        self._deadline = deadline
        self._progress = Progress(stages)
        self._ledger = Ledger(journal, self._progress, context)
        self._compensator = Compensator(stages, self._ledger, caller, options.compensation)
        self.forward = Forward(stages, self._ledger, caller, self._compensator, options)
        self._is_open = self._is_begun = self._is_arriving = self._has_ended = False

    async def begin(self) -> None:
        """Begin the saga; if the storage has it already, take it over.

        :raises SerializationError: the context has no form in JSON. Nothing has begun.
        """
        first, context = Checkpoint(), dump_context(self._ledger.context)
        self.forward.announce(first)
        if self._deadline is not None:
            self.forward.deadline = self._options.clock() + timedelta(seconds=self._deadline)
        self._is_open = True
        try:
            await self._journal.begin(self._name, context, self.forward.deadline, first)
        except SagaAlreadyExistsError:
            self._is_open = False
            await self.take_over()
        self._is_begun = True

    async def take_over(self, build: Callable[[dict[str, Any]], SagaContext] | None = None) -> None:
        """Go on with a saga that is in storage: forward, or backward to its end.

        :param build: makes the context of what is stored. None: its class does.
        :raises SagaNotFoundError: it is not there.
        :raises SagaLockedError: somebody else is running it.
        :raises SagaRolledBackError: it only goes backward, and has been taken there.
        :raises SagaDeadlineExceededError: its deadline has passed, and it has been rolled back.
        :raises SagaParkedError: it waits for somebody to look at it.
        :raises SagaDefinitionError: its log does not fit its steps.
        """
        try:
            record, history = await self._journal.load()
            self._check_name(record)
            self._ledger.load(build, record.context)
            self._read(record, history)
        except BaseException as error:
            await self._let_go(error)
            raise
        self._is_open = self._is_begun = True
        await self._go_on(record)

    def _check_name(self, record: SagaRecord) -> None:
        if record.name and record.name != self._name:
            raise SagaDefinitionError(record.saga_id, self._name, f"it was started as {record.name}")

    # What is known of the saga may be half of it, or nothing: nothing but the lease may be touched.
    async def _let_go(self, error: BaseException | None) -> None:
        self._has_ended = True
        if not self._journal.is_held:
            return
        checkpoint = Checkpoint()
        self._give_back(error, checkpoint)
        await self._quietly(lambda: run_protected(lambda: self._journal.write(checkpoint), _RELEASE_TIMEOUT))

    def _read(self, record: SagaRecord, history: list[SagaLogEntry]) -> None:
        self.forward.deadline = record.deadline
        self._progress.read(history, record.saga_id, self._name)
        if record.status in (SagaStatus.PENDING, SagaStatus.RUNNING):
            self.forward.position = self._progress.next_stage(record.saga_id, self._name)

    async def _go_on(self, record: SagaRecord) -> None:
        if record.status is SagaStatus.COMPLETED:
            await self._let_go(None)
            return
        if record.parked_reason is not None:
            await self._let_go(None)
            raise SagaParkedError(record.saga_id, record.parked_reason)
        if record.status in (SagaStatus.PENDING, SagaStatus.RUNNING):
            await self._go_forward(record)
        else:
            await self._go_backward(record)

    async def _go_backward(self, record: SagaRecord) -> None:
        refusal: Exception = SagaRolledBackError(record.saga_id, str(record.status))
        # There are logs of FAILED sagas, of other writers, whose compensations have failed.
        if record.status is SagaStatus.FAILED and not any(step.may_have_acted for step in self._progress):
            await self._let_go(None)
            raise refusal
        verdict = verdict_on_rollback(self._progress)
        if verdict is Verdict.PARK:
            refusal = SagaParkedError(record.saga_id, parked_because(self._progress))
        await self._end(verdict, refusal)
        raise refusal

    async def _go_forward(self, record: SagaRecord) -> None:
        deadline = record.deadline
        has_time = deadline is None or self.forward.has_arrived or deadline > self._options.clock()
        verdict = verdict_on_recovery(self._progress, not has_time)
        if verdict is Verdict.STAY:
            if record.status is SagaStatus.PENDING:
                await self._ledger.write(_run_again)
            return
        refusal: Exception = SagaRolledBackError(record.saga_id, str(record.status))
        if verdict is Verdict.PARK:
            refusal = SagaParkedError(record.saga_id, parked_because(self._progress))
        elif deadline is not None and not has_time:
            refusal = SagaDeadlineExceededError(record.saga_id, deadline)
        await self._end(verdict, refusal)
        raise refusal

    async def next(self) -> Sequence[Acted] | None:
        """Do the next stage, and give what its steps gave. None: the saga has ended.

        :raises Exception: what a step raised. Tell :meth:`fail` of it, and of cancellations.
        """
        if self._has_ended:
            return None
        if not self.forward.has_arrived:
            return await self.forward.advance()
        self._is_arriving = True
        try:
            await self.forward.arrive()
        except SagaLeaseLostError:
            raise
        except Exception:
            if not await run_protected(self._has_arrived_after_all, 2 * _RELEASE_TIMEOUT):
                raise
        self._has_ended = True
        return None

    # All steps are done, and nobody is helped by an error when that can be written in the end.
    async def _has_arrived_after_all(self) -> bool:
        with contextlib.suppress(Exception):
            await self.forward.arrive()
            return True
        with contextlib.suppress(Exception):
            record, _ = await self._journal.load()
            return record.status is SagaStatus.COMPLETED
        return False

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await ``work()``; as long as that takes, the saga stays this run's."""
        await self._ledger.hold(work)

    async def fail(self, error: BaseException) -> None:
        """Bring the saga to an end after ``error``, which gets the compensation errors attached to it.

        No cancellation tears it. It takes no longer than ``compensation_timeout``, and a few seconds. What it could
        not do it leaves to recovery.
        """
        if self._has_ended or not self._is_open:
            return
        # A step may run another saga, and meet its errors.
        if isinstance(error, SagaLeaseLostError) and error.saga_id == self._ledger.saga_id:
            self._has_ended = True
            return
        # Nobody waits for a recovery: what has nothing to do with the saga does not roll it back.
        is_outside = not isinstance(error, Exception) or self._ledger.has_failed
        verdict = verdict_on_failure(self._progress, error, resumes=self._recovery is not None and is_outside)
        await self._end(verdict, error, is_definite(self._progress, error))

    async def leave(self) -> None:
        """Give the saga back as it is; recovery goes on with it. Failures go to the log."""
        if self._has_ended or not self._is_begun:
            return
        self._has_ended = True
        await self._quietly(lambda: run_protected(lambda: self._release(None), _RELEASE_TIMEOUT))

    async def _end(self, verdict: Verdict, error: BaseException, is_definite: bool = False) -> None:
        self._has_ended = True
        seconds = self._options.compensation_timeout + 2 * _RELEASE_TIMEOUT
        await run_protected(lambda: self._try_to_end(verdict, error, is_definite), seconds)

    async def _try_to_end(self, verdict: Verdict, error: BaseException, is_definite: bool) -> None:
        saga_id = self._ledger.saga_id
        try:
            with anyio.fail_after(self._options.compensation_timeout):
                if self._is_begun or await self._journal.find():
                    await self._ledger.hold(lambda: self._carry_out(verdict, error, is_definite))
        except SagaLeaseLostError as lost:
            _logger.warning("%s", lost)
        except Exception as failure:  # noqa: BLE001  # the caller gets the error that it began with
            _logger.error("Saga %s could not be brought to its end (%r); recovery goes on with it", saga_id, failure)  # noqa: TRY400
            attach_compensation_errors(error, saga_id, (failure,))
            with anyio.move_on_after(_RELEASE_TIMEOUT):
                await self._quietly(lambda: self._release(error))

    async def _carry_out(self, verdict: Verdict, error: BaseException, is_definite: bool) -> None:
        if self._is_arriving:
            await self.forward.arrive()
        elif verdict is Verdict.ROLL_BACK:
            give_back = functools.partial(self._give_back, error)
            failures = await self._compensator.roll_back(give_back)
            attach_compensation_errors(error, self._ledger.saga_id, failures)
            if isinstance(error, SagaRolledBackError):
                error.current_status = str(SagaStatus.COMPENSATION_FAILED if failures else SagaStatus.FAILED)
        elif verdict is Verdict.PARK:
            status = SagaStatus.COMPENSATING if is_definite else None
            await self._ledger.write(functools.partial(self._park, status))
        else:
            await self._release(error)

    def _park(self, status: SagaStatus | None, checkpoint: Checkpoint) -> None:
        self._ledger.keep_what_can_be(checkpoint, self._progress)
        checkpoint.status, checkpoint.parks = status, parked_because(self._progress)

    async def _release(self, error: BaseException | None) -> None:
        def fill(checkpoint: Checkpoint) -> None:
            self._ledger.keep_what_can_be(checkpoint, self._progress)
            self._give_back(error, checkpoint)

        await self._ledger.write(fill)

    async def _quietly(self, give_back: Callable[[], Awaitable[None]]) -> None:
        try:
            await give_back()
        except Exception as failure:  # noqa: BLE001  # the lease ends by itself
            _logger.warning("Saga %s could not be given back: %r", self._ledger.saga_id, failure)

    def _give_back(self, error: BaseException | None, checkpoint: Checkpoint) -> None:
        checkpoint.releases = True
        if self._recovery is None or not isinstance(error, Exception):
            return
        checkpoint.retry_after = self._recovery.retry_after
        if self._recovery.gives_up is not None:
            checkpoint.parks = f"{self._recovery.gives_up}: {error!r}"


def _run_again(checkpoint: Checkpoint) -> None:
    checkpoint.status = SagaStatus.RUNNING
