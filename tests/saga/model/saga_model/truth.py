"""What really happened, held against what the log says and against the rules of the engine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from cqrs.exceptions import HandlerTimeoutError
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import SagaLogEntry, SagaRecord
from saga_model.faults import NATIVE_CANCELS, Kind
from saga_model.shapes import Either, NoReturn, Scenario, Step

if TYPE_CHECKING:
    from saga_model.process import Process
    from saga_model.steps import ModelContext, ModelStep

STARTED, COMPLETED, FAILED = SagaStepStatus.STARTED, SagaStepStatus.COMPLETED, SagaStepStatus.FAILED
INTERRUPTED, NOT_STARTED = SagaStepStatus.INTERRUPTED, SagaStepStatus.NOT_STARTED

TRANSITIONS = {
    SagaStatus.RUNNING: {SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.COMPLETED},
    SagaStatus.COMPENSATING: {SagaStatus.COMPENSATING, SagaStatus.FAILED, SagaStatus.COMPENSATION_FAILED},
    SagaStatus.COMPENSATION_FAILED: {SagaStatus.COMPENSATION_FAILED, SagaStatus.COMPENSATING, SagaStatus.FAILED},
    SagaStatus.COMPLETED: {SagaStatus.COMPLETED},
    SagaStatus.FAILED: {SagaStatus.FAILED},
}

# NOT_STARTED may stand alone: the STARTED before it was written and did not become durable.
NEXT_ENTRY: dict[SagaStepStatus | None, set[SagaStepStatus]] = {
    None: {STARTED, NOT_STARTED},
    STARTED: {STARTED, COMPLETED, FAILED, INTERRUPTED, NOT_STARTED},
    COMPLETED: {COMPLETED},
    FAILED: {FAILED, STARTED, NOT_STARTED},
    INTERRUPTED: {INTERRUPTED, STARTED},
    NOT_STARTED: {NOT_STARTED, STARTED},
}


@dataclasses.dataclass(eq=False)
class Call:
    """One call of ``act`` or ``compensate``.

    :param outcome: "running", "returned", "raised", "unknown", or "doubtful": it raised while it was cancelled.
    """

    process: Process
    instance: ModelStep
    number: int
    is_refused: bool
    outcome: str = "running"


@dataclasses.dataclass(eq=False)
class StepTruth:
    """What really happened to a step."""

    has_effect: bool = False
    is_busy: bool = False
    acts: list[Call] = dataclasses.field(default_factory=list)
    undos: list[Call] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Written:
    """An entry of the log, and who wrote it."""

    process: Process
    entry: SagaLogEntry


class Truth:
    """What really happened in one schedule, and the rules that were broken."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.violations: list[str] = []
        self.steps = {step.name: StepTruth() for step in scenario.steps}
        self.specs: dict[str, Step] = {step.name: step for step in scenario.steps}
        self.log: list[Written] = []
        self.record: SagaRecord | None = None
        self.holder: Process | None = None
        self.commits = 0
        self._log_length_at: dict[Call, int] = {}

    def broken(self, rule: str) -> None:
        self.violations.append(rule)

    def expect(self, holds: bool, rule: str) -> None:
        if not holds:
            self.broken(rule)

    # The log

    def entries(self, name: str, action: str) -> list[SagaLogEntry]:
        return [w.entry for w in self.log if w.entry.step_name == name and w.entry.action == action]

    def last_act_entry(self, name: str) -> SagaStepStatus | None:
        entries = self.entries(name, "act")
        return entries[-1].status if entries else None

    def is_logged_undone(self, name: str) -> bool:
        """Whether the log says that it was compensated, and not that it has begun again since."""
        for written in reversed(self.log):
            if written.entry.step_name == name:
                if written.entry.action == "act":
                    return False
                if written.entry.status is COMPLETED:
                    return True
        return False

    def is_done(self, name: str) -> bool:
        return self.last_act_entry(name) is COMPLETED and not self.is_logged_undone(name)

    def observe_commit(self, process: Process, record: SagaRecord, log: list[SagaLogEntry]) -> None:
        """A commit of ``process`` has become durable: ``record`` and ``log`` are what is stored now."""
        self.commits += 1
        self.expect(self.holder is process, f"{process} wrote, and the saga was {self.holder}'s")
        before = self.record.status if self.record is not None else SagaStatus.RUNNING
        self.expect(record.status in TRANSITIONS[before], f"the saga went from {before} to {record.status}")
        if before is SagaStatus.RUNNING and record.status is SagaStatus.COMPENSATING:
            self.expect(not self._is_behind_pivot, "the saga was rolled back behind its pivot")
        self.record = record
        self.expect([w.entry for w in self.log] == log[: len(self.log)], "the log was rewritten")
        for entry in log[len(self.log) :]:
            self._check_entry(process, entry)
            self.log.append(Written(process, entry))
        for entry in log:
            if entry.action == "act" and entry.status is COMPLETED and self.is_done(entry.step_name):
                self._check_context(entry.step_name, record)
        if record.locked_by is None or record.status is not SagaStatus.RUNNING:
            self._check_settled(process)

    def take(self, process: Process, record: SagaRecord, now: datetime) -> None:
        """``process`` has leased the saga, of which ``record`` was stored before."""
        is_free = record.locked_until is None or record.locked_until <= now
        self.expect(is_free, f"{process} took the saga, and it is {self.holder}'s")
        self.holder = process

    @property
    def _is_behind_pivot(self) -> bool:
        pivots = [item.member for item in self.scenario.items if isinstance(item, NoReturn)]
        return any(self.is_done(step.name) for pivot in pivots for step in pivot.steps)

    def _check_context(self, name: str, record: SagaRecord) -> None:
        stored, acted = record.context[name], self.steps[name].acts[-1].number if self.steps[name].acts else None
        self.expect(stored == acted, f"{name} is logged done, and the context stored with it has {stored}, not {acted}")

    def _check_entry(self, process: Process, entry: SagaLogEntry) -> None:
        name, said = entry.step_name, f"{process} logged {entry.step_name} {entry.action} {entry.status}"
        if entry.action == "compensate":
            self._check_undo_entry(name, entry.status, said)
            return
        before = self.last_act_entry(name)
        after_undo = self.is_logged_undone(name) and entry.status is STARTED
        self.expect(after_undo or entry.status in NEXT_ENTRY[before], f"{said} after {before}")
        acts = self.steps[name].acts
        last = acts[-1].outcome if acts else "never acted"
        doubt = self._inherits_doubt(process, name)
        if entry.status is COMPLETED:
            self.expect(last == "returned", f"{said}, and it {last}")
        elif entry.status is FAILED:
            self.expect(last in ("raised", "doubtful") and not doubt, f"{said}, and it {last} (doubt: {doubt})")
        elif entry.status is INTERRUPTED:
            self.expect(doubt or last in ("unknown", "doubtful"), f"{said}, and it {last}")
        elif entry.status is NOT_STARTED:
            self.expect(not self._acted_since_last_entry(name), f"{said}, and it {last}")

    def _check_undo_entry(self, name: str, status: SagaStepStatus, said: str) -> None:
        undos = self.steps[name].undos
        last = undos[-1].outcome if undos else "never was"
        if status is COMPLETED:
            self.expect(last == "returned", f"{said}, and it {last}")
        elif status is FAILED:
            self.expect(last == "raised", f"{said}, and it {last}")

    def _inherits_doubt(self, process: Process, name: str) -> bool:
        """Whether the log, or an earlier attempt, leaves it open whether the step has acted."""
        started = 0
        for written in reversed(self.log):
            entry = written.entry
            if entry.step_name != name:
                continue
            if entry.action == "compensate" and entry.status is not COMPLETED:
                continue
            if entry.action == "compensate" or entry.status not in (STARTED, INTERRUPTED):
                break
            started += 1
            if written.process is not process or entry.status is INTERRUPTED:
                return True
        calls = self.steps[name].acts
        return started > 0 and any(call.outcome in ("unknown", "doubtful") for call in calls if call.process is process)

    def _acted_since_last_entry(self, name: str) -> bool:
        acts = self.steps[name].acts
        places = [place for place, w in enumerate(self.log) if w.entry.step_name == name and w.entry.action == "act"]
        return bool(acts) and bool(places) and self._log_length_at[acts[-1]] > places[-1]

    def _check_settled(self, process: Process) -> None:
        """What this process knows of its steps must be in the log now that it has turned back, or has ended."""
        for name, step in self.steps.items():
            if not step.acts or step.acts[-1].process is not process or self.is_logged_undone(name):
                continue
            outcome, logged = step.acts[-1].outcome, self.last_act_entry(name)
            expected = {"returned": (COMPLETED,), "raised": (FAILED,), "unknown": (INTERRUPTED,)}.get(outcome)
            if outcome == "raised" and logged is INTERRUPTED:
                continue  # it was an earlier attempt that nobody knows of: checked when it was written
            self.expect(expected is None or logged in expected, f"{name} {outcome}, and the log says {logged} at last")

    # Calls

    @contextmanager
    def acting(self, process: Process, instance: ModelStep, name: str, context: ModelContext) -> Iterator[Call]:
        """Around a call of ``act``."""
        step = self.steps[name]
        self._check_may_act(process, name, context)
        number = len(step.acts) + 1
        call = Call(process, instance, number, is_refused=number <= self.specs[name].refusals)
        step.acts.append(call)
        self._log_length_at[call] = len(self.log)
        with self._call(process, step, call, f"{name} acts"):
            yield call

    @contextmanager
    def undoing(self, process: Process, instance: ModelStep, name: str) -> Iterator[Call]:
        """Around a call of ``compensate``."""
        step = self.steps[name]
        if process.is_alive:
            self._check_may_undo(process, instance, name)
        number = len(step.undos) + 1
        call = Call(process, instance, number, is_refused=number <= self.specs[name].undo_refusals)
        step.undos.append(call)
        with self._call(process, step, call, f"{name} compensates"):
            yield call

    @contextmanager
    def _call(self, process: Process, step: StepTruth, call: Call, what: str) -> Iterator[None]:
        if process.is_alive:
            self.expect(not step.is_busy, f"{what} in {process}, and somebody else is in it")
        step.is_busy = True
        try:
            yield
        except HandlerTimeoutError:
            call.outcome = "unknown"
            raise
        except Exception:
            call.outcome = "doubtful" if anyio.current_effective_deadline() == -math.inf else "raised"
            raise
        except BaseException:
            call.outcome = "unknown"
            raise
        else:
            call.outcome = "returned"
        finally:
            step.is_busy = False

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        """The effect is there from now on. An error of known outcome takes back what this call has done."""
        step = self.steps[name]
        before, step.has_effect = step.has_effect, True
        try:
            yield
        except HandlerTimeoutError:
            raise
        except Exception:
            step.has_effect = before
            raise

    def _check_may_act(self, process: Process, name: str, context: ModelContext) -> None:
        if not process.is_alive:
            return
        status = self.record.status if self.record is not None else None
        self.expect(status is SagaStatus.RUNNING, f"{name} acts in {process}, and the saga is {status}")
        logged = self.last_act_entry(name)
        self.expect(logged is STARTED, f"{name} acts in {process}, and the log says {logged}")
        self.expect(self.holder is process, f"{name} acts in {process}, and the saga is {self.holder}'s")
        for branches in self.scenario.stages[: self.scenario.stage_of[name]]:
            for branch in branches:
                done = [step.name for step in branch.steps if self.is_done(step.name)]
                self.expect(len(done) == 1, f"{name} acts, and of {branch} before it {done} is done")
                for other in done:
                    seen, acted = getattr(context, other), self.steps[other].acts[-1].number
                    self.expect(seen == acted, f"{name} sees {seen} of {other}, not {acted}")
        branch = self.scenario.branch_of[name]
        if isinstance(branch, Either) and branch.fallback.name == name:
            self._check_falls_back(process, name, branch.primary.name, context)

    def _check_falls_back(self, process: Process, name: str, primary: str, context: ModelContext) -> None:
        self.expect(not self.steps[primary].has_effect, f"{name} acts, and so has {primary}")
        # What an earlier process left behind of a step that may have acted stays for its compensation.
        begun_by = {w.process for w in self.log if w.entry.step_name == primary}
        seen = getattr(context, primary)
        self.expect(seen == 0 or begun_by != {process}, f"the fallback {name} sees {seen} of the step that failed")

    def _check_may_undo(self, process: Process, instance: ModelStep, name: str) -> None:
        what = f"{process} compensates {name}"
        status = self.record.status if self.record is not None else None
        branch = self.scenario.branch_of[name]
        may_fall_back = isinstance(branch, Either) and branch.primary.name == name
        allowed = (SagaStatus.COMPENSATING, SagaStatus.RUNNING) if may_fall_back else (SagaStatus.COMPENSATING,)
        self.expect(status in allowed, f"{what}, and the saga is {status}")
        self.expect(self.holder is process, f"{what}, and the saga is {self.holder}'s")
        undo_entries = self.entries(name, "compensate")
        self.expect(bool(undo_entries) and undo_entries[-1].status is STARTED, f"{what}, and the log does not say so")
        self.expect(self.last_act_entry(name) in (INTERRUPTED, COMPLETED), f"{what}: {self.last_act_entry(name)}")
        self.expect(not self.is_logged_undone(name), f"{what} a second time")
        self._check_need(process, instance, name, what)
        for later, place in self.scenario.stage_of.items():
            is_before = place > self.scenario.stage_of[name] and self.steps[later].has_effect
            undone = self.entries(later, "compensate")
            is_given_up = bool(undone) and undone[-1].status is FAILED
            self.expect(not is_before or is_given_up, f"{what} before {later}")

    def _check_need(self, process: Process, instance: ModelStep, name: str, what: str) -> None:
        acts = self.steps[name].acts
        if not acts:
            announced_by = [w.process for w in self.log if w.entry.step_name == name and w.entry.status is STARTED]
            announced_by = [other for other in announced_by if other is not process]
            self.expect(bool(announced_by), f"{what}, which was never called")
            return
        last = acts[-1]
        if last.process is process and last.outcome == "returned":
            self.expect(last.instance is instance, f"{what} with another instance than the one that acted")

    # What the caller sees

    def check_result(self, name: str) -> None:
        """Its result was handed out."""
        self.expect(self.is_done(name), f"the result of {name} was handed out, and the log says no such thing")

    def check_published(self, name: str) -> None:
        """The event of a step is being handled."""
        self.expect(self.is_done(name), f"the event of {name} was published, and the log does not say it is done")

    def check_runner(self, process: Process, kinds: set[Kind]) -> None:
        """The runner has ended, and recovery has not begun yet."""
        status = self.record.status if self.record is not None else None
        if process.outcome is None:
            if not process.has_left:
                self.expect(status is SagaStatus.COMPLETED, f"the caller saw no error, and the saga is {status}")
                # A scope's cancellation comes again at the next await, wherever that is.
                self.expect(kinds.isdisjoint(NATIVE_CANCELS), "the caller did not see its cancellation")
            return
        if kinds <= {Kind.ERROR, Kind.UNKNOWN, Kind.LEAVE}:
            seen = leaves(process.outcome)
            known = [error for error in seen if any(error is raised for raised in process.first_errors)]
            self.expect(known == seen, f"the caller saw {process.outcome!r}, and not {process.first_errors}")

    def check_rest(self, process: Process, may_run_on: bool) -> None:
        """``process`` has ended by itself and no write of it was refused: it has left the saga in order."""
        record = self.record
        if record is None:
            return
        self.expect(record.locked_by is None, f"{process} has ended and has not given the saga back")
        if record.parked_reason is not None:
            return
        self.expect(record.status is not SagaStatus.COMPENSATING, f"{process} has ended in the middle of a rollback")
        self.expect(may_run_on or record.status is not SagaStatus.RUNNING, f"{process} has left the saga RUNNING")

    # The end

    def check_end(self) -> None:
        """Nothing more will happen."""
        record = self.record
        if record is None:
            self.expect(not any(step.acts for step in self.steps.values()), "steps acted of a saga that is not stored")
            return
        if record.status is SagaStatus.COMPLETED:
            self._check_completed()
        elif record.status is SagaStatus.FAILED:
            kept = [name for name, step in self.steps.items() if step.has_effect]
            self.expect(not kept, f"the saga is FAILED, and {kept} have not been undone")
        else:
            self._check_parked(record)

    def _check_completed(self) -> None:
        for branches in self.scenario.stages:
            for branch in branches:
                kept = [step.name for step in branch.steps if self.steps[step.name].has_effect]
                self.expect(len(kept) == 1, f"the saga is COMPLETED, and of {branch} there is {kept}")

    def _check_parked(self, record: SagaRecord) -> None:
        self.expect(record.parked_reason is not None, f"the saga is {record.status}, and nobody looks after it")
        reason = record.parked_reason or ""
        if reason.startswith("nobody knows"):
            self.expect(self.scenario.has("park"), "the saga is parked, and no step asks for that")
            return
        may_give_up = any(step.refusals == math.inf or step.undo_refusals == math.inf for step in self.scenario.steps)
        self.expect(may_give_up, f"the saga is parked: {reason}")
        if record.status is SagaStatus.RUNNING:
            self.expect(self.scenario.has_pivot, "the saga is parked while it is RUNNING, and it has no pivot")


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it."""
    nested: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    if nested is None:
        return [error]
    return [leaf for inner in nested for leaf in leaves(inner)]


def is_parked_or_over(record: SagaRecord | None, max_attempts: int) -> bool:
    """Whether recovery has nothing to do with it any more."""
    return (
        record is None
        or record.parked_reason is not None
        or record.status in (SagaStatus.COMPLETED, SagaStatus.FAILED)
        or (record.locked_by is None and record.recovery_attempts >= max_attempts)
    )
