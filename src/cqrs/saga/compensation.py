"""Rolling a saga back: what has been done is undone, in reverse."""

from __future__ import annotations

import contextlib
import functools
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence

import anyio

from cqrs._concurrency import SingleErrorTaskGroup, nobodys_cancellation_fails
from cqrs.exceptions import SagaCompensationError, SagaConcurrencyError
from cqrs.retry import RetryPolicy, call_again
from cqrs.saga._ledger import Ledger
from cqrs.saga._plan import Stage
from cqrs.saga._progress import StepProgress
from cqrs.saga._step_run import StepCaller
from cqrs.saga.journal import Checkpoint
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus

_logger = logging.getLogger("cqrs")


_ATTRIBUTE = "__cqrs_compensation_errors__"


def compensation_errors(error: BaseException) -> Sequence[Exception]:
    """What went wrong while a saga was rolled back after ``error``.

    A :class:`~cqrs.exceptions.SagaCompensationError` for each step that could not be compensated, or what kept the
    saga from being rolled back at all, as a TimeoutError or an error of the storage.
    """
    # A cancellation that comes again while a saga is rolled back has the one that began it as its context.
    told: BaseException | None = error
    while told is not None and not isinstance(told, Exception) and not hasattr(told, _ATTRIBUTE):
        told = told.__context__
    errors: Sequence[Exception]
    _, errors = getattr(told, _ATTRIBUTE, (None, ()))
    return errors


def attach_compensation_errors(error: BaseException, saga_id: uuid.UUID, failures: Sequence[Exception]) -> None:
    """Have ``error`` tell of ``failures``, in its notes too; no longer of those of another saga."""
    # An exception of somebody else's may take no attributes; the failures are in the log as well.
    with contextlib.suppress(AttributeError):
        told_of, earlier = getattr(error, _ATTRIBUTE, (None, ()))
        if told_of != saga_id:
            earlier = ()
        if failures or told_of is not None:
            setattr(error, _ATTRIBUTE, (saga_id, (*earlier, *failures)))
        if failures:
            notes = [f"Rolling back: {failure}" for failure in failures]
            setattr(error, "__notes__", [*getattr(error, "__notes__", ()), *notes])  # noqa: B010  # add_note() is of 3.11


class Compensator:
    """Compensates steps, each as often as ``policy`` says.

    :param stages: the saga's.
    """

    def __init__(self, stages: Sequence[Stage], ledger: Ledger, caller: StepCaller, policy: RetryPolicy) -> None:
        self._stages = stages
        self._ledger = ledger
        self._caller = caller
        self._policy = policy

    async def roll_back(self, give_back: Callable[[Checkpoint], None]) -> list[SagaCompensationError]:
        """Compensate whatever may have acted, the last stage first; give the steps that could not be.

        :param give_back: says how the saga is given back if a step could not be compensated.

        Journal first: before anything is undone it is durable that the saga never goes forward again. A step
        that cannot be compensated does not keep those before it from being.

        :raises SagaLeaseLostError: somebody else has taken the saga over.
        :raises Exception: what the storage raised, at the last attempt.
        """
        await self._write(self._begin)
        errors: list[SagaCompensationError] = []
        for stage in reversed(self._stages):
            errors += await self._undo_stage(stage)
        await self._write(functools.partial(_give_up, give_back) if errors else _finish)
        return errors

    def _begin(self, checkpoint: Checkpoint) -> None:
        self._ledger.keep_what_can_be(checkpoint, self._ledger.progress)
        checkpoint.status = SagaStatus.COMPENSATING

    async def _undo_stage(self, stage: Stage) -> list[SagaCompensationError]:
        steps = [step for step in self._ledger.progress.of(stage) if step.may_have_acted]
        if not steps:
            return []
        errors: list[SagaCompensationError] = []
        slots = anyio.CapacityLimiter(stage.limit)

        async def undo(step: StepProgress) -> None:
            async with slots:
                error = await self.undo(step)
            if error is not None:
                errors.append(error)

        if len(steps) == 1:
            await undo(steps[0])
            return errors
        async with self._ledger.shared(), SingleErrorTaskGroup("several compensations failed") as tasks:
            for step in steps:
                tasks.start_soon(nobodys_cancellation_fails, functools.partial(undo, step))
        return errors

    async def undo(self, step: StepProgress) -> SagaCompensationError | None:
        """Compensate ``step``, and log it; give the error where it could not be."""
        name = step.plan.name
        await self._write(lambda checkpoint: checkpoint.log(name, "compensate", SagaStepStatus.STARTED))
        try:
            await self._repeat(f"The compensation of {name}", functools.partial(self._compensate, step))
        except Exception as error:
            _logger.exception("Step %s of saga %s could not be compensated", name, self._ledger.saga_id)
            await self._write(functools.partial(self._log, step, SagaStepStatus.FAILED, error))
            failure = SagaCompensationError(self._ledger.saga_id, name)
            failure.__cause__ = error
            return failure
        step.undo()
        await self._write(functools.partial(self._log, step, SagaStepStatus.COMPLETED, None))
        return None

    async def _compensate(self, step: StepProgress) -> None:
        await nobodys_cancellation_fails(lambda: self._caller.compensate(step, self._ledger.context))

    def _log(self, step: StepProgress, status: SagaStepStatus, error: Exception | None, checkpoint: Checkpoint) -> None:
        checkpoint.log(step.plan.name, "compensate", status, error)
        self._ledger.keep_what_can_be(checkpoint, ())

    async def _write(self, fill: Callable[[Checkpoint], None]) -> None:
        await self._repeat(f"Writing saga {self._ledger.saga_id}", lambda: self._ledger.write(fill))

    async def _repeat(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
            return
        except Exception as error:
            if not self._is_worth_it(error):
                raise
            failure = error
        await call_again(work, failure, self._policy, what, self._is_worth_it)

    def _is_worth_it(self, error: BaseException) -> bool:
        is_ours = getattr(error, "saga_id", None) == self._ledger.saga_id
        return self._policy.covers(error) and not (is_ours and isinstance(error, SagaConcurrencyError))


def _give_up(give_back: Callable[[Checkpoint], None], checkpoint: Checkpoint) -> None:
    checkpoint.status = SagaStatus.COMPENSATION_FAILED
    give_back(checkpoint)


def _finish(checkpoint: Checkpoint) -> None:
    checkpoint.status = SagaStatus.FAILED
    checkpoint.releases = True
