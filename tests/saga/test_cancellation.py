"""A saga that is cancelled, at every seam and in every way: what is undone, what is left, and who is told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs import Pivot, compensation_errors
from cqrs.exceptions import SagaRolledBackError

pytestmark = pytest.mark.usefixtures("nothing_unraisable")


def do_nothing() -> None:
    pass


def failing(lab: Any, work: Any) -> Any:
    """``work``, which is cancelled after it has failed: on trio its error comes first, and the cancellation at once."""

    async def run() -> None:
        with contextlib.suppress(lab.Boom, SagaRolledBackError):
            await work()
        await checkpoint()

    return run


async def test_a_step_that_is_cancelled(lab: Any, cancelled_by: str, how: str) -> None:
    """It is INTERRUPTED in the log, and compensated, as it may have acted; the cancellation reaches the caller."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", gate), lab.step("C"))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga, how), gate.reached, do_nothing)
    assert gate.waiting == 0
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.history() == [
        *("A started", "A completed", "B started", "B interrupted"),
        *("~B started", "~B completed", "~A started", "~A completed"),
    ]
    assert await lab.status() == "failed"
    assert not await lab.is_held()


async def test_compensations_are_not_torn_by_the_cancellations_that_follow(
    lab: Any, cancelled_by: str, how: str
) -> None:
    """Cancelled in a step, and again while it is undone, the saga is undone to its end before the caller goes on."""
    gate, undoing = lab.Gate(), lab.Gate()
    undone: list[str] = []

    async def undo(context: Any) -> None:
        await undoing()
        await lab.spin()
        undone.append("A")

    saga = lab.saga(lab.step("A", undo=undo), lab.step("B", gate, undoing), lab.step("C"))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga, how), gate.reached, undoing.open)
    assert undone == ["A"]
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_compensation_is_not_torn(lab: Any, cancelled_by: str, how: str) -> None:
    """Cancelled for the first time while it is rolled back after a failure, the saga is undone to its end."""
    undoing = lab.Gate()
    undone: list[str] = []

    async def undo(context: Any) -> None:
        await undoing()
        await lab.spin()
        undone.append("B")

    saga = lab.saga(lab.step("A"), lab.step("B", undo=undo), lab.step("C", lab.Raising(lab.Boom())))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, failing(lab, lambda: lab.run(saga, how)), undoing.reached, undoing.open)
    assert undone == ["B"]
    assert lab.log == ["A", "B", "C", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_wait_between_two_compensations_is_not_torn(lab: Any, cancelled_by: str) -> None:
    """Cancelled while it waits to compensate again, the saga is undone to its end all the same."""
    undo = lab.Raising(KeyError(), times=1)
    reached = anyio.Event()

    async def tell(context: Any) -> None:
        reached.set()
        await undo()

    saga = lab.saga(lab.step("A"), lab.step("B", undo=tell), lab.step("C", lab.Raising(lab.Boom())))
    async with lab.no_task_left():
        work = failing(lab, lambda: lab.run(saga, compensation_retry_delay=0.02))
        await lab.cancel(cancelled_by, work, reached, do_nothing)
    assert lab.log == ["A", "B", "C", "~B", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_rollback_that_is_cancelled_keeps_its_budget(lab: Any, cancelled_by: str) -> None:
    """A compensation that hangs does not hang the one who cancels: after ``compensation_timeout`` it is left."""
    gate, undoing = lab.Gate(), lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", gate, undoing))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga, compensation_timeout=0.2), gate.reached, do_nothing)
    assert undoing.waiting == 0
    assert lab.log == ["A", "B", "~B"]
    assert await lab.status() == "compensating"
    assert not await lab.is_held()


SEAMS = ["saga", "A completed", "B completed", "completed"]


@pytest.mark.parametrize("durable", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("seam", SEAMS)
async def test_a_write_that_is_cancelled(lab: Any, cancelled_by: str, seam: str, durable: bool) -> None:
    """Whatever the storage was asked to write, the saga ends undone, not begun, or, with all done, completed."""
    gate = lab.Gate()
    has_waited = False

    async def wait(writes: Sequence[str]) -> None:
        nonlocal has_waited
        await checkpoint()
        if seam in writes and not has_waited:
            has_waited = True
            await gate()

    setattr(lab.storage, "after_commit" if durable else "before_commit", wait)
    saga = lab.saga(lab.step("A"), lab.step("B"))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga), gate.reached, do_nothing)
    acted = {"saga": [], "A completed": ["A"], "B completed": ["A", "B"], "completed": ["A", "B"]}[seam]
    if seam == "saga" and not durable:
        assert lab.storage.commits == []
        assert lab.log == []
        return
    assert lab.log == [*acted, *([] if seam == "completed" else [f"~{name}" for name in reversed(acted)])]
    assert await lab.status() == ("completed" if seam == "completed" else "failed")
    assert not await lab.is_held()
    history = await lab.history()
    for name in acted:
        assert f"{name} completed" in history
        assert history.count(f"~{name} completed") == (seam != "completed")


@pytest.mark.parametrize("seam", ["compensating", "~B started", "~B completed", "~A completed", "failed"])
async def test_a_write_of_a_rollback_that_is_cancelled(lab: Any, cancelled_by: str, seam: str) -> None:
    """Cancelled while a rollback writes, the write is not torn, and the rollback goes on."""
    gate = lab.Gate()

    async def wait(writes: Sequence[str]) -> None:
        await checkpoint()
        if seam in writes:
            await gate()

    lab.storage.before_commit = wait
    saga = lab.saga(lab.step("A"), lab.step("B"), lab.step("C", lab.Raising(lab.Boom())))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, failing(lab, lambda: lab.run(saga)), gate.reached, gate.open)
    assert lab.log == ["A", "B", "C", "~B", "~A"]
    assert (await lab.history())[-4:] == ["~B started", "~B completed", "~A started", "~A completed"]
    assert await lab.status() == "failed"


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_an_event_handler_that_is_cancelled(lab: Any, cancelled_by: str, how: str) -> None:
    """The step whose event it handles is done and durable: it is undone with those before it."""
    gate = lab.Gate()

    async def on_event(event: Any) -> None:
        if event.step == "B":
            await gate()

    saga = lab.saga(*map(lab.step, "ABC"))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga, how, on_event=on_event), gate.reached, do_nothing)
    assert gate.waiting == 0
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


@pytest.mark.parametrize("how", ["transaction", "push"])
async def test_a_consumer_that_is_cancelled_between_two_steps(lab: Any, cancelled_by: str, how: str) -> None:
    """In the block of a transaction, or of a stream, a cancellation of the consumer rolls the saga back."""
    gate = lab.Gate()
    saga = lab.saga(*map(lab.step, "ABC"))

    async def consume() -> None:
        source = lab.transaction(saga) if how == "transaction" else lab.mediator(saga).stream(lab.context, lab.id)
        async with source as results:
            async for _ in results:
                await gate()

    async with lab.no_task_left():
        await lab.cancel(cancelled_by, consume, gate.reached, do_nothing)
    acted = [entry for entry in lab.log if not entry.startswith("~")]
    assert acted[0] == "A"
    assert lab.log == [*acted, *(f"~{name}" for name in reversed(acted))]
    assert await lab.status() == "failed"


async def test_a_consumer_that_is_cancelled_in_a_loop(lab: Any, cancelled_by: str) -> None:
    """In the body of ``async for`` over a stream, a cancellation leaves the saga RUNNING; recovery goes on with it."""
    gate = lab.Gate()
    saga = lab.saga(*map(lab.step, "ABC"))

    async def consume() -> None:
        async with contextlib.aclosing(lab.mediator(saga).stream(lab.context, lab.id)) as results:
            async for _ in results:
                await gate()

    async with lab.no_task_left():
        await lab.cancel(cancelled_by, consume, gate.reached, do_nothing)
    assert lab.log == ["A"]
    assert await lab.status() == "running"
    assert not await lab.is_held()
    await lab.recover(saga)
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "completed"


async def test_a_saga_that_is_cancelled_behind_its_pivot(lab: Any, cancelled_by: str, how: str) -> None:
    """Nothing is undone: the saga stays RUNNING, is given back, and recovery takes it forward."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), Pivot(lab.step("P")), lab.step("B", gate))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga, how), gate.reached, do_nothing)
    assert lab.log == ["A", "P", "B"]
    assert (await lab.history())[-1] == "B interrupted"
    assert await lab.status() == "running"
    assert not await lab.is_held()
    gate.open()
    await lab.recover(saga)
    assert lab.log == ["A", "P", "B", "B"]
    assert await lab.status() == "completed"


@pytest.mark.parametrize(("on_unknown", "log"), [("retry", ["B", "C"]), ("park", [])])
async def test_a_cancelled_step_that_is_not_to_be_compensated(
    lab: Any, cancelled_by: str, on_unknown: str, log: list[str]
) -> None:
    """With ``"retry"`` a cancelled saga stays RUNNING for recovery, with ``"park"`` it is parked."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", gate, on_unknown=on_unknown), lab.step("C"))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga), gate.reached, do_nothing)
    assert lab.log == ["A", "B"]
    assert await lab.status() == "running"
    assert not await lab.is_held()
    assert len(await lab.storage.get_parked_sagas()) == (on_unknown == "park")
    gate.open()
    lab.log.clear()
    with contextlib.suppress(Exception):
        await lab.recover(saga)
    assert lab.log == log


async def test_a_recovery_that_is_cancelled(lab: Any, cancelled_by: str) -> None:
    """It leaves the saga as it is, RUNNING and given back; the step it was in is retried by the next recovery."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", gate))
    async with lab.transaction(saga) as transaction:
        await anext(transaction)
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.recover(saga), gate.reached, do_nothing)
    assert lab.log == ["A", "B"]
    assert (await lab.history())[-1] == "B interrupted"
    assert await lab.status() == "running"
    assert not await lab.is_held()
    assert (await lab.storage.load_saga(lab.id)).recovery_attempts == 0
    gate.open()
    await lab.recover(saga)
    assert lab.log == ["A", "B", "B"]
    assert await lab.status() == "completed"


async def test_a_recovery_that_is_cancelled_while_it_rolls_back(lab: Any, cancelled_by: str) -> None:
    """A rollback is not torn in recovery either."""
    undoing = lab.Gate()
    saga = lab.saga(lab.step("A"), lab.step("B", undo=undoing), lab.step("C", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom):
        await lab.run(saga, compensation_timeout=0.1)
    undoing.reached = anyio.Event()
    lab.log.clear()
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, failing(lab, lambda: lab.recover(saga)), undoing.reached, undoing.open)
    assert lab.log == ["~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_cancellation_that_a_step_turns_into_an_error(lab: Any) -> None:
    """What a step raises in place of its cancellation says nothing of what it did: it is compensated."""
    reached = anyio.Event()

    async def act(context: Any) -> None:
        reached.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise lab.Boom

    saga = lab.saga(lab.step("A"), lab.step("B", act))
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with contextlib.suppress(lab.Boom):
                await lab.run(saga)

        tasks.start_soon(run)
        await reached.wait()
        tasks.cancel_scope.cancel()
    assert lab.log == ["A", "B", "~B", "~A"]
    assert "B interrupted" in await lab.history()


async def test_a_cancellation_that_a_step_swallows(lab: Any) -> None:
    """A step that goes on in spite of a scope's cancellation has acted; the saga is cancelled behind it, and undone."""
    reached = anyio.Event()

    async def act(context: Any) -> None:
        reached.set()
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lab.run, lab.saga(lab.step("A"), lab.step("B", act), lab.step("C")))
        await reached.wait()
        tasks.cancel_scope.cancel()
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_native_cancellation_that_a_step_turns_into_an_error(lab: Any) -> None:
    """The same where the cancellation is asyncio's own."""
    if lab.backend != "asyncio":
        pytest.skip("native cancellation is asyncio's")
    import asyncio

    reached = anyio.Event()

    async def act(context: Any) -> None:
        reached.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise lab.Boom from None

    task = asyncio.ensure_future(lab.run(lab.saga(lab.step("A"), lab.step("B", act))))
    await reached.wait()
    task.cancel()
    with pytest.raises(lab.Boom):
        await task
    assert lab.log == ["A", "B", "~B", "~A"]


async def test_a_cancellation_tells_of_compensations_that_failed(lab: Any) -> None:
    """The cancellation has the compensation errors attached, as any other error has."""
    gate = lab.Gate()
    told: list[Any] = []

    async def run() -> None:
        try:
            await lab.run(lab.saga(lab.step("A", undo=lab.Raising(KeyError())), lab.step("B", gate)))
        except anyio.get_cancelled_exc_class() as error:
            told.extend(compensation_errors(error))
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await gate.reached.wait()
        tasks.cancel_scope.cancel()
    assert [error.step_name for error in told] == ["A"]
    assert await lab.status() == "compensation_failed"


class Interrupt(BaseException):
    """Like KeyboardInterrupt, which an event loop would not let a test see."""


async def test_a_step_that_is_interrupted(lab: Any, how: str) -> None:
    """What is no Exception leaves the outcome unknown: the step is compensated, and the interrupt gets out."""
    interrupt = Interrupt()
    saga = lab.saga(lab.step("A"), lab.step("B", lab.Raising(interrupt)))
    async with lab.no_task_left():
        with pytest.raises(Interrupt) as caught:
            await lab.run(saga, how)
    assert caught.value is interrupt
    assert lab.log == ["A", "B", "~B", "~A"]
    assert "B interrupted" in await lab.history()
    assert await lab.status() == "failed"


async def test_a_keyboard_interrupt_in_a_transaction(backend_name: str, lab: Any) -> None:
    """A KeyboardInterrupt in the consumer's block rolls the saga back."""
    with pytest.raises(Interrupt):  # noqa: PT012
        async with lab.transaction(lab.saga(lab.step("A"), lab.step("B"))) as transaction:
            async for _ in transaction:
                raise Interrupt
    assert lab.log == ["A", "~A"]
    assert await lab.status() == "failed"


async def test_a_deadline_of_the_callers_while_a_saga_is_undone(lab: Any, how: str) -> None:
    """``fail_after`` around a saga raises TimeoutError once the saga is undone, not before."""
    undoing = lab.Gate()
    saga = lab.saga(lab.step("A", undo=undoing), lab.step("B", lab.Gate()))

    async def open_later() -> None:
        await undoing.reached.wait()
        await anyio.sleep(0.03)
        undoing.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_later)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.2):
                await lab.run(saga, how)
        assert lab.log == ["A", "B", "~B", "~A"]
        assert await lab.status() == "failed"
