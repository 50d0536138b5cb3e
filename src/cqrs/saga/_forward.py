"""A saga on its way forward. Nothing here holds a scope or a task while nobody awaits it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from cqrs._concurrency import SingleErrorTaskGroup, is_being_cancelled, nobodys_cancellation_fails, run_protected
from cqrs._fallback import WIRING_ERRORS, run_with_fallback
from cqrs.exceptions import SagaDeadlineExceededError, SagaStepTimeoutError
from cqrs.retry import call_again
from cqrs.saga._ledger import Ledger
from cqrs.saga._plan import Branch, Stage, StepPlan
from cqrs.saga._progress import StepProgress, StepState
from cqrs.saga._step_run import Acted, StepCaller
from cqrs.saga._verdict import UNKNOWN_OUTCOME
from cqrs.saga.compensation import Compensator, attach_compensation_errors
from cqrs.saga.journal import Checkpoint
from cqrs.saga.models import SagaContext, adopt
from cqrs.saga.options import SagaOptions
from cqrs.saga.step import AnySagaStep, OnUnknown
from cqrs.saga.storage.enums import SagaStatus

Deliver: TypeAlias = Callable[[Acted], Awaitable[None]]
"""Told of what a step gave as soon as it is durable."""


class Forward:
    """Takes a saga from stage to stage.

    ``deadline`` is when it must be done, None: whenever. ``deliver`` is told of the results of a parallel
    stage as they come; None: they are given when all are there. ``handlers`` are the instances that have acted.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        ledger: Ledger,
        caller: StepCaller,
        compensator: Compensator,
        options: SagaOptions,
    ) -> None:
        self.deadline: datetime | None = None
        self.deliver: Deliver | None = None
        self.position = 0
        self.handlers: list[AnySagaStep] = []
        self._stages = stages
        self._ledger = ledger
        self._progress = ledger.progress
        self._caller = caller
        self._compensator = compensator
        self._options = options

    @property
    def has_arrived(self) -> bool:
        """Whether all stages are done."""
        return self.position == len(self._stages)

    def announce(self, checkpoint: Checkpoint) -> None:
        """Have the log say that the next stage begins, together with what else is written: it saves a commit."""
        if self.position < len(self._stages):
            self._announce(self._stages[self.position], checkpoint)

    def _announce(self, stage: Stage, checkpoint: Checkpoint) -> None:
        for branch in stage.branches:
            step = self._progress[branch.primary]
            if step.state is StepState.IDLE and branch.primary.may_be_announced:
                step.announce(checkpoint)

    async def advance(self) -> Sequence[Acted]:
        """Do the next stage; give the results that were not delivered.

        :raises SagaDeadlineExceededError: the deadline has passed.
        :raises Exception: what a step raised; several of a parallel stage leave as an ``ExceptionGroup``.
        """
        stage = self._stages[self.position]
        remaining = self._remaining(stage)
        if remaining is None:
            acted = await self._do(stage)
        else:
            acted = await self._do_within(remaining, stage)
        self.position += 1
        return acted

    async def arrive(self) -> None:
        """All stages are done: the saga is COMPLETED."""

        def fill(checkpoint: Checkpoint) -> None:
            self._ledger.keep_context(checkpoint)
            checkpoint.status = SagaStatus.COMPLETED
            checkpoint.releases = True

        await self._ledger.write(fill)

    def _remaining(self, stage: Stage) -> float | None:
        if self.deadline is None or stage.is_behind_pivot or self._progress.unknown_pivot:
            return None
        return (self.deadline - self._options.clock()).total_seconds()

    async def _do_within(self, seconds: float, stage: Stage) -> Sequence[Acted]:
        if seconds > 0:
            with anyio.move_on_after(seconds):
                return await self._do(stage)
        assert self.deadline is not None  # noqa: S101  # it is what the seconds are left of
        raise SagaDeadlineExceededError(self._ledger.saga_id, self.deadline)

    async def _do(self, stage: Stage) -> Sequence[Acted]:
        branches = [branch for branch in stage.branches if not self._progress.is_done(branch)]
        if len(branches) > 1:
            return await self._do_parallel(stage, branches)
        acted = await self._do_branch(branches[0])
        await self._log_done(stage, branches[0])
        return (acted,)

    async def _do_parallel(self, stage: Stage, branches: Sequence[Branch]) -> Sequence[Acted]:
        acted: list[Acted] = []
        deliver = self.deliver
        slots: AbstractAsyncContextManager[Any] = (
            anyio.CapacityLimiter(stage.limit) if stage.limit < len(branches) else nullcontext()
        )

        async def do(branch: Branch) -> None:
            async with slots:
                result = await self._do_branch(branch)
                await self._log_done(stage, branch)
            if deliver is None:
                acted.append(result)
            else:
                await deliver(result)

        async with (
            self._ledger.shared(),
            SingleErrorTaskGroup(f"several steps of saga {self._ledger.saga_id} failed") as tasks,
        ):
            for branch in branches:
                tasks.start_soon(nobodys_cancellation_fails, functools.partial(do, branch))
        return acted

    async def _log_done(self, stage: Stage, branch: Branch) -> None:
        def fill(checkpoint: Checkpoint) -> None:
            for step in self._progress.of(stage):
                # A step of another branch that has failed may be about to try again.
                if step.state is StepState.DONE or (step.state is StepState.FAILED and step.plan in branch.steps):
                    step.settle(checkpoint)
            self._ledger.keep_context(checkpoint)
            following = self.position + 1
            if following < len(self._stages) and all(map(self._progress.is_done, stage.branches)):
                self._announce(self._stages[following], checkpoint)

        await self._ledger.write(fill)

    async def _do_branch(self, branch: Branch) -> Acted:
        if branch.policy is None or branch.fallback is None:
            return await self._perform(branch.primary, self._ledger.context)
        if self._progress[branch.fallback].may_have_acted:
            return await self._perform(branch.fallback, self._ledger.context)
        fallback, trial = branch.fallback, _Trial(self._ledger.context)
        if self._progress[branch.primary].is_being_undone:
            return await self._fall_back(branch.primary, fallback, trial)
        return await run_with_fallback(
            branch.policy,
            lambda: self._try(branch.primary, trial),
            lambda: self._fall_back(branch.primary, fallback, trial),
        )

    async def _try(self, plan: StepPlan, trial: _Trial) -> Acted:
        """Perform a step on a copy of the context, of which nothing is kept if it fails."""
        try:
            return await self._perform(plan, trial.context)
        finally:
            if self._progress[plan].may_have_acted:
                trial.keep()

    async def _fall_back(self, failed: StepPlan, plan: StepPlan, trial: _Trial) -> Acted:
        primary, fallback = self._progress[failed], self._progress[plan]
        if primary.may_have_acted:
            if primary.error is not None and failed.on_unknown in (OnUnknown.PARK, OnUnknown.RETRY):
                raise primary.error
            undo = functools.partial(self._undo, primary)
            await run_protected(lambda: self._ledger.hold(undo), self._options.compensation_timeout)
            trial.take_back()

        def fill(checkpoint: Checkpoint) -> None:
            primary.settle(checkpoint)
            fallback.announce(checkpoint)

        await self._ledger.write(fill)
        return await self._perform(plan, self._ledger.context)

    async def _undo(self, step: StepProgress) -> None:
        await self._ledger.write(step.settle)
        failure = await self._compensator.undo(step)
        if failure is not None and step.error is not None:
            attach_compensation_errors(step.error, self._ledger.saga_id, (failure,))
            raise step.error
        if failure is not None:
            raise failure

    async def _perform(self, plan: StepPlan, context: SagaContext) -> Acted:
        step = self._progress[plan]
        if step.state is StepState.ANNOUNCED:
            await self._ledger.keep()
        else:
            await self._ledger.write(step.announce)
        await checkpoint_if_cancelled()
        acted = await self._ledger.hold(lambda: self._attempts(step, context))
        if step.handler is not None:
            self.handlers.append(step.handler)
        return acted

    async def _attempts(self, step: StepProgress, context: SagaContext) -> Acted:
        policy = step.plan.retry
        try:
            return await self._attempt(step, context)
        except Exception as error:
            if policy is None or policy.attempts == 1 or not _is_worth_it(step, error):
                raise
            failure = error
        return await call_again(
            lambda: self._attempt(step, context),
            failure,
            policy,
            f"Step {step.plan.name} of saga {self._ledger.saga_id}",
            lambda error: _is_worth_it(step, error),
        )

    async def _attempt(self, step: StepProgress, context: SagaContext) -> Acted:
        # What a step raises while it is being cancelled says nothing of whether it has acted.
        step.attempt()
        try:
            acted = await self._act(step, context)
        except StopAsyncIteration as end:
            # It would end the loop over the results as if all were well (https://peps.python.org/pep-0479/).
            error = RuntimeError(f"Step {step.plan.name} raised StopAsyncIteration")
            step.fail(error, is_being_cancelled(end))
            raise error from end
        except Exception as error:
            step.fail(error, isinstance(error, UNKNOWN_OUTCOME) or is_being_cancelled(error))
            raise
        step.succeed()
        return acted

    async def _act(self, step: StepProgress, context: SagaContext) -> Acted:
        seconds = step.plan.timeout
        if seconds is None:
            return await self._caller.act(step, context)
        with anyio.move_on_after(seconds):
            try:
                return await self._caller.act(step, context)
            except Exception as error:
                step.fail(error, is_being_cancelled(error))
                raise
        raise SagaStepTimeoutError(self._ledger.saga_id, step.plan.name, seconds)


class _Trial:
    """A copy of a context, for a step that may fail. The other steps of a parallel group write into the context itself.

    :param target: the context.
    """

    def __init__(self, target: SagaContext) -> None:
        self._target = target
        self._before = copy.deepcopy(target)
        self.context = copy.deepcopy(target)

    def keep(self) -> None:
        """Give the context what the step has written."""
        adopt(self._target, self.context, unlike=self._before)

    def take_back(self) -> None:
        """Give the context back what it had where the step has written."""
        adopt(self._target, self._before, unlike=self.context)


def _is_worth_it(step: StepProgress, error: BaseException) -> bool:
    policy = step.plan.retry
    if policy is None or not policy.covers(error) or isinstance(error, WIRING_ERRORS):
        return False
    return not step.is_doubtful or step.plan.on_unknown is OnUnknown.RETRY
