"""A saga that fails: what is undone, in which order, how often, and what is left where that does not work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs import SagaStepHandler, compensation_errors
from cqrs.exceptions import SagaCompensationError, SagaLeaseLostError, SagaRolledBackError

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def notes_of(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
async def test_what_was_done_is_undone_in_reverse(lab: Any, how: str, failing: int) -> None:
    """The steps before the one that raised are compensated, the last first; it is not, nor are those behind it."""
    boom = lab.Boom("no")
    names = ["A", "B", "C", "D"]
    steps = [lab.step(name, *[lab.Raising(boom)] * (name == names[failing])) for name in names]
    with pytest.raises(lab.Boom) as caught:
        await lab.run(lab.saga(*steps), how)
    assert caught.value is boom
    assert compensation_errors(boom) == ()
    assert notes_of(boom) == []
    assert lab.log == [*names[: failing + 1], *(f"~{name}" for name in reversed(names[:failing]))]
    assert await lab.status() == "failed"
    assert not await lab.is_held()


@pytest.mark.parametrize(
    "error", [StopAsyncIteration(), StopIteration(), GeneratorExit()], ids=lambda error: type(error).__name__
)
async def test_errors_that_mean_something_to_iterators(lab: Any, how: str, error: BaseException) -> None:
    """A step that raises one of these has failed like any other: the loop over the results does not end in silence."""
    with pytest.raises(BaseException) as caught:
        await lab.run(lab.saga(lab.step("A"), lab.step("B", lab.Raising(error)), lab.step("C")), how)
    assert isinstance(caught.value, (RuntimeError, type(error)))
    assert "~A" in lab.log
    assert await lab.status() == "failed"


async def test_a_group_of_errors_that_a_step_raises(lab: Any, how: str) -> None:
    """An ExceptionGroup of a step's own reaches the caller, in no other group. (Trio makes it anew.)"""
    group = ExceptionGroup("several", [lab.Boom("1"), KeyError("2")])
    with pytest.raises(ExceptionGroup) as caught:
        await lab.run(lab.saga(lab.step("A"), lab.step("B", lab.Raising(group))), how)
    assert caught.value.exceptions == group.exceptions
    assert lab.log == ["A", "B", "~A"]
    assert await lab.status() == "failed"


async def test_the_journal_of_a_rollback(lab: Any, how: str) -> None:
    """COMPENSATING is durable before anything is undone; each compensation is logged before and after it."""
    seen: list[str] = []

    async def undo(context: Any) -> None:
        seen.append(f"{await lab.status()}: {(await lab.history())[-1]}")

    saga = lab.saga(lab.step("A", undo=undo), lab.step("B", undo=undo), lab.step("C", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert seen == ["compensating: ~B started", "compensating: ~A started"]
    assert await lab.history() == [
        *("A started", "A completed", "B started", "B completed", "C started", "C failed"),
        *("~B started", "~B completed", "~A started", "~A completed"),
    ]


async def test_the_log_says_why_a_step_failed(lab: Any) -> None:
    """An entry of a failure holds the error."""
    with pytest.raises(lab.Boom):
        await lab.run(
            lab.saga(lab.step("A", undo=lab.Raising(KeyError("undo"))), lab.step("B", lab.Raising(lab.Boom("b"))))
        )
    details = {entry.step_name: entry.details for entry in await lab.storage.get_step_history(lab.id) if entry.details}
    assert details == {"A": repr(KeyError("undo")), "B": repr(lab.Boom("b"))}


async def test_compensations_share_the_context(lab: Any, how: str) -> None:
    """Compensations find in the context what the steps wrote, and what they write is stored."""

    async def reserve(context: Any) -> None:
        context.note = "reservation"

    async def release(context: Any) -> None:
        assert context.note == "reservation"
        context.marks.append(f"released {context.note}")

    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A", reserve, release), lab.step("B", lab.Raising(lab.Boom()))), how)
    assert lab.context.marks == ["released reservation"]
    assert (await lab.stored())["marks"] == ["released reservation"]


async def test_a_step_need_not_compensate(lab: Any, how: str) -> None:
    """A step without ``compensate`` has nothing to undo."""

    class Reading(SagaStepHandler[lab.Order, str]):
        async def act(self, context: Any) -> Any:
            return self._generate_step_result("read")

    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), Reading, lab.step("B", lab.Raising(lab.Boom()))), how)
    assert lab.log == ["A", "B", "~A"]
    assert await lab.status() == "failed"


async def test_a_compensation_that_fails_is_tried_again(lab: Any, how: str) -> None:
    """A compensation is tried ``compensation_retry_count`` times; when one succeeds the saga is FAILED as ever."""
    boom = lab.Boom()
    undo = lab.Raising(KeyError(), times=3)
    saga = lab.saga(lab.step("A"), lab.step("B", undo=undo), lab.step("C", lab.Raising(boom)))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how, compensation_retry_count=4)
    assert lab.log == ["A", "B", "C", "~B", "~B", "~B", "~B", "~A"]
    assert compensation_errors(boom) == ()
    assert await lab.status() == "failed"


async def test_a_compensation_that_fails_for_good(lab: Any, how: str) -> None:
    """The saga is COMPENSATION_FAILED, the other steps are undone, and the original error tells of it."""
    boom, stuck = lab.Boom("original"), KeyError("stuck")
    steps = [lab.step("A"), lab.step("B", undo=lab.Raising(stuck)), lab.step("C"), lab.step("D", lab.Raising(boom))]
    with pytest.raises(lab.Boom) as caught:
        await lab.run(lab.saga(*steps), how, compensation_retry_count=2)
    assert caught.value is boom
    assert lab.log == ["A", "B", "C", "D", "~C", "~B", "~B", "~A"]
    (error,) = compensation_errors(boom)
    assert isinstance(error, SagaCompensationError)
    assert (error.saga_id, error.step_name, error.__cause__) == (lab.id, "B", stuck)
    assert notes_of(boom) == [f"Rolling back: {error}"]
    assert "stuck" in str(error)
    assert await lab.status() == "compensation_failed"
    assert "~B failed" in await lab.history()
    assert not await lab.is_held()


async def test_several_compensations_that_fail_are_all_told(lab: Any) -> None:
    """The original error tells of each step that could not be compensated."""
    boom = lab.Boom()
    steps = [lab.step(name, undo=lab.Raising(KeyError(name))) for name in "ABC"]
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(*steps, lab.step("D", lab.Raising(boom))), compensation_retry_count=1)
    assert [error.step_name for error in compensation_errors(boom)] == ["C", "B", "A"]  # type: ignore[attr-defined]
    assert len(notes_of(boom)) == 3


async def test_recovery_tries_the_compensation_that_failed_again(lab: Any) -> None:
    """Recovery of a COMPENSATION_FAILED saga undoes what is left, and nothing twice."""
    undo = lab.Raising(KeyError(), times=3)
    saga = lab.saga(lab.step("A"), lab.step("B", undo=undo), lab.step("C", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga)
    lab.log.clear()
    assert await lab.storage.get_sagas_for_recovery(10) == [lab.id]
    with pytest.raises(SagaRolledBackError) as caught:
        await lab.recover(saga)
    assert caught.value.status == "compensation_failed"
    assert lab.log == ["~B"]
    assert await lab.status() == "failed"
    assert await lab.storage.get_sagas_for_recovery(10) == []


async def test_recovery_whose_compensation_fails_again_is_counted(lab: Any) -> None:
    """A recovery that leaves the saga COMPENSATION_FAILED counts as one that failed."""
    undo = lab.Raising(KeyError())
    saga = lab.saga(lab.step("A", undo=undo), lab.step("B", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga)
    assert (await lab.storage.load_saga(lab.id)).recovery_attempts == 0
    for count in (1, 2):
        with pytest.raises(SagaRolledBackError) as caught:
            await lab.recover(saga)
        assert len(compensation_errors(caught.value)) == 1
        assert (await lab.storage.load_saga(lab.id)).recovery_attempts == count
    assert await lab.status() == "compensation_failed"


async def test_an_error_that_takes_no_attributes(lab: Any) -> None:
    """An error that cannot be told of the compensation errors still reaches the caller."""

    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            if name not in ("__traceback__", "__context__", "__cause__"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    frozen = Frozen()
    saga = lab.saga(lab.step("A", undo=lab.Raising(KeyError())), lab.step("B", lab.Raising(frozen)))
    with pytest.raises(Frozen) as caught:
        await lab.run(saga)
    assert caught.value is frozen
    assert await lab.status() == "compensation_failed"


async def test_the_budget_of_a_rollback(lab: Any, how: str) -> None:
    """A rollback that takes longer than ``compensation_timeout`` is left to recovery, COMPENSATING."""
    boom, gate = lab.Boom(), lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", undo=gate), lab.step("C"), lab.step("D", lab.Raising(boom)))
    async with lab.no_task_left():
        with pytest.raises(lab.Boom):
            await lab.run(saga, how, compensation_timeout=0.2)
    assert [type(error) for error in compensation_errors(boom)] == [TimeoutError]
    assert await lab.status() == "compensating"
    assert not await lab.is_held()
    assert lab.log == ["A", "B", "C", "D", "~C", "~B"]
    gate.open()
    lab.log.clear()
    with pytest.raises(SagaRolledBackError) as caught:
        await lab.recover(saga)
    assert caught.value.status == "compensating"
    assert lab.log == ["~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_compensation_that_ends_with_a_base_exception(lab: Any, how: str) -> None:
    """What is no Exception is not taken for a failed compensation: it gets out, and recovery goes on."""

    class Interrupt(BaseException):
        pass

    saga = lab.saga(
        lab.step("A"), lab.step("B", undo=lab.Raising(Interrupt(), times=1)), lab.step("C", lab.Raising(lab.Boom()))
    )
    with pytest.raises(BaseException) as caught:
        await lab.run(saga, how)
    error: Any = caught.value
    while hasattr(error, "exceptions"):
        (error,) = error.exceptions
    assert isinstance(error, Interrupt)
    assert await lab.status() == "compensating"
    assert "~A" not in lab.log


class Clock:
    """A storage's clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def let_pass(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def failing(lab: Any, when: str, times: float, *, after: bool = False) -> Any:
    """Have the storage fail at the commits that write ``when``, the first ``times`` times."""
    raising = lab.Raising(ConnectionError("storage"), times)

    async def hook(writes: Sequence[str]) -> None:
        await checkpoint()
        if when in writes:
            await raising()

    setattr(lab.storage, "after_commit" if after else "before_commit", hook)
    return raising


@pytest.mark.parametrize("after", [False, True], ids=["not durable", "durable"])
@pytest.mark.parametrize("when", ["compensating", "~B started", "~B completed", "~A started", "~A completed", "failed"])
async def test_a_storage_that_fails_once_while_rolling_back(lab: Any, how: str, when: str, after: bool) -> None:
    """A write of a rollback is tried again like a compensation, and nothing is undone twice."""
    raising = failing(lab, when, 1, after=after)
    with pytest.raises(lab.Boom) as caught:
        await lab.run(lab.saga(lab.step("A"), lab.step("B"), lab.step("C", lab.Raising(lab.Boom()))), how)
    assert raising.calls >= 1
    assert compensation_errors(caught.value) == ()
    assert lab.log == ["A", "B", "C", "~B", "~A"]
    assert await lab.status() == "failed"
    assert not await lab.is_held()


@pytest.mark.parametrize("when", ["compensating", "~B started", "~B completed", "failed"])
async def test_a_storage_that_goes_on_failing_while_rolling_back(lab: Any, how: str, when: str) -> None:
    """The rollback stops, the caller gets the original error with the storage's attached; recovery finishes."""
    raising = failing(lab, when, 3)
    boom = lab.Boom("original")
    saga = lab.saga(lab.step("A"), lab.step("B"), lab.step("C", lab.Raising(boom)))
    with pytest.raises(lab.Boom) as caught:
        await lab.run(saga, how)
    assert caught.value is boom
    assert compensation_errors(boom) == (raising.error,)
    assert await lab.status() == ("running" if when == "compensating" else "compensating")
    assert not await lab.is_held()
    if when == "compensating":
        await drop_and_recover(lab, saga)
        assert lab.log.count("~A") == lab.log.count("~B") == 1
        return
    with pytest.raises(SagaRolledBackError):
        await lab.recover(saga)
    assert lab.log.count("~A") == 1
    assert await lab.status() == "failed"


async def drop_and_recover(lab: Any, saga: Any) -> None:
    """Recovery of a saga of which it is not known that it was to be rolled back: C acts again, and fails again."""
    with pytest.raises(lab.Boom):
        await lab.recover(saga)
    assert await lab.status() == "failed"


async def test_a_storage_that_is_gone_while_rolling_back(lab: Any, how: str) -> None:
    """Without any write the lease stays until it ends; then recovery does what the log says is left."""
    clock = Clock()
    lab.storage = lab.Storage(clock=clock)
    is_gone = False

    async def before_commit(writes: Sequence[str]) -> None:
        await checkpoint()
        if is_gone:
            raise ConnectionError

    async def disconnect(context: Any) -> None:
        nonlocal is_gone
        is_gone = clock.now.minute == 0
        await checkpoint()
        raise lab.Boom

    lab.storage.before_commit = before_commit
    saga = lab.saga(lab.step("A"), lab.step("B"), lab.step("C", disconnect))
    with pytest.raises(lab.Boom) as caught:
        await lab.run(saga, how)
    assert [type(error) for error in compensation_errors(caught.value)] == [ConnectionError]
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "running"
    assert await lab.is_held()
    is_gone = False
    clock.let_pass(60)
    lab.log.clear()
    with pytest.raises(lab.Boom):
        await lab.recover(saga)
    # Of C nobody knows any more: it acts again, and what it says then is not the whole truth.
    assert lab.log == ["C", "~C", "~B", "~A"]
    assert await lab.status() == "failed"


@pytest.mark.parametrize("after", [False, True], ids=["not durable", "durable"])
@pytest.mark.parametrize("when", ["A completed", "B completed"])
async def test_a_storage_that_fails_on_the_way_forward(lab: Any, how: str, when: str, after: bool) -> None:
    """Where COMPLETED cannot be written, its error reaches the caller, and whatever acted is undone."""
    failing(lab, when, 1, after=after)
    with pytest.raises(ConnectionError):
        await lab.run(lab.saga(*map(lab.step, "ABC")), how)
    done = ["A"] if when == "A completed" else ["A", "B"]
    assert lab.log == [*done, *(f"~{name}" for name in reversed(done))]
    history = await lab.history()
    assert all(f"{name} completed" in history and f"~{name} completed" in history for name in done)
    assert await lab.status() == "failed"


async def test_a_beginning_that_fails(lab: Any, how: str) -> None:
    """Where the saga cannot be added, nothing acts and nothing is stored."""
    failing(lab, "saga", 1)
    saga = lab.saga(lab.step("A"))
    with pytest.raises(ConnectionError):
        await lab.run(saga, how)
    assert lab.log == []
    assert lab.storage.commits == []


async def test_a_beginning_that_fails_when_it_is_durable(lab: Any, how: str) -> None:
    """Where the saga was added and the storage raised all the same, it is rolled back, and nothing acts."""
    failing(lab, "saga", 1, after=True)
    with pytest.raises(ConnectionError):
        await lab.run(lab.saga(lab.step("A")), how)
    assert lab.log == []
    assert await lab.status() == "failed"
    assert await lab.history() == ["A started", "A not_started"]
    assert not await lab.is_held()


@pytest.mark.parametrize("after", [False, True], ids=["not durable", "durable"])
async def test_an_arrival_that_fails_once(lab: Any, how: str, after: bool) -> None:
    """When all steps are done a saga is not rolled back any more: COMPLETED is written again, and nobody is told."""
    failing(lab, "completed", 1, after=after)
    assert await lab.run(lab.saga(lab.step("A"), lab.step("B")), how) == ["A", "B"]
    assert lab.log == ["A", "B"]
    assert await lab.status() == "completed"
    assert not await lab.is_held()


async def test_an_arrival_that_goes_on_failing(lab: Any, how: str) -> None:
    """Where COMPLETED cannot be written, the saga stays RUNNING, and recovery completes it without acting."""
    failing(lab, "completed", 3)
    saga = lab.saga(lab.step("A"), lab.step("B"))
    with pytest.raises(ConnectionError):
        await lab.run(saga, how)
    assert await lab.status() == "running"
    assert not await lab.is_held()
    await lab.recover(saga)
    assert lab.log == ["A", "B"]
    assert await lab.status() == "completed"


async def test_a_run_that_lost_its_lease_stops_without_compensating(lab: Any, how: str) -> None:
    """A runner that was paused past its lease, and whose saga was taken over, writes nothing and undoes nothing."""
    clock = Clock()
    lab.storage = lab.Storage(clock=clock)

    async def pause(context: Any) -> None:
        clock.let_pass(60)
        await lab.storage.acquire_lease(lab.id, "somebody else", 30)

    with pytest.raises(SagaLeaseLostError):
        await lab.run(lab.saga(lab.step("A"), lab.step("B", pause), lab.step("C")), how)
    assert lab.log == ["A", "B"]
    assert await lab.history() == ["A started", "A completed", "B started"]
    record = await lab.storage.load_saga(lab.id)
    assert (str(record.status), record.locked_by) == ("running", "somebody else")


async def test_a_lease_is_renewed_while_a_step_acts(lab: Any, how: str) -> None:
    """However long a step takes, the saga stays its runner's: nobody can take it over."""
    renewals = 0
    gate = lab.Gate()

    class Storage(lab.Storage):  # type: ignore[misc]
        async def renew_lease(self, lease: Any) -> None:
            nonlocal renewals
            renewals += 1
            if renewals == 3:
                gate.open()
            await super().renew_lease(lease)

    lab.storage = Storage()
    with anyio.fail_after(3):
        await lab.run(lab.saga(lab.step("A", gate)), how, lease_duration=0.06)
    assert renewals >= 3
    assert await lab.status() == "completed"
