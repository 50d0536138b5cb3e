"""A saga that its runner has left is brought to its end by hand."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import anyio
import pydantic
import pytest
from anyio.lowlevel import checkpoint
from recovery_bench import (
    BOUND,
    NOON,
    Bench,
    Boom,
    OrderContext,
    left_by_a_crash,
    log_of,
    saga_of,
    status_of,
    wait,
)

from cqrs import PlainContainer
from cqrs.exceptions import (
    InvalidOptionError,
    SagaCompensationError,
    SagaDeadlineExceededError,
    SagaDefinitionError,
    SagaLockedError,
    SagaNotFoundError,
    SagaParkedError,
    SagaRolledBackError,
)
from cqrs.retry import RetryPolicy, exponential
from cqrs.saga.compensation import compensation_errors
from cqrs.saga.fallback import Fallback
from cqrs.saga.models import SagaContext
from cqrs.saga.options import SagaOptions
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.recovery import recover_saga
from cqrs.saga.saga import Saga
from cqrs.saga.step import SagaStepHandler
from cqrs.saga.storage import SagaStatus, SagaStepStatus

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

RUN = "act A started, act A completed, act B started, act B completed, act C started, act C completed"
ROLLBACK = (
    "compensate C started, compensate C completed, compensate B started, compensate B completed, "
    "compensate A started, compensate A completed"
)


async def recover(saga: Any, saga_id: uuid.UUID, storage: Any, **options: Any) -> None:
    options.setdefault("compensation_retry_delay", 0.0)
    if "options" in options:
        del options["compensation_retry_delay"]
    with anyio.fail_after(BOUND):
        await recover_saga(saga(), saga_id, OrderContext, PlainContainer(), storage, **options)


async def break_off(saga: Any, storage: Any, after: int, saga_id: uuid.UUID | None = None) -> uuid.UUID:
    """Begin a saga, and leave it after so many results."""
    saga_id = saga_id or uuid.uuid4()
    async with saga().transaction(OrderContext(str(saga_id)), PlainContainer(), storage, saga_id) as transaction:
        for _ in range(after):
            await transaction.__anext__()
    return saga_id


async def test_the_documented_call(bench: Bench, storage: Any) -> None:
    """Called as documented, it goes on behind the last step that is done, and the log tells of all steps."""
    saga = saga_of(*bench.steps("ABC"))
    saga_id = await break_off(saga, storage, 1)
    recovered = await recover_saga(
        saga=saga(),
        saga_id=saga_id,
        context_builder=OrderContext,
        container=PlainContainer(),
        storage=storage,
    )
    assert recovered is None
    assert bench.calls == ["act A", "act B", "act C"]
    status, context, _ = await storage.load_saga_state(saga_id)
    assert (status, context["done"]) == (SagaStatus.COMPLETED, ["A", "B", "C"])
    history = await storage.get_step_history(saga_id)
    assert [entry.step_name for entry in history if entry.status == "completed"] == ["A", "B", "C"]
    assert all(entry.action == "act" and entry.timestamp.utcoffset() is not None for entry in history)


async def test_a_class_is_a_saga_too(bench: Bench, storage: Any) -> None:
    """In place of an instance the saga's class can be given."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await break_off(saga, storage, 1)
    await recover_saga(saga, saga_id, OrderContext, PlainContainer(), storage)
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


@pytest.mark.parametrize("after", range(4))
async def test_a_saga_that_was_left_goes_on(bench: Bench, storage: Any, after: int) -> None:
    """Left by ``break`` after any of its steps, it does the others, each once, and its lease is given back at once."""
    saga = saga_of(*bench.steps("ABC"))
    saga_id = await break_off(saga, storage, after)
    if after == 0:
        with pytest.raises(SagaNotFoundError):
            await recover(saga, saga_id, storage)
        return
    await recover(saga, saga_id, storage)
    assert bench.calls == ["act A", "act B", "act C"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts, record.locked_by) == (SagaStatus.COMPLETED, 0, None)


@pytest.mark.parametrize("length", range(7))
async def test_a_saga_that_crashed_goes_on(bench: Bench, storage: Any, length: int) -> None:
    """Whatever the log got to say before the process died: what is done is not done again, and all else is."""
    log = RUN.split(", ")[:length]
    saga_id = await left_by_a_crash(storage, log)
    await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert bench.calls == [f"act {step}" for step in "ABC"[length // 2 :]]
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED
    assert (await log_of(storage, saga_id))[: len(log)] == log


@pytest.mark.parametrize("length", range(7))
async def test_a_rollback_that_crashed_goes_on(bench: Bench, storage: Any, length: int) -> None:
    """Only what is not undone yet is compensated, in reverse; it never goes forward."""
    log = [*RUN.split(", "), *ROLLBACK.split(", ")[:length]]
    saga_id = await left_by_a_crash(storage, log, status=SagaStatus.COMPENSATING)
    with pytest.raises(SagaRolledBackError) as caught:
        await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert bench.calls == [f"compensate {step}" for step in "CBA"[length // 2 :]]
    assert await status_of(storage, saga_id) is SagaStatus.FAILED
    assert (caught.value.saga_id, caught.value.status) == (saga_id, "compensating")


@pytest.mark.parametrize("outcome", ["failed", "not_started"])
async def test_what_did_not_act_is_not_compensated(bench: Bench, storage: Any, outcome: str) -> None:
    """In a rollback, steps of which the log says that they did nothing are left out."""
    log = f"act A started, act A completed, act B started, act B {outcome}"
    saga_id = await left_by_a_crash(storage, log, status=SagaStatus.COMPENSATING)
    with pytest.raises(SagaRolledBackError):
        await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert bench.calls == ["compensate A"]


@pytest.mark.parametrize("ends", ["", ", act B interrupted"])
@pytest.mark.parametrize(("on_unknown", "expected"), [(None, True), ("retry", True), ("compensate", False)])
async def test_an_unknown_step_forward(
    bench: Bench, storage: Any, on_unknown: str | None, expected: bool, ends: str
) -> None:
    """A step that may have acted acts again, unless its ``on_unknown`` has the saga rolled back, itself included."""
    saga = saga_of(bench.step("A"), bench.step("B", on_unknown=on_unknown))
    saga_id = await left_by_a_crash(storage, f"act A started, act A completed, act B started{ends}")
    if expected:
        await recover(saga, saga_id, storage)
        assert bench.calls == ["act B"]
        assert await status_of(storage, saga_id) is SagaStatus.COMPLETED
        return
    with pytest.raises(SagaRolledBackError):
        await recover(saga, saga_id, storage)
    assert bench.calls == ["compensate B", "compensate A"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts) == (SagaStatus.FAILED, 0)


@pytest.mark.parametrize("on_unknown", [None, "retry", "compensate"])
async def test_an_unknown_step_backward(bench: Bench, storage: Any, on_unknown: str | None) -> None:
    """In a rollback a step that may have acted is compensated, whatever going forward would have done with it."""
    saga = saga_of(bench.step("A"), bench.step("B", on_unknown=on_unknown))
    log = "act A started, act A completed, act B started"
    saga_id = await left_by_a_crash(storage, log, status=SagaStatus.COMPENSATING)
    with pytest.raises(SagaRolledBackError):
        await recover(saga, saga_id, storage)
    assert bench.calls == ["compensate B", "compensate A"]
    assert "act B interrupted" in await log_of(storage, saga_id)


@pytest.mark.parametrize(
    "status",
    [
        SagaStatus.RUNNING,
        SagaStatus.COMPENSATING,
    ],
)
async def test_an_unknown_step_that_somebody_must_look_at(bench: Bench, storage: Any, status: SagaStatus) -> None:
    """With ``on_unknown = "park"`` nothing is done either way: the saga waits, in its status, and says why."""
    saga = saga_of(bench.step("A"), bench.step("B", on_unknown="park"))
    saga_id = await left_by_a_crash(storage, "act A started, act A completed, act B started", status=status)
    with pytest.raises(SagaParkedError, match="B has acted"):
        await recover(saga, saga_id, storage)
    assert bench.calls == []
    [parked] = await storage.get_parked_sagas()
    assert (parked.saga_id, parked.status, parked.locked_by) == (saga_id, status, None)
    assert (await log_of(storage, saga_id))[-1] == "act B interrupted"
    with pytest.raises(SagaParkedError, match="B has acted"):
        await recover(saga, saga_id, storage)
    assert bench.calls == []


@pytest.mark.parametrize(("found", "calls"), [("completed", ["act C"]), ("failed", ["act B", "act C"])])
async def test_who_has_looked_says_what_is_true(bench: Bench, storage: Any, found: str, calls: list[str]) -> None:
    """Who found out whether the step has acted logs that, and unparks the saga: it goes on from there."""
    saga = saga_of(bench.step("A"), bench.step("B", on_unknown="park"), bench.step("C"))
    saga_id = await left_by_a_crash(storage, "act A started, act A completed, act B started")
    with pytest.raises(SagaParkedError):
        await recover(saga, saga_id, storage)
    await storage.log_step(saga_id, "B", "act", SagaStepStatus(found))
    await storage.unpark_saga(saga_id)
    await recover(saga, saga_id, storage)
    assert bench.calls == calls
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_failed_compensation_is_selected_and_finished(bench: Bench, storage: Any) -> None:
    """A saga in COMPENSATION_FAILED is offered to recovery, which compensates what could not be; what was, is not."""
    saga, failing = saga_of(*bench.steps("ABC")), True

    async def fail(context: Any) -> None:
        if failing:
            raise Boom

    bench.on = {"act C": fail, "compensate A": fail}
    saga_id = uuid.uuid4()
    with pytest.raises(Boom):
        async with saga().transaction(
            OrderContext(), PlainContainer(), storage, saga_id, compensation_retry_count=1
        ) as transaction:
            [result async for result in transaction]
    assert await status_of(storage, saga_id) is SagaStatus.COMPENSATION_FAILED
    assert await storage.get_sagas_for_recovery(10) == [saga_id]
    failing = False
    del bench.calls[:]
    with pytest.raises(SagaRolledBackError):
        await recover(saga, saga_id, storage)
    assert bench.calls == ["compensate A"]
    assert await status_of(storage, saga_id) is SagaStatus.FAILED
    assert await storage.get_sagas_for_recovery(10) == []


async def test_a_compensation_that_goes_on_failing_is_counted(bench: Bench, storage: Any) -> None:
    """What cannot be compensated is tried as often as told, told of, and counted; those before it are compensated."""
    saga = saga_of(*bench.steps("AB"))

    async def fail(context: Any) -> None:
        raise Boom

    bench.on["compensate B"] = fail
    log = "act A started, act A completed, act B started, act B completed"
    saga_id = await left_by_a_crash(storage, log, status=SagaStatus.COMPENSATING)
    for attempt in (1, 2):
        with pytest.raises(SagaRolledBackError) as caught:
            await recover(saga, saga_id, storage, compensation_retry_count=2)
        [error] = compensation_errors(caught.value)
        assert isinstance(error, SagaCompensationError)
        assert (error.step_name, type(error.__cause__)) == ("B", Boom)
        record = await storage.load_saga(saga_id)
        assert (record.status, record.recovery_attempts) == (SagaStatus.COMPENSATION_FAILED, attempt)
        assert record.locked_by is None
    assert bench.calls == ["compensate B", "compensate B", "compensate A", "compensate B", "compensate B"]


async def test_a_completed_saga_is_left_as_it_is(bench: Bench, storage: Any) -> None:
    """Recovering a COMPLETED saga does nothing, and raises nothing."""
    saga_id = await left_by_a_crash(storage, RUN, status=SagaStatus.COMPLETED)
    await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.COMPLETED, None, 0)
    assert bench.calls == []
    assert ", ".join(await log_of(storage, saga_id)) == RUN


async def test_a_completed_saga_is_not_touched(bench: Bench, storage: Any) -> None:
    """Asked again and again, recovery neither writes into a COMPLETED saga's log nor keeps it from being purged."""
    a, p, f = bench.steps("APF")
    log = "act A started, act A completed, act P started, act F started, act F completed"
    saga_id = await left_by_a_crash(storage, log, status=SagaStatus.COMPLETED)
    before = await storage.load_saga(saga_id)
    wait(storage, 5)
    await recover(saga_of(a, Fallback(step=p, fallback=f)), saga_id, storage)
    assert ", ".join(await log_of(storage, saga_id)) == log
    assert (await storage.load_saga(saga_id)).updated_at == before.updated_at


async def test_a_failed_saga_is_refused(bench: Bench, storage: Any) -> None:
    """Recovering a FAILED saga does nothing, and says that it has been rolled back."""
    saga_id = await left_by_a_crash(storage, f"{RUN}, {ROLLBACK}", status=SagaStatus.FAILED)
    with pytest.raises(SagaRolledBackError) as caught:
        await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert caught.value.status == "failed"
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.FAILED, None, 0)
    assert bench.calls == []


async def test_a_missing_saga_is_not_found(bench: Bench, storage: Any) -> None:
    """There is nothing to recover under an id that the storage does not have, and nothing is begun."""
    with pytest.raises(SagaNotFoundError):
        await recover(saga_of(*bench.steps("A")), uuid.uuid4(), storage)
    assert bench.calls == []


async def test_a_saga_that_somebody_runs_is_locked(bench: Bench, storage: Any) -> None:
    """A saga whose lease has not ended is not recovered; when it has, it is."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    await storage.acquire_lease(saga_id, "its runner", 30)
    with pytest.raises(SagaLockedError) as caught:
        await recover(saga, saga_id, storage)
    assert (caught.value.owner, bench.calls) == ("its runner", [])
    assert (await storage.load_saga(saga_id)).recovery_attempts == 0
    wait(storage, 30)
    await recover(saga, saga_id, storage)
    assert bench.calls == ["act B"]


def at(moment: datetime) -> SagaOptions:
    return SagaOptions(compensation=exponential(1, 0, 1), clock=lambda: moment)


async def test_a_deadline_that_has_passed(bench: Bench, storage: Any) -> None:
    """A saga that is found after its deadline is rolled back, what may have acted included."""
    log = "act A started, act A completed, act B started"
    saga_id = await left_by_a_crash(storage, log, deadline=NOON)
    with pytest.raises(SagaDeadlineExceededError) as caught:
        await recover(saga_of(*bench.steps("ABC")), saga_id, storage, options=at(NOON))
    assert caught.value.deadline == NOON
    assert bench.calls == ["compensate B", "compensate A"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts) == (SagaStatus.FAILED, 0)


async def test_a_deadline_that_has_not_passed(bench: Bench, storage: Any) -> None:
    """Before its deadline a saga goes on."""
    saga_id = await left_by_a_crash(storage, "act A started, act A completed", deadline=NOON)
    await recover(saga_of(*bench.steps("AB")), saga_id, storage, options=at(NOON - timedelta(seconds=9)))
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_deadline_counts_on(bench: Bench, storage: Any) -> None:
    """A step that is not done at the stored deadline is cancelled, and the saga rolled back."""
    bench.on["act B"] = lambda _: anyio.sleep_forever()
    saga_id = await left_by_a_crash(storage, "act A started, act A completed", deadline=NOON)
    with pytest.raises(SagaDeadlineExceededError):
        await recover(saga_of(*bench.steps("AB")), saga_id, storage, options=at(NOON - timedelta(seconds=0.01)))
    assert bench.calls == ["act B", "compensate B", "compensate A"]
    assert await status_of(storage, saga_id) is SagaStatus.FAILED


@pytest.mark.parametrize(
    "log",
    [
        "act A started, act A completed",
        "act A started",
        ("act A started, act A interrupted"),
    ],
)
async def test_a_deadline_is_nothing_behind_the_pivot(bench: Bench, storage: Any, log: str) -> None:
    """Found after its deadline, with the pivot done or maybe done, a saga goes forward."""
    a, b = bench.steps("AB")
    saga_id = await left_by_a_crash(storage, log, deadline=NOON)
    await recover(saga_of(Pivot(a), b), saga_id, storage, options=at(NOON + timedelta(days=1)))
    assert bench.calls == (["act B"] if "completed" in log else ["act A", "act B"])
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_behind_the_pivot_a_failure_is_counted_and_tried_again(bench: Bench, storage: Any) -> None:
    """A step behind the pivot that fails leaves the saga RUNNING and counted; the next recovery does it."""
    a, b = bench.step("A"), bench.step("B", retry=RetryPolicy(attempts=1))

    async def fail(context: Any) -> None:
        raise Boom

    bench.on["act B"] = fail
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    with pytest.raises(Boom):
        await recover(saga_of(Pivot(a), b), saga_id, storage)
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts, record.locked_by) == (SagaStatus.RUNNING, 1, None)
    assert (await log_of(storage, saga_id))[-1] == "act B failed"
    del bench.on["act B"]
    await recover(saga_of(Pivot(a), b), saga_id, storage)
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_step_that_fails_in_a_recovery_rolls_back(bench: Bench, storage: Any) -> None:
    """The caller gets what the step raised; all that was done, in whichever run, is undone; it is no failed attempt."""

    async def fail(context: Any) -> None:
        raise Boom

    bench.on["act C"] = fail
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    with pytest.raises(Boom):
        await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert bench.calls == ["act B", "act C", "compensate B", "compensate A"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts) == (SagaStatus.FAILED, 0)


async def test_a_doubtful_step_that_fails_is_compensated(bench: Bench, storage: Any) -> None:
    """A step that may have acted before, and raises when it acts again, is compensated with the others."""

    async def fail(context: Any) -> None:
        raise Boom

    bench.on["act B"] = fail
    saga_id = await left_by_a_crash(storage, "act A started, act A completed, act B started")
    with pytest.raises(Boom):
        await recover(saga_of(*bench.steps("AB")), saga_id, storage)
    assert bench.calls == ["act B", "compensate B", "compensate A"]


async def test_a_parked_saga_is_refused_until_it_is_unparked(bench: Bench, storage: Any) -> None:
    """A parked saga stays parked, and says why; unparked, it is recovered."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    lease = await storage.acquire_lease(saga_id, "somebody", 30)
    async with storage.create_run(lease) as run:
        await run.park_saga("the bank says no")
        await run.commit()
    with pytest.raises(SagaParkedError) as caught:
        await recover(saga, saga_id, storage)
    assert caught.value.reason == "the bank says no"
    assert bench.calls == []
    assert [record.saga_id for record in await storage.get_parked_sagas()] == [saga_id]
    await storage.unpark_saga(saga_id)
    await recover(saga, saga_id, storage)
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


BEGUN = "act A started, act A completed, act B started"


@pytest.mark.parametrize(
    ("names", "log", "status"),
    [
        ("AX", BEGUN, SagaStatus.RUNNING),
        ("A", BEGUN, SagaStatus.RUNNING),
        ("AXB", BEGUN, SagaStatus.RUNNING),
        ("XAB", "act A started, act A completed", SagaStatus.RUNNING),
        ("BA", "act A started, act A completed", SagaStatus.RUNNING),
        ("X", "", SagaStatus.PENDING),
        ("A", f"{BEGUN}, compensate B completed", SagaStatus.COMPENSATING),
        ("AX", BEGUN, SagaStatus.COMPENSATION_FAILED),
    ],
)
async def test_changed_steps(bench: Bench, storage: Any, names: str, log: str, status: SagaStatus) -> None:
    """Steps renamed, removed, inserted or swapped under a running saga: nothing is done, and the attempt is counted."""
    saga_id = await left_by_a_crash(storage, log.split(", ") if log else "act A started", status=status)
    before = await log_of(storage, saga_id)
    with pytest.raises(SagaDefinitionError) as caught:
        await recover(saga_of(*bench.steps(names)), saga_id, storage)
    assert (caught.value.saga_id, caught.value.saga_name, bench.calls) == (saga_id, "OrderSaga", [])
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts, record.locked_by) == (status, 1, None)
    assert [line for line in await log_of(storage, saga_id) if "interrupted" not in line] == before


async def test_with_the_old_steps_it_is_recovered(bench: Bench, storage: Any) -> None:
    """A recovery that found other steps spoils nothing for one that has the right ones."""
    saga_id = await left_by_a_crash(storage, "act A started, act A completed, act B started, act B completed")
    with pytest.raises(SagaDefinitionError):
        await recover(saga_of(*bench.steps("AC")), saga_id, storage)
    await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert bench.calls == ["act C"]


async def test_parallel_steps_are_not_forgotten_by_a_recovery_with_other_steps(bench: Bench, storage: Any) -> None:
    """A step that is done stays done in the log, although another one of its group is not known any more."""
    a, b = bench.steps("AB")
    saga_id = await left_by_a_crash(storage, "act A started, act B started, act A completed, act B completed")
    with pytest.raises(SagaDefinitionError):
        await recover(saga_of(Parallel(a, bench.step("X"))), saga_id, storage)
    await recover(saga_of(Parallel(a, b)), saga_id, storage)
    assert bench.calls == []
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_step_appended_to_a_running_saga_is_done(bench: Bench, storage: Any) -> None:
    """A step that is new behind all that have begun fits the log."""
    saga_id = await left_by_a_crash(storage, BEGUN)
    await recover(saga_of(*bench.steps("ABC")), saga_id, storage)
    assert bench.calls == ["act B", "act C"]


async def test_a_context_that_does_not_validate_is_counted(bench: Bench, storage: Any) -> None:
    """What is stored does not make a context: nothing is done, the error says why, and the attempt is counted."""
    saga_id = await left_by_a_crash(storage, "act A started, act A completed", context={"key": "o-1", "done": 3})
    saga = saga_of(*bench.steps("AB"))
    for attempt in (1, 2):
        with pytest.raises(pydantic.ValidationError, match="done"):
            await recover(saga, saga_id, storage)
        record = await storage.load_saga(saga_id)
        assert (record.status, record.recovery_attempts) == (SagaStatus.RUNNING, attempt)
        assert (record.locked_by, bench.calls) == (None, [])
    assert await log_of(storage, saga_id) == ["act A started", "act A completed"]


async def test_a_builder_that_raises_is_counted(bench: Bench, storage: Any) -> None:
    """What a function raises that is to make the context reaches the caller, and the attempt is counted."""
    saga_id = await left_by_a_crash(storage)

    def build(stored: dict[str, Any]) -> OrderContext:
        raise Boom

    with pytest.raises(Boom):
        await recover_saga(saga_of(*bench.steps("A"))(), saga_id, build, PlainContainer(), storage)
    record = await storage.load_saga(saga_id)
    assert (record.recovery_attempts, record.locked_by, bench.calls) == (1, None, [])


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(OrderContext, id="class"),
        pytest.param(OrderContext.from_dict, id="from_dict"),
        pytest.param(lambda stored: OrderContext(**stored), id="function"),
    ],
)
async def test_ways_to_make_a_context(bench: Bench, storage: Any, build: Any) -> None:
    """The context is made by its class, or by a function of the stored dictionary."""
    seen: list[Any] = []

    async def see(context: Any) -> None:
        seen.append((type(context), context.key, context.done))

    bench.on["act B"] = see
    saga_id = await left_by_a_crash(storage, "act A started, act A completed", context={"key": "o-7", "done": ["A"]})
    await recover_saga(saga_of(*bench.steps("AB"))(), saga_id, build, PlainContainer(), storage)
    assert seen == [(OrderContext, "o-7", ["A"])]


@dataclasses.dataclass
class RichContext(SagaContext):
    total: Decimal
    placed_at: datetime
    lines: list[OrderContext]
    token: bytes | None = None


async def test_rich_values_come_back(storage: Any) -> None:
    """Decimals, times, bytes and nested dataclasses that a step wrote before the crash are there afterwards."""
    seen: list[RichContext] = []
    placed_at = datetime(2030, 1, 1, tzinfo=timezone.utc)

    class Price(SagaStepHandler[RichContext]):
        async def act(self, context):
            context.total, context.token = Decimal("12.30"), b"\xff\x00"
            context.lines = [OrderContext("line")]
            return self._generate_step_result(None)

    class Bill(SagaStepHandler[RichContext]):
        async def act(self, context):
            seen.append(dataclasses.replace(context))
            return self._generate_step_result(None)

    class BillingSaga(Saga[RichContext]):
        steps = [Price, Bill]

    saga_id, context = uuid.uuid4(), RichContext(Decimal(0), placed_at, [])
    async with BillingSaga().transaction(context, PlainContainer(), storage, saga_id) as transaction:
        await transaction.__anext__()
    await recover_saga(BillingSaga(), saga_id, RichContext, PlainContainer(), storage)
    assert seen == [RichContext(Decimal("12.30"), placed_at, [OrderContext("line")], b"\xff\x00")]


FORWARD, BACKWARD = SagaStatus.RUNNING, SagaStatus.COMPENSATING
B_IS_DONE = "act A started, act A completed, act B started, act B completed"


@pytest.mark.parametrize(
    ("log", "status", "calls"),
    [
        pytest.param("act A started, act A completed", FORWARD, ["act B", "act D"], id="left"),
        pytest.param(f"{B_IS_DONE}, act D started", FORWARD, ["act D"], id="crashed in a step"),
        pytest.param(
            f"{B_IS_DONE}, act D started, act D failed", BACKWARD, ["compensate B", "compensate A"], id="failed"
        ),
        pytest.param(
            f"{B_IS_DONE}, act D started, act B failed",
            BACKWARD,
            ["compensate D", "compensate B", "compensate A"],
            id="failed under the name of another step",
        ),
        pytest.param(
            "act A started, act unknown_step failed", BACKWARD, ["compensate A"], id="failed under no step's name"
        ),
        pytest.param(
            f"{B_IS_DONE}, act D started, act D failed, compensate B started, compensate B completed, "
            "compensate A started",
            BACKWARD,
            ["compensate A"],
            id="crashed in a compensation",
        ),
        pytest.param(
            f"{B_IS_DONE}, act D started, compensate B started, compensate B failed, compensate A started, "
            "compensate A completed",
            BACKWARD,
            ["compensate D", "compensate B"],
            id="a compensation failed",
        ),
    ],
)
async def test_logs_of_python_cqrs(bench: Bench, storage: Any, log: str, status: SagaStatus, calls: list[str]) -> None:
    """Logs as python-cqrs 4.10.1 writes them are understood: names of classes, failures under other steps' names."""
    saga_id = await left_by_a_crash(storage, log, status=status)
    saga = saga_of(*bench.steps("ABD"))
    if status is FORWARD:
        await recover(saga, saga_id, storage)
        assert await status_of(storage, saga_id) is SagaStatus.COMPLETED
    else:
        with pytest.raises(SagaRolledBackError):
            await recover(saga, saga_id, storage)
        assert await status_of(storage, saga_id) is SagaStatus.FAILED
    assert bench.calls == calls


@pytest.mark.parametrize(
    ("log", "status", "calls"),
    [
        pytest.param("act F started, act F completed", FORWARD, ["act D"], id="fell back"),
        pytest.param("act F started", FORWARD, ["act F", "act D"], id="crashed in the fallback"),
        pytest.param("act F started, act F completed, act D started, act D failed", BACKWARD, None, id="failed behind"),
        pytest.param("act F started, act A failed", BACKWARD, None, id="both failed"),
    ],
)
async def test_fallbacks_in_logs_of_python_cqrs(
    bench: Bench, storage: Any, log: str, status: SagaStatus, calls: list[str] | None
) -> None:
    """Its logs do not tell that the first step of a fallback failed: forward it is left alone, backward compensated."""
    a, b, f, d = bench.steps("ABFD")
    saga = saga_of(a, Fallback(step=b, fallback=f), d)
    saga_id = await left_by_a_crash(storage, f"act A started, act A completed, act B started, {log}", status=status)
    if calls is not None:
        await recover(saga, saga_id, storage)
        assert bench.calls == calls
        return
    with pytest.raises(SagaRolledBackError):
        await recover(saga, saga_id, storage)
    assert sorted(bench.calls[:2]) == ["compensate B", "compensate F"]
    assert bench.calls[2:] == ["compensate A"]


async def test_a_pending_saga_is_begun(bench: Bench, storage: Any) -> None:
    """A saga that was created, and whose process died before it was RUNNING, is run."""
    saga_id = await left_by_a_crash(storage, status=SagaStatus.PENDING)
    assert await storage.get_sagas_for_recovery(10) == [saga_id]
    await recover(saga_of(*bench.steps("AB")), saga_id, storage)
    assert bench.calls == ["act A", "act B"]
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_pending_saga_that_has_begun_is_running(bench: Bench, storage: Any) -> None:
    """Its status says RUNNING from the moment that a step begins: storages that know no leases select that alone."""
    seen: list[SagaStatus] = []
    saga_id = await left_by_a_crash(storage, status=SagaStatus.PENDING)

    async def see(context: Any) -> None:
        seen.append(await status_of(storage, saga_id))

    bench.on["act A"] = see
    await recover(saga_of(*bench.steps("A")), saga_id, storage)
    assert seen == [SagaStatus.RUNNING]


async def test_events_are_not_published(bench: Bench, storage: Any) -> None:
    """What a step recorded while recovering by hand goes nowhere, and stays with the step."""
    bench.events["B"] = ["an event"]
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    await recover(saga_of(*bench.steps("AB")), saga_id, storage)
    [(_, step)] = bench.instances
    assert step.events == ["an event"]


async def test_a_step_is_made_anew(bench: Bench, storage: Any) -> None:
    """What acted before the crash is gone: in a recovery the container makes the step, once for act and compensate."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await break_off(saga, storage, 1)

    await storage.update_status(saga_id, SagaStatus.COMPENSATING)
    with pytest.raises(SagaRolledBackError):
        await recover(saga, saga_id, storage)
    acted, compensated = bench.instances
    assert (acted[0], compensated[0]) == ("act A", "compensate A")
    assert acted[1] is not compensated[1]


async def test_steps_of_one_name(bench: Bench, storage: Any) -> None:
    """The third step of A, B, A is done although the first one of its name is."""
    a, b = bench.steps("AB")
    saga_id = await left_by_a_crash(storage, f"{B_IS_DONE}, act A#2 started")
    await recover(saga_of(a, b, a), saga_id, storage)
    assert bench.calls == ["act A"]
    assert (await log_of(storage, saga_id))[-1] == "act A#2 completed"


@pytest.mark.parametrize(
    ("log", "calls"),
    [
        ("act A started, act B started, act A completed", ["act B", "act C"]),
        ("act A started, act B started", ["act A", "act B", "act C"]),
        ("act A started, act A completed, act B started, act B failed", ["act B", "act C"]),
        ("act A started, act B started, act A completed, act B completed", ["act C"]),
    ],
)
async def test_a_parallel_group_goes_on(bench: Bench, storage: Any, log: str, calls: list[str]) -> None:
    """Of a parallel group those steps act that are not done."""
    a, b, c = bench.steps("ABC")
    saga_id = await left_by_a_crash(storage, log)
    await recover(saga_of(Parallel(a, b), c), saga_id, storage)
    assert sorted(bench.calls[:-1]) + bench.calls[-1:] == calls
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


@pytest.mark.parametrize(
    ("log", "calls"),
    [
        ("act A started", ["act A", "act C"]),
        ("act A started, act A completed", ["act C"]),
        ("act A started, act A failed, act F started", ["act F", "act C"]),
        ("act A started, act A failed, act F started, act F completed", ["act C"]),
    ],
)
async def test_a_fallback_goes_on(bench: Bench, storage: Any, log: str, calls: list[str]) -> None:
    """The step of a fallback that was acting acts again; where the second one has begun, the first one has had it."""
    a, f, c = bench.steps("AFC")
    saga_id = await left_by_a_crash(storage, log)
    await recover(saga_of(Fallback(step=a, fallback=f), c), saga_id, storage)
    assert bench.calls == calls


@pytest.mark.parametrize("undone", ["", ", compensate A completed"])
async def test_a_first_step_that_was_being_compensated_does_not_act_again(
    bench: Bench, storage: Any, undone: str
) -> None:
    """The saga was about to fall back: it compensates the first step, where that is not over, and falls back."""
    a, f = bench.steps("AF")
    saga_id = await left_by_a_crash(storage, f"act A started, act A interrupted, compensate A started{undone}")
    await recover(saga_of(Fallback(step=a, fallback=f)), saga_id, storage)
    assert bench.calls == (["act F"] if undone else ["compensate A", "act F"])


async def cancel_by_scope(work: Any, started: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await started.wait()
        tasks.cancel_scope.cancel()


async def cancel_natively(work: Any, started: anyio.Event) -> None:
    task = asyncio.get_running_loop().create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("cancel", [cancel_by_scope, cancel_natively])
async def test_a_cancelled_recovery_leaves_the_saga(bench: Bench, storage: Any, cancel: Any, backend_name: str) -> None:
    """Cancelled in a step, the saga stays RUNNING, unlocked and not counted; the next recovery does the step again."""
    if cancel is cancel_natively and backend_name == "trio":
        pytest.skip("of asyncio")
    started = anyio.Event()

    async def hang(context: Any) -> None:
        started.set()
        await anyio.sleep_forever()

    bench.on["act B"] = hang
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    with anyio.fail_after(BOUND):
        await cancel(lambda: recover(saga, saga_id, storage), started)
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.RUNNING, None, 0)
    assert (await log_of(storage, saga_id))[-1] == "act B interrupted"
    del bench.on["act B"]
    await recover(saga, saga_id, storage)
    assert bench.calls == ["act B", "act B"]


@pytest.mark.parametrize("cancel", [cancel_by_scope, cancel_natively])
async def test_a_cancelled_rollback_is_finished(bench: Bench, storage: Any, cancel: Any, backend_name: str) -> None:
    """Cancelled in a compensation, recovery finishes what it has begun."""
    if cancel is cancel_natively and backend_name == "trio":
        pytest.skip("of asyncio")
    started = anyio.Event()

    async def take_time(context: Any) -> None:
        started.set()
        for _ in range(20):
            await checkpoint()

    bench.on["compensate B"] = take_time
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, B_IS_DONE, status=SagaStatus.COMPENSATING)
    # On trio a scope that was cancelled lets the outcome of what was shielded leave, if there is one.
    with anyio.fail_after(BOUND), contextlib.suppress(SagaRolledBackError, ExceptionGroup):
        await cancel(lambda: recover(saga, saga_id, storage), started)
    assert bench.calls == ["compensate B", "compensate A"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.FAILED, None, 0)


async def test_a_rollback_out_of_time_is_counted_and_goes_on(bench: Bench, storage: Any) -> None:
    """A compensation that hangs is given up with the budget: the saga stays COMPENSATING, unlocked and counted."""
    bench.on["compensate B"] = lambda _: anyio.sleep_forever()
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, B_IS_DONE, status=SagaStatus.COMPENSATING)
    with pytest.raises(SagaRolledBackError) as caught:
        await recover(saga, saga_id, storage, compensation_timeout=0.05)
    assert [type(error) for error in compensation_errors(caught.value)] == [TimeoutError]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.COMPENSATING, None, 1)
    del bench.on["compensate B"]
    with pytest.raises(SagaRolledBackError):
        await recover(saga, saga_id, storage)
    assert bench.calls == ["compensate B", "compensate B", "compensate A"]


@pytest.mark.parametrize("option", ["compensation_timeout", "lease_duration"])
async def test_bad_options_are_refused(bench: Bench, storage: Any, option: str) -> None:
    """A number of seconds that is none is refused before anything is touched."""
    saga_id = await left_by_a_crash(storage)
    before = await storage.load_saga(saga_id)
    with pytest.raises(InvalidOptionError, match=option):
        await recover(saga_of(*bench.steps("A")), saga_id, storage, **{option: 0})
    assert await storage.load_saga(saga_id) == before
