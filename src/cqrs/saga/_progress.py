"""How far each step of a saga has got: kept while it runs, and read again from its log."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable, Iterator, Sequence

from cqrs.exceptions import SagaDefinitionError
from cqrs.saga._plan import Branch, Stage, StepPlan
from cqrs.saga.journal import Checkpoint
from cqrs.saga.step import AnySagaStep
from cqrs.saga.storage.enums import SagaStepStatus
from cqrs.saga.storage.models import SagaLogEntry


class StepState(enum.Enum):
    """What is true of a step."""

    IDLE = "idle"
    """It has not begun."""
    ANNOUNCED = "announced"
    """The log says that it begins; it has not."""
    ACTING = "acting"
    """It has begun; how it ends, or ended, is unknown."""
    DONE = "done"
    """It has acted."""
    FAILED = "failed"
    """It raised: it is not done."""
    UNDONE = "undone"
    """It has been compensated."""


# What the log must say at last of a step in that state, if it says anything.
_TRUTH = {
    StepState.ANNOUNCED: SagaStepStatus.NOT_STARTED,
    StepState.ACTING: SagaStepStatus.INTERRUPTED,
    StepState.DONE: SagaStepStatus.COMPLETED,
    StepState.FAILED: SagaStepStatus.FAILED,
}
_STATE = {
    SagaStepStatus.STARTED: StepState.ACTING,
    SagaStepStatus.INTERRUPTED: StepState.ACTING,
    SagaStepStatus.COMPLETED: StepState.DONE,
    SagaStepStatus.FAILED: StepState.FAILED,
    SagaStepStatus.NOT_STARTED: StepState.IDLE,
}


class StepProgress:
    """How far one step has got.

    :param logged: what the log says last of its act.
    :param is_doubtful: whether an earlier attempt of it may have acted, whatever a later one says.
    :param was_interrupted: whether what it raised last came of its being cut off.
    :param is_being_undone: whether its compensation has begun, or is done.
    :param handler: the instance that acted.
    """

    __slots__ = ("error", "handler", "is_being_undone", "is_doubtful", "logged", "plan", "state", "was_interrupted")

    def __init__(self, plan: StepPlan) -> None:
        self.plan: StepPlan = plan
        self.state: StepState = StepState.IDLE
        self.logged: SagaStepStatus | None = None
        self.error: Exception | None = None
        self.is_doubtful: bool = False
        self.is_being_undone: bool = False
        self.was_interrupted: bool = False
        self.handler: AnySagaStep | None = None

    @property
    def may_have_acted(self) -> bool:
        """Whether there may be something to undo."""
        return self.state is StepState.DONE or self.is_unknown

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows if it has acted; when it was to act again and did not, nobody knows either."""
        return self.state is StepState.ACTING or (self.state is StepState.ANNOUNCED and self.is_doubtful)

    def announce(self, checkpoint: Checkpoint) -> None:
        """Have the log say that it begins."""
        self.state = StepState.ANNOUNCED
        self._log(checkpoint, SagaStepStatus.STARTED)

    def settle(self, checkpoint: Checkpoint) -> None:
        """Have the log say how it ended, where it does not yet."""
        if self.is_unknown:
            self.state = StepState.ACTING
        truth = _TRUTH.get(self.state)
        if truth is not None and truth is not self.logged:
            self._log(checkpoint, truth)
        if self.state is StepState.ANNOUNCED:
            self.state = StepState.IDLE

    def attempt(self) -> None:
        """It begins to act."""
        self.state = StepState.ACTING

    def succeed(self) -> None:
        """It has acted."""
        self.state = StepState.DONE

    def undo(self) -> None:
        """It has been compensated."""
        self.state = StepState.UNDONE
        self.is_doubtful = False

    def fail(self, error: Exception, is_doubtful: bool) -> None:
        """It raised. ``is_doubtful``: it may have acted all the same."""
        self.was_interrupted = is_doubtful or (self.was_interrupted and self.error is error)
        self.error = error
        self.is_doubtful = self.is_doubtful or is_doubtful
        self.state = StepState.ACTING if self.is_doubtful else StepState.FAILED

    def _log(self, checkpoint: Checkpoint, status: SagaStepStatus) -> None:
        checkpoint.log(self.plan.name, "act", status, self.error if status is SagaStepStatus.FAILED else None)
        self.logged = status

    def read(self, entry: SagaLogEntry) -> None:
        """Take in an entry of the log."""
        if entry.action == "compensate":
            self.is_being_undone = True
            if entry.status in (SagaStepStatus.COMPLETED, SagaStepStatus.COMPENSATED):
                self.undo()
            return
        # Other writers of logs put the failure of a later step under the name of one that is done.
        if entry.status is SagaStepStatus.FAILED and self.state is StepState.DONE:
            return
        self.state, self.logged = _STATE.get(entry.status, self.state), entry.status
        self.is_doubtful = self.state is StepState.ACTING
        self.is_being_undone = False


class Progress:
    """How far all steps of one run have got."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self._steps = {step.name: StepProgress(step) for stage in stages for step in stage.steps}

    def __getitem__(self, step: StepPlan) -> StepProgress:
        return self._steps[step.name]

    def __iter__(self) -> Iterator[StepProgress]:
        return iter(self._steps.values())

    @property
    def unknown(self) -> list[StepProgress]:
        """The steps of which nobody knows whether they have acted."""
        return [step for step in self if step.is_unknown]

    @property
    def unknown_pivot(self) -> list[StepProgress]:
        """Those of them that are a pivot."""
        return [step for stage in self.stages if stage.is_pivot for step in self.of(stage) if step in self.unknown]

    def of(self, stage: Stage) -> Iterable[StepProgress]:
        """The steps of one stage."""
        return [self._steps[step.name] for step in stage.steps]

    def read(self, history: Iterable[SagaLogEntry], saga_id: uuid.UUID, saga_name: str) -> None:
        """Take in a log.

        :raises SagaDefinitionError: it is about steps that are not there.
        """
        self._steps = {step.name: StepProgress(step) for stage in self.stages for step in stage.steps}
        for entry in history:
            step = self._steps.get(entry.step_name)
            if step is not None:
                step.read(entry)
            elif entry.status is not SagaStepStatus.FAILED:
                raise SagaDefinitionError(saga_id, saga_name, f"it has no step {entry.step_name}, and the log has")

    def is_done(self, branch: Branch) -> bool:
        """Whether one of the branch's steps is done."""
        return any(self._steps[step.name].state is StepState.DONE for step in branch.steps)

    def next_stage(self, saga_id: uuid.UUID, saga_name: str) -> int:
        """The index of the first stage that is not done.

        :raises SagaDefinitionError: a step behind it has acted already.
        """
        undone = [not all(self.is_done(branch) for branch in stage.branches) for stage in self.stages]
        position = undone.index(True) if True in undone else len(undone)
        for stage in self.stages[position + 1 :]:
            for step in self.of(stage):
                if step.may_have_acted:
                    reason = f"{step.plan.name} has begun, and steps before it have not"
                    raise SagaDefinitionError(saga_id, saga_name, reason)
        return position

    @property
    def is_behind_pivot(self) -> bool:
        """Whether the pivot is done."""
        return any(stage.is_pivot and all(self.is_done(branch) for branch in stage.branches) for stage in self.stages)

    def distrust(self, checkpoint: Checkpoint) -> None:
        """Nobody knows whether ``checkpoint`` is durable: what it says is to be said again."""
        for name, action, _, _ in checkpoint.entries:
            if action == "act":
                self._steps[name].logged = None
