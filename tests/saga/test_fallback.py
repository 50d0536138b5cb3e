"""A step with a second one to fall back on: which of them acts, what it finds, and which is compensated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import pytest
import tenacity
from anyio.lowlevel import checkpoint

from cqrs import Fallback, Parallel, RetryPolicy, Saga, SagaContext, SagaStepHandler, compensation_errors
from cqrs.exceptions import SagaCompensationError, SagaDeadlineExceededError, SagaRolledBackError, SagaStepTimeoutError


def writing(lab: Any, error: Exception | None = None, mark: str = "P") -> Any:
    """Writes into the context, then raises."""

    async def act(context: Any) -> None:
        context.marks.append(mark)
        context.total += 100
        await checkpoint()
        if error is not None:
            raise error

    return act


async def test_the_fallback_acts_when_the_step_failed(lab: Any, how: str) -> None:
    """The result is the fallback's, the log tells of both, and the step's instance is not asked for events."""
    fallback = Fallback(step=lab.step("P", lab.Raising(lab.Boom("p"))), fallback=lab.step("Q"))
    published: list[str] = []

    async def on_event(event: Any) -> None:
        published.append(event.step)

    options = {} if how == "transaction" else {"on_event": on_event}
    assert await lab.run(lab.saga(lab.step("A"), fallback, lab.step("B")), how, **options) == ["A", "Q", "B"]
    assert lab.log == ["A", "P", "Q", "B"]
    assert await lab.history() == [
        *("A started", "A completed", "P started", "P failed", "Q started", "Q completed"),
        *("B started", "B completed"),
    ]
    assert published == ([] if how == "transaction" else ["A", "Q", "B"])
    assert await lab.status() == "completed"


async def test_the_fallback_does_not_act_when_the_step_succeeded(lab: Any, how: str) -> None:
    """Where the step acts, the fallback is neither made nor logged, and what the step wrote is in the context."""
    fallback = Fallback(lab.step("P", writing(lab)), lab.step("Q"))
    assert await lab.run(lab.saga(fallback), how) == ["P"]
    assert lab.log == ["P"]
    assert len(lab.instances) == 1
    assert lab.context.marks == ["P"]
    assert await lab.history() == ["P started", "P completed"]


async def test_the_fallback_finds_the_context_as_it_was(lab: Any, how: str) -> None:
    """Nothing that the failed step wrote is seen by the fallback, by the caller or by the storage."""
    seen: list[Any] = []

    async def act(context: Any) -> None:
        seen.append((list(context.marks), context.total))
        context.marks.append("Q")

    fallback = Fallback(lab.step("P", writing(lab, lab.Boom())), lab.step("Q", act))
    await lab.run(lab.saga(lab.step("A", writing(lab, mark="A")), fallback), how)
    assert seen == [(["A"], 100)]
    assert lab.context == lab.Order(marks=["A", "Q"], total=100)
    assert await lab.stored() == {"marks": ["A", "Q"], "total": 100, "note": None}


async def test_nothing_of_a_step_whose_fallback_failed_too_is_kept(lab: Any, how: str) -> None:
    """When both fail, compensations find the context without what the first step wrote."""
    seen: list[Any] = []

    async def undo(context: Any) -> None:
        seen.append(list(context.marks))

    fallback = Fallback(lab.step("P", writing(lab, lab.Boom("p"))), lab.step("Q", lab.Raising(lab.Boom("q"))))
    with pytest.raises(lab.Boom, match="q") as caught:
        await lab.run(lab.saga(lab.step("A", writing(lab, mark="A"), undo), fallback), how)
    assert seen == [["A"]]
    assert str(caught.value.__context__) == "p"
    assert lab.log == ["A", "P", "Q", "~A"]
    assert await lab.status() == "failed"


@pytest.mark.parametrize("fails", [False, True])
async def test_the_one_that_acted_is_compensated(lab: Any, how: str, fails: bool) -> None:
    """Of a step and its fallback, only the one that acted is undone."""
    step = lab.step("P", lab.Raising(lab.Boom())) if fails else lab.step("P")
    saga = lab.saga(Fallback(step, lab.step("Q")), lab.step("B", lab.Raising(lab.Boom("b"))))
    with pytest.raises(lab.Boom, match="b"):
        await lab.run(saga, how)
    assert lab.log == (["P", "Q", "B", "~Q"] if fails else ["P", "B", "~P"])
    assert await lab.status() == "failed"


@pytest.mark.parametrize(
    ("error", "falls_back"), [(ConnectionError(), True), (ConnectionResetError(), True), (ValueError(), False)]
)
async def test_only_the_named_errors_lead_to_the_fallback(
    lab: Any, how: str, error: Exception, falls_back: bool
) -> None:
    """With ``failure_exceptions`` other errors roll the saga back."""
    fallback = Fallback(lab.step("P", lab.Raising(error)), lab.step("Q"), failure_exceptions=(ConnectionError,))
    saga = lab.saga(lab.step("A"), fallback)
    if falls_back:
        assert await lab.run(saga, how) == ["A", "Q"]
        return
    with pytest.raises(type(error)):
        await lab.run(saga, how)
    assert lab.log == ["A", "P", "~A"]


async def test_a_step_is_retried_before_its_fallback_acts(lab: Any, how: str) -> None:
    """A step's own ``retry`` comes first; each attempt and the fallback have theirs."""
    policy = RetryPolicy(2, wait=tenacity.wait_none())
    step = lab.step("P", lab.Raising(lab.Boom()), retry=policy)
    fallback = lab.step("Q", lab.Raising(lab.Boom(), times=1), retry=policy)
    assert await lab.run(lab.saga(Fallback(step, fallback)), how) == ["Q"]
    assert lab.log == ["P", "P", "Q", "Q"]


class Breaker:
    """A circuit breaker that is opened and closed by hand."""

    class Open(Exception):
        pass

    def __init__(self) -> None:
        self.is_open = False
        self.calls: list[Any] = []

    async def call(self, identifier: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_open:
            raise self.Open
        try:
            result = await func(*args, **kwargs)
        except Exception as error:
            self.calls.append((identifier, type(error)))
            raise
        self.calls.append((identifier, None))
        return result

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        return isinstance(exc, self.Open)


async def test_a_breaker_counts_the_step_alone(lab: Any, how: str) -> None:
    """The breaker is told of the step, under its class, and not of the fallback."""
    breaker = Breaker()
    step = lab.step("P", lab.Raising(lab.Boom(), times=1))
    saga = lab.saga(Fallback(step, lab.step("Q"), circuit_breaker=breaker), Fallback(step, lab.step("R"), (), breaker))
    assert await lab.run(saga, how) == ["Q", "P"]
    assert breaker.calls == [(step, lab.Boom), (step, None)]


async def test_an_open_circuit_leads_to_the_fallback_at_once(lab: Any, how: str) -> None:
    """While the circuit is open the step is neither made, nor called, nor compensated, whatever errors are named."""
    breaker = Breaker()
    breaker.is_open = True
    fallback = Fallback(lab.step("P"), lab.step("Q"), failure_exceptions=(KeyError,), circuit_breaker=breaker)
    saga = lab.saga(lab.step("A"), fallback, lab.step("B", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert lab.log == ["A", "Q", "B", "~Q", "~A"]
    assert len(lab.instances) == 3
    assert "P completed" not in await lab.history()
    assert await lab.status() == "failed"


async def test_a_process_that_dies_with_the_circuit_open(lab: Any) -> None:
    """A step that an open circuit kept from acting is not taken for one that may have acted."""
    breaker = Breaker()
    breaker.is_open = True
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), Fallback(lab.step("P"), lab.step("Q", gate), circuit_breaker=breaker))
    await crash(lab, saga, gate)
    assert (await lab.history())[2:] in (["P started", "P not_started", "Q started"], ["Q started"])


async def test_aiobreaker_opens_and_lets_a_trial_through(lab: Any) -> None:
    """With AioBreakerAdapter the circuit opens, and after its time one trial closes it or does not."""
    pytest.importorskip("aiobreaker")
    from cqrs.adapters.circuit_breaker import AioBreakerAdapter, default_memory_storage_factory

    storages: list[Any] = []

    def make(name: str) -> Any:
        storages.append(default_memory_storage_factory(name))
        return storages[-1]

    breaker = AioBreakerAdapter(fail_max=2, timeout_duration=60, storage_factory=make)
    failing = lab.Raising(lab.Boom(), times=3)
    saga = lab.saga(Fallback(lab.step("P", failing), lab.step("Q"), circuit_breaker=breaker))

    async def once() -> str:
        lab.id = type(lab.id)(int=lab.id.int ^ (1 << len(lab.results)))
        lab.log.clear()
        await lab.run(saga)
        return " ".join(lab.log)

    assert [await once() for _ in range(4)] == ["P Q", "P Q", "Q", "Q"]
    storages[0].opened_at -= timedelta(seconds=61)
    assert [await once() for _ in range(2)] == ["P Q", "Q"], "a trial that fails leaves the circuit open"
    storages[0].opened_at -= timedelta(seconds=61)
    assert [await once() for _ in range(2)] == ["P", "P"], "one that succeeds closes it"


async def test_a_step_that_timed_out_is_compensated_before_the_fallback_acts(lab: Any, how: str) -> None:
    """A step that may have acted is undone first, so that not both have acted."""
    saga = lab.saga(lab.step("A"), Fallback(lab.step("P", lab.Gate(), timeout=0.03), lab.step("Q")), lab.step("B"))
    assert await lab.run(saga, how) == ["A", "Q", "B"]
    assert lab.log == ["A", "P", "~P", "Q", "B"]
    assert (await lab.history())[2:8] == [
        *("P started", "P interrupted", "~P started", "~P completed", "Q started", "Q completed"),
    ]
    assert await lab.status() == "completed"


async def test_a_step_that_timed_out_is_not_compensated_again(lab: Any, how: str) -> None:
    """When a later step fails, what is undone is the fallback alone."""
    saga = lab.saga(
        Fallback(lab.step("P", lab.Gate(), timeout=0.03), lab.step("Q")), lab.step("B", lab.Raising(lab.Boom()))
    )
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert lab.log == ["P", "~P", "Q", "B", "~Q"]
    assert await lab.status() == "failed"


async def test_the_context_of_a_step_that_timed_out(lab: Any, how: str) -> None:
    """Its compensation finds what it wrote; the fallback finds the context as it was before the step."""
    seen: list[Any] = []

    async def act(context: Any) -> None:
        context.note = "P was here"
        await anyio.sleep_forever()

    async def note(context: Any) -> None:
        seen.append(context.note)

    await lab.run(lab.saga(Fallback(lab.step("P", act, note, timeout=0.03), lab.step("Q", note))), how)
    assert seen == ["P was here", None]


async def test_a_step_that_timed_out_and_cannot_be_compensated(lab: Any, how: str) -> None:
    """The fallback does not act; the saga is rolled back, and the caller gets the timeout, which tells of the rest."""
    step = lab.step("P", lab.Gate(), lab.Raising(KeyError(), times=3), timeout=0.03)
    with pytest.raises((SagaStepTimeoutError, SagaCompensationError)) as caught:
        await lab.run(lab.saga(lab.step("A"), Fallback(step, lab.step("Q"))), how)
    assert lab.log == ["A", "P", "~P", "~P", "~P", "~P", "~A"]
    assert await lab.status() == "failed"
    assert isinstance(caught.value, SagaStepTimeoutError)
    assert [type(error) for error in compensation_errors(caught.value)] == [SagaCompensationError]


@pytest.mark.parametrize(("on_unknown", "parked"), [("park", True), ("retry", False)])
async def test_a_step_whose_unknown_outcome_is_not_to_be_compensated(
    lab: Any, how: str, on_unknown: str, parked: bool
) -> None:
    """With ``"park"`` and ``"retry"`` the fallback does not act after a timeout, and nothing is undone."""
    step = lab.step("P", lab.Gate(), timeout=0.03, on_unknown=on_unknown)
    with pytest.raises(SagaStepTimeoutError):
        await lab.run(lab.saga(lab.step("A"), Fallback(step, lab.step("Q"))), how)
    assert lab.log == ["A", "P"]
    assert await lab.status() == "running"
    assert bool(await lab.storage.get_parked_sagas()) is parked


async def test_a_cancelled_step_does_not_fall_back(lab: Any, cancelled_by: str) -> None:
    """A cancellation is no failure: the fallback does not act, and the step that may have acted is undone."""
    gate = lab.Gate()
    breaker = Breaker()
    saga = lab.saga(lab.step("A"), Fallback(lab.step("P", gate), lab.step("Q"), circuit_breaker=breaker))
    await lab.cancel(cancelled_by, lambda: lab.run(saga), gate.reached, gate.open)
    assert lab.log == ["A", "P", "~P", "~A"]
    assert breaker.calls == []
    assert await lab.status() == "failed"


async def test_a_fallback_of_which_nobody_knows_is_compensated(lab: Any, cancelled_by: str) -> None:
    """A fallback that is cancelled is undone; the step that failed before it is not."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q", gate)))
    await lab.cancel(cancelled_by, lambda: lab.run(saga), gate.reached, gate.open)
    assert lab.log == ["A", "P", "Q", "~Q", "~A"]
    assert await lab.status() == "failed"


async def test_a_deadline_does_not_fall_back(lab: Any, how: str) -> None:
    """At the saga's deadline the fallback does not act: the saga is undone."""
    saga = lab.saga(lab.step("A"), Fallback(lab.step("P", lab.Gate()), lab.step("Q")), deadline=0.2)
    with pytest.raises(SagaDeadlineExceededError):
        await lab.run(saga, how)
    assert lab.log == ["A", "P", "~P", "~A"]
    assert await lab.status() == "failed"


@dataclasses.dataclass
class Split(SagaContext):
    left: int = 0
    right: int = 0
    seen: str = ""


class LeftPrimary(SagaStepHandler[Split, None]):
    async def act(self, context: Split) -> Any:
        context.left = -1
        await anyio.sleep(0.01)
        raise ValueError


class LeftSecondary(SagaStepHandler[Split, None]):
    async def act(self, context: Split) -> Any:
        context.seen = f"left was {context.left}"
        await anyio.sleep(0.01)
        context.left += 10


class RightPrimary(SagaStepHandler[Split, None]):
    async def act(self, context: Split) -> Any:
        await checkpoint()
        context.right += 20
        await anyio.sleep(0.02)


class SplitSaga(Saga[Split]):
    steps = [Parallel(Fallback(LeftPrimary, LeftSecondary), Fallback(RightPrimary, LeftSecondary))]


async def test_fallbacks_in_a_group_lose_no_updates(lab: Any, how: str) -> None:
    """Each branch works on a copy: what it gives back is what it wrote, and not what others wrote meanwhile."""
    lab.context = Split()
    await lab.run(SplitSaga, how, **({} if how == "transaction" else {"context_type": Split}))
    assert lab.context == Split(10, 20, "left was 0")
    assert await lab.stored() == {"left": 10, "right": 20, "seen": "left was 0"}


async def crash(lab: Any, saga: Any, gate: Any, log: Sequence[str] = ()) -> None:
    """Have the runner of a saga die while a step waits at ``gate``: nothing more of it is written."""

    async def gone(*_: Any) -> None:
        raise ConnectionError

    async def back(*_: Any) -> None:
        await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lab.run, saga)
        await gate.reached.wait()
        lab.storage.before_commit = gone
        tasks.cancel_scope.cancel()
    lab.storage.before_commit = back
    lab.storage._table.find(lab.id).locked_until = None
    lab.log.clear()
    gate.open()


async def test_recovery_of_a_saga_that_died_in_a_fallback(lab: Any) -> None:
    """The fallback acts again; the step that failed before it does not."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q", gate)), lab.step("B"))
    await crash(lab, saga, gate)
    await lab.recover(saga)
    assert lab.log == ["Q", "B"]
    assert await lab.status() == "completed"


async def test_recovery_of_a_saga_that_died_in_a_fallback_that_is_compensated(lab: Any) -> None:
    """With ``on_unknown = "compensate"`` the fallback is undone, the step that failed is not."""
    gate = lab.Gate()
    fallback = Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q", gate, on_unknown="compensate"))
    saga = lab.saga(lab.step("A"), fallback)
    await crash(lab, saga, gate)
    with pytest.raises(SagaRolledBackError):
        await lab.recover(saga)
    assert lab.log == ["~Q", "~A"]
    assert await lab.status() == "failed"


async def test_recovery_of_a_saga_that_died_in_the_first_step(lab: Any) -> None:
    """The step acts again; when it fails now, it is undone before the fallback acts, since it may have acted before."""
    gate = lab.Gate()
    calls = 0

    async def act(context: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise lab.Boom
        await gate()

    saga = lab.saga(lab.step("A"), Fallback(lab.step("P", act), lab.step("Q")), lab.step("B"))
    await crash(lab, saga, gate)
    await lab.recover(saga)
    assert lab.log == ["P", "~P", "Q", "B"]
    assert await lab.status() == "completed"


async def test_recovery_rolls_back_a_fallback_that_was_done(lab: Any) -> None:
    """Recovery of a rollback undoes the fallback, by the log alone."""
    gate = lab.Gate()
    fallback = Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q"))
    saga = lab.saga(fallback, lab.step("C", undo=gate), lab.step("B", lab.Raising(lab.Boom())), name="Rolled")
    with pytest.raises(lab.Boom):
        await lab.run(saga, compensation_timeout=0.2)
    gate.open()
    lab.log.clear()
    with pytest.raises(SagaRolledBackError):
        await lab.recover(saga)
    assert lab.log == ["~C", "~Q"]
    assert await lab.status() == "failed"
