"""Steps that act at the same time."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs import Fallback, Parallel, Saga, SagaContext, SagaStepHandler, compensation_errors
from cqrs.exceptions import SagaRolledBackError


def meeting(count: int) -> Any:
    """All who come wait until ``count`` have."""
    here = 0
    all_here = anyio.Event()

    async def meet(*_: Any) -> None:
        nonlocal here
        here += 1
        if here == count:
            all_here.set()
        await all_here.wait()

    return meet


async def test_steps_of_a_group_act_at_the_same_time(lab: Any, how: str) -> None:
    """Each step of a group waits for the others inside ``act``, and none is kept waiting."""
    meet = meeting(3)
    group = Parallel(*(lab.step(name, meet) for name in "BCD"))
    responses = await lab.run(lab.saga(lab.step("A"), group, lab.step("E")), how)
    assert (responses[0], sorted(responses[1:4]), responses[4]) == ("A", ["B", "C", "D"], "E")
    assert (lab.log[0], sorted(lab.log[1:4]), lab.log[4]) == ("A", ["B", "C", "D"], "E")
    assert await lab.status() == "completed"


@pytest.mark.parametrize("limit", [1, 2])
async def test_the_limit_of_a_group(lab: Any, how: str, limit: int) -> None:
    """No more than ``limit`` steps act at once, and the others in their turn."""
    acting = most = 0

    async def act(context: Any) -> None:
        nonlocal acting, most
        acting += 1
        most = max(most, acting)
        await lab.spin()
        acting -= 1

    await lab.run(lab.saga(Parallel(*(lab.step(name, act) for name in "ABCDE"), limit=limit)), how)
    assert most == limit
    assert sorted(lab.log) == ["A", "B", "C", "D", "E"]


async def test_the_first_failure_cancels_the_others(lab: Any, how: str) -> None:
    """The others are cancelled and awaited before anything is undone; they may have acted, and are undone too."""
    gate = lab.Gate()
    ended: list[str] = []

    async def hang(context: Any) -> None:
        try:
            await gate()
        finally:
            with anyio.CancelScope(shield=True):
                await lab.spin()
            ended.append("B")

    async def undo(context: Any) -> None:
        assert ended == ["B"]

    async def fail(context: Any) -> None:
        await gate.reached.wait()
        raise lab.Boom("first")

    saga = lab.saga(lab.step("A", undo=undo), Parallel(lab.step("B", hang, undo), lab.step("C", fail)), lab.step("D"))
    async with lab.no_task_left():
        with pytest.raises(lab.Boom, match="first"):
            await lab.run(saga, how)
    assert sorted(lab.log[1:3]) == ["B", "C"]
    assert lab.log[3:] == ["~B", "~A"]
    history = await lab.history()
    assert "B interrupted" in history
    assert "C failed" in history
    assert await lab.status() == "failed"


async def test_done_and_unknown_steps_are_compensated_concurrently(lab: Any, how: str) -> None:
    """Compensations of a group wait for each other; the stage before it comes after all of them."""
    gate = lab.Gate()
    meet = meeting(2)

    async def fail(context: Any) -> None:
        await gate.reached.wait()
        while "C completed" not in await lab.history():
            await checkpoint()
        raise lab.Boom

    group = Parallel(lab.step("B", gate, meet), lab.step("C", undo=meet), lab.step("D", fail))
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), group), how)
    assert sorted(lab.log[4:6]) == ["~B", "~C"]
    assert lab.log[6:] == ["~A"]
    assert await lab.status() == "failed"


async def test_the_limit_binds_compensations_too(lab: Any) -> None:
    """No more than ``limit`` steps of a group compensate at once."""
    acting = most = 0

    async def undo(context: Any) -> None:
        nonlocal acting, most
        acting += 1
        most = max(most, acting)
        await lab.spin()
        acting -= 1

    group = Parallel(*(lab.step(name, undo=undo) for name in "ABCD"), limit=2)
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(group, lab.step("E", lab.Raising(lab.Boom()))))
    assert most == 2
    assert await lab.status() == "failed"


async def test_steps_that_did_not_start_are_not_compensated(lab: Any, how: str) -> None:
    """What waited for its turn when the group failed has not begun, and the log says so."""
    group = Parallel(lab.step("B", lab.Raising(lab.Boom())), lab.step("C"), lab.step("D"), limit=1)
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), group), how)
    history = await lab.history()
    begun = [name for name in "CD" if name in lab.log]
    for name in "CD":
        assert (f"~{name}" in lab.log) is (name in begun)
        if name not in begun and f"{name} started" in history:
            assert f"{name} not_started" in history
    assert await lab.status() == "failed"


async def test_a_compensation_in_a_group_that_fails(lab: Any, how: str) -> None:
    """It does not keep its siblings from being undone, nor the stages before."""
    boom = lab.Boom()
    group = Parallel(lab.step("B", undo=lab.Raising(KeyError())), lab.step("C"))
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), group, lab.step("D", lab.Raising(boom))), how)
    assert lab.log.count("~B") == 3
    assert lab.log.count("~C") == 1
    assert lab.log[-1] == "~A"
    assert [error.step_name for error in compensation_errors(boom)] == ["B"]  # type: ignore[attr-defined]
    assert await lab.status() == "compensation_failed"


async def test_two_failures_at_once(lab: Any, how: str) -> None:
    """Of failures that come before the cancellation arrives none is lost; each raiser is FAILED, none compensated."""
    meet = meeting(2)

    def failing(name: str) -> Any:
        async def act(context: Any) -> None:
            await meet()
            raise lab.Boom(name)

        return lab.step(name, act)

    with pytest.raises(Exception) as caught:
        await lab.run(lab.saga(lab.step("A"), Parallel(failing("B"), failing("C"))), how)
    errors = getattr(caught.value, "exceptions", (caught.value,))
    assert {type(error) for error in errors} == {lab.Boom}
    assert len(errors) in (1, 2)  # on trio the second may have been cancelled first
    failed = {str(error) for error in errors}
    assert [name for name in ("B", "C") if f"~{name}" in lab.log] == [name for name in ("B", "C") if name not in failed]
    assert lab.log[-1] == "~A"
    assert await lab.status() == "failed"


async def test_results_come_as_they_are_there(lab: Any) -> None:
    """In ``async with`` the result of a quick step is handed out while a slow one still acts."""
    gate = lab.Gate()
    saga = lab.saga(Parallel(lab.step("Slow", gate), lab.step("Quick")), lab.step("C"))
    responses = []
    with anyio.fail_after(5):
        async with lab.mediator(saga).stream(lab.context, lab.id) as results:
            async for result in results:
                responses.append(result.response)
                if result.response == "Quick":
                    assert gate.waiting == 1
                    gate.open()
    assert responses == ["Quick", "Slow", "C"]


@pytest.mark.parametrize("how", ["transaction", "pull"])
async def test_results_come_after_the_group_where_they_are_pulled(lab: Any, how: str) -> None:
    """Where the consumer's task runs the saga, all steps of a group are done before the first of their results."""
    saga = lab.saga(Parallel(lab.step("A"), lab.step("B")), lab.step("C"))
    seen: list[tuple[str, int]] = []
    lab.on_result = lambda result: seen.append((result.response, len(lab.log)))
    await lab.run(saga, how)
    assert sorted(seen) == [("A", 2), ("B", 2), ("C", 3)]


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_the_events_of_a_group(lab: Any, how: str) -> None:
    """Events of each step are handled once, when it is durable, and before its result is handed out."""
    happened: list[str] = []

    async def on_event(event: Any) -> None:
        assert f"{event.step} completed" in await lab.history()
        happened.append(f"event {event.step}")

    saga = lab.saga(Parallel(*map(lab.step, "AB")), lab.step("C"))
    lab.on_result = lambda result: happened.append(f"result {result.response}")
    await lab.run(saga, how, on_event=on_event)
    for name in "ABC":
        assert [thing for thing in happened if thing.endswith(name)] == [f"event {name}", f"result {name}"]


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_an_event_handler_that_fails_in_a_group(lab: Any, how: str) -> None:
    """The saga is rolled back, all steps of the group that acted included."""

    async def on_event(event: Any) -> None:
        if event.step == "B":
            raise lab.Boom

    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(Parallel(lab.step("B"), lab.step("C")), lab.step("D")), how, on_event=on_event)
    acted = [name for name in ("B", "C") if name in lab.log]
    assert "B" in acted
    assert sorted(entry for entry in lab.log if entry.startswith("~")) == [f"~{name}" for name in acted]
    assert await lab.status() == "failed"


@dataclasses.dataclass
class Tally(SagaContext):
    first: int = 0
    second: int = 0
    third: int = 0
    count: int = 0


def counting(field: str) -> type[Any]:
    async def act(self: Any, context: Tally) -> None:
        for number in range(1, 4):
            setattr(context, field, number)
            context.count += 1
            await checkpoint()

    return types.new_class(field.title(), (SagaStepHandler[Tally, None],), exec_body=lambda body: body.update(act=act))


class TallySaga(Saga[Tally]):
    steps = [Parallel(*map(counting, ("first", "second", "third")))]


async def test_a_group_loses_no_updates(lab: Any, how: str) -> None:
    """What each step writes is in the context and in the storage, whatever the others wrote meanwhile."""
    lab.context = Tally()
    await lab.run(TallySaga, how, **({} if how == "transaction" else {"context_type": Tally}))
    assert lab.context == Tally(3, 3, 3, 9)
    assert await lab.stored() == dataclasses.asdict(lab.context)


async def test_each_step_is_durable_with_what_it_wrote(lab: Any) -> None:
    """Whenever the log says COMPLETED of a step of a group, the stored context has what it wrote."""
    lab.context = Tally()
    checked = 0

    async def after_commit(writes: Any) -> None:
        nonlocal checked
        await checkpoint()
        stored = await lab.stored()
        for entry in await lab.history():
            name, _, status = entry.partition(" ")
            if status == "completed":
                assert stored[name.lower()] == 3
                checked += 1

    lab.storage.after_commit = after_commit
    await lab.run(TallySaga)
    assert checked >= 6


async def test_a_group_is_cancelled_with_its_saga(lab: Any, cancelled_by: str) -> None:
    """A cancellation reaches all steps of a group, and all of them are undone."""
    meet = meeting(2)
    reached = anyio.Event()

    async def hang(context: Any) -> None:
        await meet()
        reached.set()
        await anyio.sleep_forever()

    saga = lab.saga(lab.step("A"), Parallel(lab.step("B", hang), lab.step("C", hang)))
    async with lab.no_task_left():
        await lab.cancel(cancelled_by, lambda: lab.run(saga), reached, lambda: None)
    assert sorted(lab.log[3:5]) == ["~B", "~C"]
    assert lab.log[5:] == ["~A"]
    assert await lab.status() == "failed"


async def test_a_failure_beside_a_step_that_is_to_be_retried(lab: Any, how: str) -> None:
    """A group that failed for sure is undone, its interrupted steps included, whatever they say of being retried."""
    gate = lab.Gate()

    async def fail(context: Any) -> None:
        await gate.reached.wait()
        raise lab.Boom

    saga = lab.saga(lab.step("A"), Parallel(lab.step("B", gate, on_unknown="retry"), lab.step("C", fail)))
    with pytest.raises(lab.Boom):
        await lab.run(saga, how)
    assert lab.log[3:] == ["~B", "~A"]
    assert await lab.status() == "failed"


async def test_leaving_a_stream_while_a_group_acts(lab: Any) -> None:
    """Steps of a group that act, that are done, and whose results nobody took, are all undone."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A"), Parallel(lab.step("B", gate), lab.step("C"), lab.step("D")))
    async with lab.no_task_left(), lab.mediator(saga).stream(lab.context, lab.id) as results:
        async for result in results:
            if result.response != "A":
                await gate.reached.wait()
                break
    assert sorted(lab.log[4:7]) == ["~B", "~C", "~D"]
    assert lab.log[7:] == ["~A"]
    assert await lab.status() == "failed"


async def test_recovery_of_a_group_does_what_is_not_done(lab: Any) -> None:
    """A group that was left in the middle is gone on with: steps that are done do not act again."""
    gate = lab.Gate()
    saga = lab.saga(Parallel(lab.step("A"), lab.step("B", gate, timeout=0.05, on_unknown="retry")), lab.step("C"))
    with pytest.raises(TimeoutError):
        await lab.run(saga)
    assert await lab.status() == "running"
    lab.log.clear()
    gate.open()
    await lab.recover(saga)
    assert lab.log == ["B", "C"]
    assert await lab.status() == "completed"


async def test_recovery_of_the_rollback_of_a_group(lab: Any) -> None:
    """Recovery undoes the steps of a group that have not been undone, and no other."""
    gate = lab.Gate()
    saga = lab.saga(
        lab.step("A"), Parallel(lab.step("B", undo=gate), lab.step("C")), lab.step("D", lab.Raising(lab.Boom()))
    )
    with pytest.raises(lab.Boom):
        await lab.run(saga, compensation_timeout=0.1)
    assert "~C completed" in await lab.history()
    lab.log.clear()
    gate.open()
    with pytest.raises(SagaRolledBackError):
        await lab.recover(saga)
    assert lab.log == ["~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_group_of_one_step_listed_twice(lab: Any, how: str) -> None:
    """A step may be in a group twice, each time an instance of its own."""
    step = lab.step("A")
    assert await lab.run(lab.saga(Parallel(step, step)), how) == ["A", "A"]
    assert len(lab.instances) == 2
    assert {"A completed", "A#2 completed"} <= set(await lab.history())


async def test_fallbacks_in_a_group(lab: Any, how: str) -> None:
    """A fallback in a group acts for its own step alone, and is undone in its place."""
    group = Parallel(Fallback(lab.step("P", lab.Raising(lab.Boom())), lab.step("Q")), lab.step("B"))
    with pytest.raises(lab.Boom, match="c"):
        await lab.run(lab.saga(group, lab.step("C", lab.Raising(lab.Boom("c")))), how)
    assert sorted(lab.log[:3]) == ["B", "P", "Q"]
    assert sorted(lab.log[4:]) == ["~B", "~Q"]
    assert await lab.status() == "failed"


async def test_a_base_exception_in_a_group(lab: Any, how: str) -> None:
    """What is no Exception gets out of a group, and everything is undone, its raiser included."""

    class Interrupt(BaseException):
        pass

    group = Parallel(lab.step("B", lab.Raising(Interrupt())), lab.step("C", lab.Gate()))
    with pytest.raises(BaseException) as caught:
        await lab.run(lab.saga(lab.step("A"), group), how)
    error: Any = caught.value
    while hasattr(error, "exceptions"):
        (error,) = error.exceptions
    assert isinstance(error, Interrupt)
    assert lab.log[-1] == "~A"
    assert sorted(set(lab.log[1:-1])) in (["B", "C", "~B", "~C"], ["B", "~B"])
    assert await lab.status() == "failed"
