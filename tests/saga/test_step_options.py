"""What a step, and a saga, says of how it is run: pivot, retry, timeout, deadline, ``on_unknown``."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest
import tenacity
from anyio.lowlevel import checkpoint

from cqrs import Fallback, OnUnknown, Parallel, Pivot, RetryPolicy
from cqrs.exceptions import (
    SagaDeadlineExceededError,
    SagaParkedError,
    SagaRolledBackError,
    SagaStepTimeoutError,
)
from cqrs.saga.options import SagaOptions
from cqrs.saga.storage import MemorySagaStorage

AT_ONCE = tenacity.wait_none()


def retry(attempts: int, *errors: type[Exception]) -> RetryPolicy:
    return RetryPolicy(attempts, errors or (Exception,), AT_ONCE)


# --- retry


async def test_a_step_is_tried_again_as_it_says(lab: Any, how: str) -> None:
    """A step with ``retry`` acts until it succeeds; one instance, one pair of log entries, its events once."""
    steps = [lab.step("A"), lab.step("B", lab.Raising(lab.Boom(), times=2), retry=retry(3))]
    assert await lab.run(lab.saga(*steps), how) == ["A", "B"]
    assert lab.log == ["A", "B", "B", "B"]
    assert len(lab.instances) == 2
    assert (await lab.history()).count("B started") == 1
    assert await lab.status() == "completed"


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_events_of_attempts_that_failed_are_forgotten(lab: Any, how: str) -> None:
    """Only what the attempt that succeeded recorded is published."""
    published: list[str] = []
    attempts = 0

    class Recording(lab.step("A")):  # type: ignore[misc]
        retry = retry(3)

        async def act(self, context: Any) -> Any:
            nonlocal attempts
            attempts += 1
            result = await super().act(context)
            if attempts < 3:
                raise lab.Boom
            return result

    async def on_event(event: Any) -> None:
        published.append(event.step)

    await lab.run(lab.saga(Recording), how, on_event=on_event)
    assert attempts == 3
    assert published == ["A"]


async def test_a_step_that_goes_on_failing_rolls_back(lab: Any, how: str) -> None:
    """When the attempts are used up, the last error reaches the caller."""
    step = lab.step("B", lab.Raising(lab.Boom("last")), retry=retry(3))
    with pytest.raises(lab.Boom, match="last"):
        await lab.run(lab.saga(lab.step("A"), step), how)
    assert lab.log == ["A", "B", "B", "B", "~A"]
    assert await lab.status() == "failed"


async def test_an_error_that_is_not_worth_another_attempt(lab: Any, how: str) -> None:
    """An error that ``retry_on`` does not name ends the step at once."""
    step = lab.step("B", lab.Raising(lab.Boom()), retry=retry(3, KeyError))
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), step), how)
    assert lab.log == ["A", "B", "~A"]


# --- timeout


async def test_a_step_that_takes_too_long(lab: Any, how: str) -> None:
    """It is cancelled, INTERRUPTED in the log, and compensated, since it may have acted."""
    gate = lab.Gate()
    with pytest.raises(SagaStepTimeoutError) as caught:
        await lab.run(lab.saga(lab.step("A"), lab.step("B", gate, timeout=0.03)), how)
    assert (caught.value.saga_id, caught.value.step_name, caught.value.seconds) == (lab.id, "B", 0.03)
    assert gate.waiting == 0
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.history() == [
        *("A started", "A completed", "B started", "B interrupted"),
        *("~B started", "~B completed", "~A started", "~A completed"),
    ]
    assert await lab.status() == "failed"


async def test_what_a_step_raises_while_it_is_timed_out(lab: Any, how: str) -> None:
    """An error that a step makes of its cancellation does not say that it has not acted: it is compensated."""

    async def act(context: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise lab.Boom

    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), lab.step("B", act, timeout=0.03)), how)
    assert lab.log == ["A", "B", "~B", "~A"]
    assert "B interrupted" in await lab.history()


async def test_a_step_whose_own_timeout_error_is_an_error(lab: Any, how: str) -> None:
    """A TimeoutError of the step's own is a failure like any other: the step is not compensated."""
    with pytest.raises(TimeoutError):
        await lab.run(lab.saga(lab.step("A"), lab.step("B", lab.Raising(TimeoutError()), timeout=5)), how)
    assert lab.log == ["A", "B", "~A"]
    assert "B failed" in await lab.history()


async def test_a_timeout_is_not_retried_unless_the_step_says_so(lab: Any, how: str) -> None:
    """A step that may have acted does not act again by its ``retry`` alone."""
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(lab.saga(lab.step("A", lab.Gate(), timeout=0.03, retry=retry(3))), how)
    assert lab.log == ["A", "~A"]


def hanging_at_first(lab: Any, times: int = 1) -> Any:
    """Hangs the first time, and acts at the next."""
    calls = 0

    async def act(context: Any) -> None:
        nonlocal calls
        calls += 1
        await (anyio.sleep_forever() if calls <= times else checkpoint())

    return act


@pytest.mark.parametrize("on_unknown", ["retry", OnUnknown.RETRY])
async def test_a_timeout_is_retried_where_the_step_says_so(lab: Any, how: str, on_unknown: Any) -> None:
    """With ``on_unknown = "retry"`` a step that timed out acts again, with a time of its own for each attempt."""
    step = lab.step("B", hanging_at_first(lab, 2), timeout=0.03, retry=retry(3), on_unknown=on_unknown)
    await lab.run(lab.saga(lab.step("A"), step), how)
    assert lab.log == ["A", "B", "B", "B"]
    assert await lab.status() == "completed"


async def test_a_failure_after_a_timeout_is_compensated(lab: Any, how: str) -> None:
    """An attempt that timed out may have acted, whatever a later one says: the step is compensated."""
    calls = 0

    async def act(context: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await anyio.sleep_forever()
        raise lab.Boom

    step = lab.step("B", act, timeout=0.03, retry=retry(2), on_unknown="retry")
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), step), how)
    assert lab.log == ["A", "B", "B", "~B", "~A"]
    assert await lab.status() == "failed"


# --- on_unknown


async def test_an_unknown_step_that_is_to_be_retried_leaves_the_saga_running(lab: Any, how: str) -> None:
    """After a timeout of a step with ``"retry"``, nothing is undone: recovery lets it act again."""
    step = lab.step("B", hanging_at_first(lab), timeout=0.03, on_unknown="retry")
    saga = lab.saga(lab.step("A"), step, lab.step("C"))
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(saga, how)
    assert lab.log == ["A", "B"]
    assert await lab.history() == ["A started", "A completed", "B started", "B interrupted"]
    assert await lab.status() == "running"
    assert not await lab.is_held()
    await lab.recover(saga)
    assert lab.log == ["A", "B", "B", "C"]
    assert await lab.status() == "completed"


async def test_an_unknown_step_that_is_to_be_parked(lab: Any, how: str) -> None:
    """Nothing is done to the saga until it is unparked; then the step is treated as unknown by recovery again."""
    step = lab.step("B", lab.Gate(), timeout=0.03, on_unknown="park")
    saga = lab.saga(lab.step("A"), step)
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(saga, how)
    assert lab.log == ["A", "B"]
    (parked,) = await lab.storage.get_parked_sagas()
    assert (parked.saga_id, str(parked.status), parked.locked_by) == (lab.id, "running", None)
    assert "B has acted" in parked.parked_reason
    with pytest.raises(SagaParkedError) as caught:
        await lab.recover(saga)
    assert "unpark_saga" in str(caught.value)
    assert lab.log == ["A", "B"]
    assert await lab.storage.get_sagas_for_recovery(10) == []


async def test_a_parked_saga_whose_step_was_settled_by_hand(lab: Any) -> None:
    """An operator who found out writes it into the log and unparks the saga: recovery goes on from there."""
    saga = lab.saga(lab.step("A"), lab.step("B", lab.Gate(), timeout=0.03, on_unknown="park"), lab.step("C"))
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(saga)
    from cqrs import SagaStepStatus

    await MemorySagaStorage.log_step(lab.storage, lab.id, "B", "act", SagaStepStatus.COMPLETED)
    await lab.storage.unpark_saga(lab.id)
    await lab.recover(saga)
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "completed"


async def test_a_parked_saga_that_had_failed_for_sure_is_only_rolled_back(lab: Any) -> None:
    """With a sibling that failed, a group's step that is to be parked parks a saga that cannot go forward any more."""
    gate = lab.Gate()

    async def fail(context: Any) -> None:
        await gate.reached.wait()
        raise lab.Boom

    parked = lab.step("B", gate, on_unknown="park")
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), Parallel(parked, lab.step("C", fail))))
    record = await lab.storage.load_saga(lab.id)
    assert (str(record.status), record.parked_reason is not None) == ("compensating", True)
    assert sorted(lab.log) == ["A", "B", "C"]


async def crash(lab: Any, saga: Any, gate: Any) -> None:
    """Have the runner of a saga die while a step waits at ``gate``: nothing more of it is written."""

    async def before_commit(writes: Any) -> None:
        raise ConnectionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lab.run, saga)
        await gate.reached.wait()
        lab.storage.before_commit = before_commit
        tasks.cancel_scope.cancel()
    lab.storage.before_commit = checkpointing
    record = lab.storage._table.find(lab.id)
    record.locked_until = None
    lab.log.clear()
    gate.open()


async def checkpointing(*_: Any) -> None:
    await checkpoint()


@pytest.mark.parametrize(
    ("on_unknown", "log", "status", "error"),
    [
        (None, ["B", "C"], "completed", None),
        ("retry", ["B", "C"], "completed", None),
        ("compensate", ["~B", "~A"], "failed", SagaRolledBackError),
        ("park", [], "running", SagaParkedError),
    ],
)
async def test_what_recovery_does_with_a_step_in_which_the_process_died(
    lab: Any, on_unknown: Any, log: list[str], status: str, error: type[Exception] | None
) -> None:
    """A step of which the log says only STARTED is retried by default, or treated as its ``on_unknown`` says."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", gate, on_unknown=on_unknown), lab.step("C"))
    await crash(lab, saga, gate)
    if error is None:
        await lab.recover(saga)
    else:
        with pytest.raises(error):
            await lab.recover(saga)
    assert lab.log == log
    assert await lab.status() == status
    assert not await lab.is_held()


@pytest.mark.parametrize("on_unknown", ["compensate", "park"])
async def test_a_step_that_was_only_announced_is_not_taken_for_unknown(lab: Any, on_unknown: str) -> None:
    """STARTED of a step that must not be retried is written when it really starts, not with what precedes."""
    gate = lab.Gate()
    steps = [lab.step("A", gate), lab.step("B", on_unknown=on_unknown)]
    await crash(lab, lab.saga(*steps), gate)
    assert await lab.history() == ["A started"]


# --- pivot


async def test_behind_a_pivot_steps_are_tried_again(lab: Any, how: str) -> None:
    """A step behind the pivot is retried by itself."""
    steps = [lab.step("A"), Pivot(lab.step("P")), lab.step("B", lab.Raising(lab.Boom(), times=1))]
    await lab.run(lab.saga(*steps), how)
    assert lab.log == ["A", "P", "B", "B"]
    assert await lab.status() == "completed"


async def test_behind_a_pivot_nothing_is_undone(lab: Any, how: str) -> None:
    """When retries do not help the error reaches the caller; the saga stays RUNNING, and recovery goes forward."""
    failing = lab.Raising(lab.Boom(), times=2)
    saga = lab.saga(lab.step("A"), Pivot(lab.step("P")), lab.step("B", failing, retry=retry(2)), lab.step("C"))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert lab.log == ["A", "P", "B", "B"]
    assert await lab.status() == "running"
    assert not await lab.is_held()
    await lab.recover(saga)
    assert lab.log == ["A", "P", "B", "B", "B", "C"]
    assert await lab.status() == "completed"


async def test_a_pivot_that_fails_rolls_back(lab: Any, how: str) -> None:
    """A pivot that raised is not done: what precedes it is undone."""
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), Pivot(lab.step("P", lab.Raising(lab.Boom()))), lab.step("B")), how)
    assert lab.log == ["A", "P", "~A"]
    assert await lab.status() == "failed"


async def test_a_pivot_that_is_interrupted_is_retried_by_recovery(lab: Any, how: str) -> None:
    """A pivot that may have been done is not undone: recovery lets it act again, and the saga goes forward."""
    saga = lab.saga(lab.step("A"), Pivot(lab.step("P", hanging_at_first(lab), timeout=0.03)), lab.step("B"))
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(saga, how)
    assert lab.log == ["A", "P"]
    assert await lab.status() == "running"
    await lab.recover(saga)
    assert lab.log == ["A", "P", "P", "B"]
    assert await lab.status() == "completed"


async def test_a_pivot_that_says_otherwise_is_compensated(lab: Any, how: str) -> None:
    """A pivot with ``on_unknown = "compensate"`` that times out is undone with what precedes it."""
    pivot = lab.step("P", lab.Gate(), timeout=0.03, on_unknown="compensate")
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(lab.saga(lab.step("A"), Pivot(pivot)), how)
    assert lab.log == ["A", "P", "~P", "~A"]
    assert await lab.status() == "failed"


async def test_a_pivot_can_be_a_fallback(lab: Any, how: str) -> None:
    """Behind a fallback that is the pivot, the saga goes only forward too."""
    pivot = Pivot(Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q")))
    saga = lab.saga(lab.step("A"), pivot, lab.step("B", lab.Raising(lab.Boom()), retry=retry(1)))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert lab.log == ["A", "P", "Q", "B"]
    assert await lab.status() == "running"


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_an_event_handler_that_fails_behind_a_pivot(lab: Any, how: str) -> None:
    """Behind the pivot a failing event handler undoes nothing either; recovery completes the saga."""

    async def on_event(event: Any) -> None:
        if event.step == "P":
            raise lab.Boom

    saga = lab.saga(lab.step("A"), Pivot(lab.step("P")), lab.step("B"))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how, on_event=on_event)
    assert lab.log == ["A", "P"]
    assert await lab.status() == "running"
    await lab.recover(saga)
    assert lab.log == ["A", "P", "B"]
    assert await lab.status() == "completed"


# --- deadline


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def let_pass(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.mark.parametrize("deadline", [0.2, timedelta(milliseconds=200)])
async def test_a_saga_that_takes_too_long_is_rolled_back(lab: Any, how: str, deadline: Any) -> None:
    """At its deadline the step that acts is cancelled, and it and those before it are undone."""
    saga = lab.saga(lab.step("A"), lab.step("B", lab.Gate()), deadline=deadline)
    with pytest.raises(SagaDeadlineExceededError) as caught:
        await lab.run(saga, how)
    assert caught.value.saga_id == lab.id
    assert lab.log == ["A", "B", "~B", "~A"]
    assert "B interrupted" in await lab.history()
    assert await lab.status() == "failed"
    assert (await lab.storage.load_saga(lab.id)).deadline == caught.value.deadline


async def test_a_deadline_of_one_run(lab: Any) -> None:
    """A deadline that is given at the start counts in place of the saga's."""
    saga = lab.saga(lab.step("A", lab.Gate()), deadline=1000)
    with pytest.raises(SagaDeadlineExceededError):
        await lab.run(saga, deadline=0.2)
    lab.id = type(lab.id)(int=7)
    with pytest.raises(SagaDeadlineExceededError):
        async for _ in lab.mediator(saga).stream(lab.context, lab.id, deadline=timedelta(seconds=0.2)):
            pass
    assert await lab.status() == "failed"


async def test_a_deadline_that_passes_between_two_steps(lab: Any) -> None:
    """The next step does not begin once the deadline has passed."""
    clock = Clock()
    options = SagaOptions(clock=clock)
    with pytest.raises(SagaDeadlineExceededError):  # noqa: PT012
        async with lab.transaction(lab.saga(lab.step("A"), lab.step("B"), deadline=60), options=options) as transaction:
            async for _ in transaction:
                clock.let_pass(61)
    assert lab.log == ["A", "~A"]
    assert await lab.status() == "failed"
    assert "B not_started" in await lab.history()


async def test_a_deadline_does_not_count_once_all_steps_are_done(lab: Any) -> None:
    """A saga whose last step was done in time is COMPLETED, however late that is asked for."""
    clock = Clock()
    async with lab.transaction(lab.saga(lab.step("A"), deadline=60), options=SagaOptions(clock=clock)) as transaction:
        async for _ in transaction:
            clock.let_pass(61)
    assert lab.log == ["A"]
    assert await lab.status() == "completed"


async def test_a_deadline_does_not_count_behind_a_pivot(lab: Any) -> None:
    """Behind the pivot a saga goes forward, late or not."""
    clock = Clock()
    saga = lab.saga(Pivot(lab.step("P")), lab.step("B"), lab.step("C"), deadline=60)
    async with lab.transaction(saga, options=SagaOptions(clock=clock)) as transaction:
        async for _ in transaction:
            clock.let_pass(61)
    assert lab.log == ["P", "B", "C"]
    assert await lab.status() == "completed"


async def left_after_one_step(lab: Any, saga: Any, clock: Clock) -> None:
    lab.storage = lab.Storage(clock=clock)
    async with lab.transaction(saga, options=SagaOptions(clock=clock)) as transaction:
        async for _ in transaction:
            break
    assert await lab.status() == "running"


async def test_a_deadline_binds_after_recovery(lab: Any) -> None:
    """The deadline is stored, and a recovery that comes too late rolls the saga back."""
    clock = Clock()
    saga = lab.saga(lab.step("A"), lab.step("B"), deadline=60)
    await left_after_one_step(lab, saga, clock)
    assert (await lab.storage.load_saga(lab.id)).deadline == clock.now + timedelta(seconds=60)
    clock.let_pass(61)
    with pytest.raises(SagaDeadlineExceededError):
        await lab.recover(saga, options=SagaOptions(clock=clock))
    assert lab.log == ["A", "~A"]
    assert await lab.status() == "failed"


async def test_a_deadline_is_not_granted_anew_by_recovery(lab: Any) -> None:
    """A recovery in time has the rest of the time, not all of it again."""
    clock = Clock()
    saga = lab.saga(lab.step("A"), lab.step("B", lab.Gate()), deadline=60)
    await left_after_one_step(lab, saga, clock)
    clock.let_pass(59.8)
    with pytest.raises(SagaDeadlineExceededError):
        await lab.recover(saga, options=SagaOptions(clock=clock))
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_late_recovery_of_a_saga_whose_steps_are_all_done(lab: Any) -> None:
    """A saga that had only to be marked COMPLETED when its runner died is COMPLETED, not rolled back."""
    clock = Clock()
    saga = lab.saga(lab.step("A"), deadline=60)
    await left_after_one_step(lab, saga, clock)
    assert await lab.history() == ["A started", "A completed"]
    clock.let_pass(61)
    await lab.recover(saga, options=SagaOptions(clock=clock))
    assert lab.log == ["A"]
    assert await lab.status() == "completed"


async def test_a_late_recovery_behind_a_pivot(lab: Any) -> None:
    """Behind the pivot a late recovery goes forward."""
    clock = Clock()
    saga = lab.saga(Pivot(lab.step("P")), lab.step("B"), deadline=60)
    await left_after_one_step(lab, saga, clock)
    clock.let_pass(61)
    await lab.recover(saga, options=SagaOptions(clock=clock))
    assert lab.log == ["P", "B"]
    assert await lab.status() == "completed"


async def test_a_deadline_in_a_parallel_group(lab: Any, how: str) -> None:
    """At the deadline all steps of a group are cancelled and undone, those that are done as well."""
    saga = lab.saga(lab.step("A"), Parallel(lab.step("B", lab.Gate()), lab.step("C")), deadline=0.2)
    with pytest.raises(SagaDeadlineExceededError):
        await lab.run(saga, how)
    assert sorted(lab.log[:3]) == ["A", "B", "C"]
    assert sorted(lab.log[3:5]) == ["~B", "~C"]
    assert lab.log[5:] == ["~A"]
    assert await lab.status() == "failed"
