"""A saga whose results are not read to their end: what becomes of it, in each way of leaving."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytestmark = pytest.mark.usefixtures("nothing_unraisable")


async def assert_left(lab: Any, saga: Any, log: list[str], *, recovers: bool = True) -> None:
    """The saga is as it was, RUNNING and given back, and recovery takes it to its end."""
    assert lab.log == log
    assert await lab.status() == "running"
    assert not await lab.is_held()
    if recovers:
        await lab.recover(saga)
        assert lab.log == ["A", "B", "C"]
        assert await lab.status() == "completed"


async def assert_undone(lab: Any, saga: Any) -> None:
    """What acted was undone, and recovery finds nothing to do."""
    acted = [entry for entry in lab.log if not entry.startswith("~")]
    assert acted
    assert lab.log == [*acted, *(f"~{name}" for name in reversed(acted))]
    assert await lab.status() == "failed"
    assert not await lab.is_held()
    assert await lab.storage.get_sagas_for_recovery(10) == []


@pytest.fixture
def saga(lab: Any) -> Any:
    return lab.saga(*map(lab.step, "ABC"))


# --- async with saga.transaction()


async def test_break_out_of_a_transaction(lab: Any, saga: Any) -> None:
    """``break`` neither completes nor undoes: the saga stays RUNNING, is given back at the end of the block."""
    async with lab.transaction(saga) as transaction:
        async for _ in transaction:
            break
        assert await lab.is_held()
    await assert_left(lab, saga, ["A"])


async def test_a_transaction_that_is_not_iterated(lab: Any, saga: Any) -> None:
    """A block without an iteration begins nothing."""
    async with lab.transaction(saga):
        await checkpoint()
    assert lab.log == []
    assert lab.storage.commits == []


async def test_an_exception_in_the_block_of_a_transaction(lab: Any, saga: Any) -> None:
    """An exception in the block rolls the saga back, and reaches the caller."""
    boom = lab.Boom("consumer")
    with pytest.raises(lab.Boom) as caught:  # noqa: PT012
        async with lab.transaction(saga) as transaction:
            async for result in transaction:
                if result.response == "B":
                    raise boom
    assert caught.value is boom
    assert lab.log == ["A", "B", "~B", "~A"]
    await assert_undone(lab, saga)


async def test_an_exception_in_the_block_after_the_saga_has_ended(lab: Any, saga: Any) -> None:
    """A saga that has COMPLETED is not undone."""
    with pytest.raises(lab.Boom):  # noqa: PT012
        async with lab.transaction(saga) as transaction:
            async for _ in transaction:
                pass
            raise lab.Boom
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "completed"


async def test_return_out_of_a_transaction(lab: Any, saga: Any) -> None:
    """``return`` leaves the saga as ``break`` does."""

    async def first() -> Any:
        async with lab.transaction(saga) as transaction:
            async for result in transaction:
                return result.response

    assert await first() == "A"
    await assert_left(lab, saga, ["A"])


async def test_aclose_of_a_transaction(lab: Any, saga: Any) -> None:
    """``aclose`` leaves the saga, as often as it is called; iterating afterwards gives nothing."""
    transaction = lab.transaction(saga)
    assert (await anext(transaction)).response == "A"
    await transaction.aclose()
    await transaction.aclose()
    assert [result async for result in transaction] == []
    await assert_left(lab, saga, ["A"])


async def test_a_transaction_that_is_forgotten(lab: Any, saga: Any) -> None:
    """A transaction that is iterated without its block, and dropped, is recovered once its lease has ended."""
    transaction = lab.transaction(saga, lease_duration=0.05)
    await anext(transaction)
    del transaction
    gc.collect()
    assert await lab.status() == "running"
    assert await lab.is_held()
    await anyio.sleep(0.06)
    await assert_left_by_lease(lab, saga)


async def assert_left_by_lease(lab: Any, saga: Any) -> None:
    await lab.recover(saga)
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "completed"


async def test_a_generator_around_a_transaction_that_is_closed(lab: Any, saga: Any) -> None:
    """Closing a generator that yields inside the block leaves the saga RUNNING."""

    async def results() -> Any:
        async with lab.transaction(saga) as transaction:
            async for result in transaction:
                yield result

    async with contextlib.aclosing(results()) as generator:
        assert (await anext(generator)).response == "A"
    await assert_left(lab, saga, ["A"])


# --- async for over mediator.stream()


async def test_a_stream_that_is_not_consumed(lab: Any, saga: Any) -> None:
    """Nothing begins before the first result is asked for."""
    lab.mediator(saga).stream(lab.context, lab.id)
    await lab.spin()
    assert lab.storage.commits == []


@pytest.mark.parametrize("is_entered", [False, True])
async def test_break_and_aclose(lab: Any, saga: Any, is_entered: bool) -> None:
    """``break`` and ``aclose`` leave the saga RUNNING, and given back when ``aclose`` returns."""
    mediator = lab.mediator(saga)
    async with lab.no_task_left(), mediator if is_entered else contextlib.nullcontext():
        stream = mediator.stream(lab.context, lab.id)
        async for _ in stream:
            break
        await stream.aclose()
        await stream.aclose()
        await assert_left(lab, saga, ["A"])


@pytest.mark.parametrize("how_to_leave", ["break", "exception", "dropped"])
async def test_a_stream_of_an_entered_mediator_is_given_back(lab: Any, saga: Any, how_to_leave: str) -> None:
    """In an entered mediator, a stream that was left and not closed is given back as soon as it is garbage."""
    mediator = lab.mediator(saga)
    async with lab.no_task_left(), mediator:

        async def consume() -> None:
            async for _ in mediator.stream(lab.context, lab.id):
                if how_to_leave == "exception":
                    raise lab.Boom
                break

        async def drop() -> None:
            await anext(aiter(mediator.stream(lab.context, lab.id)))

        with contextlib.suppress(lab.Boom):
            await (drop() if how_to_leave == "dropped" else consume())
        gc.collect()
        await lab.spin()
        await assert_left(lab, saga, ["A"])


async def test_a_stream_that_is_held_is_given_back_with_the_mediator(lab: Any, saga: Any) -> None:
    """Leaving the mediator gives back the sagas of streams that are still referred to."""
    mediator = lab.mediator(saga)
    async with lab.no_task_left(), mediator:
        stream = mediator.stream(lab.context, lab.id)
        async for _ in stream:
            break
        assert await lab.is_held()
    await assert_left(lab, saga, ["A"])
    assert stream is not None


async def test_a_stream_that_is_left_without_an_entered_mediator(
    lab: Any, saga: Any, nothing_unraisable: list[Any]
) -> None:
    """The event loop's hooks for generators give the saga back; trio complains of that."""

    async def consume() -> None:
        async for _ in lab.mediator(saga).stream(lab.context, lab.id):
            break

    await consume()
    gc.collect()
    with anyio.fail_after(5):
        while await lab.is_held():
            await anyio.sleep(0.01)
    assert all(isinstance(error, ResourceWarning) for error, _ in nothing_unraisable)
    assert len(nothing_unraisable) == (lab.backend == "trio")
    nothing_unraisable.clear()
    await assert_left(lab, saga, ["A"])


@pytest.mark.parametrize("is_entered", [False, True])
async def test_an_exception_in_the_body_of_a_loop(lab: Any, saga: Any, is_entered: bool) -> None:
    """An exception of the consumer's leaves the saga RUNNING: the stream does not see it."""
    mediator = lab.mediator(saga)
    async with mediator if is_entered else contextlib.nullcontext():
        stream = mediator.stream(lab.context, lab.id)
        with pytest.raises(lab.Boom):  # noqa: PT012
            async with contextlib.aclosing(stream):
                async for result in stream:
                    if result.response == "B":
                        raise lab.Boom
        await assert_left(lab, saga, ["A", "B"])


async def test_break_at_the_last_result(lab: Any, saga: Any) -> None:
    """All steps are done, and the saga is not marked so: recovery completes it, and nothing acts again."""
    stream = lab.mediator(saga).stream(lab.context, lab.id)
    async with contextlib.aclosing(stream):
        async for result in stream:
            if result.response == "C":
                break
    await assert_left(lab, saga, ["A", "B", "C"])


async def test_a_stream_that_was_left_can_be_gone_on_with(lab: Any, saga: Any) -> None:
    """A second stream under the same id goes on where the first was left, with the context that is stored."""

    async def act(context: Any) -> None:
        context.total += 1

    saga = lab.saga(lab.step("A", act), lab.step("B", act))
    stream = lab.mediator(saga).stream(lab.context, lab.id)
    async with contextlib.aclosing(stream):
        await anext(aiter(stream))
    lab.context = lab.Order()
    assert await lab.run(saga, "pull") == ["B"]
    assert lab.context.total == 2
    assert await lab.status() == "completed"


# --- async with mediator.stream()


@pytest.mark.parametrize("way", ["break", "return", "exception", "aclose"])
async def test_leaving_the_block_of_a_stream_early(lab: Any, saga: Any, way: str) -> None:
    """In whatever way its block is left early, the saga is cancelled and undone by the end of the block."""

    async def consume() -> None:
        async with lab.mediator(saga).stream(lab.context, lab.id) as results:
            async for _ in results:
                if way == "return":
                    return
                if way == "exception":
                    raise lab.Boom
                if way == "aclose":
                    await results.aclose()
                break

    async with lab.no_task_left():
        with pytest.raises(lab.Boom) if way == "exception" else contextlib.nullcontext():
            await consume()
    await assert_undone(lab, saga)


async def test_the_block_of_a_stream_that_is_not_read(lab: Any) -> None:
    """A block that asks for nothing, and is left while a step acts, undoes the saga."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A", gate))
    async with lab.mediator(saga).stream(lab.context, lab.id):
        await gate.reached.wait()
    assert lab.log == ["A", "~A"]
    await assert_undone(lab, saga)


async def test_a_failure_that_nobody_has_read(lab: Any) -> None:
    """What rolled the saga back is raised at the end of the block, where the consumer did not read it."""
    saga = lab.saga(lab.step("A"), lab.step("B", lab.Raising(lab.Boom("unread"))))
    with pytest.raises(lab.Boom, match="unread"):  # noqa: PT012
        async with lab.mediator(saga).stream(lab.context, lab.id, max_buffer_size=5):
            with anyio.fail_after(5):
                while "~A" not in lab.log:
                    await checkpoint()
                await lab.spin()
    assert await lab.status() == "failed"


async def test_a_buffer_lets_the_saga_run_ahead(lab: Any, saga: Any) -> None:
    """With ``max_buffer_size`` the saga completes while nobody reads; its results are there afterwards."""
    async with lab.mediator(saga).stream(lab.context, lab.id, max_buffer_size=3) as results:
        with anyio.fail_after(5):
            while lab.storage.commits == [] or await lab.status() != "completed":
                await checkpoint()
        assert [result.response async for result in results] == ["A", "B", "C"]
    assert await lab.status() == "completed"


async def test_a_dispatcher_of_the_applications_own(lab: Any, saga: Any) -> None:
    """Where ``dispatch`` is overridden, leaving its stream has the same results."""
    from cqrs.dispatcher.saga import SagaDispatcher
    from cqrs.requests.map import SagaMap
    from cqrs.saga.mediator import SagaMediator

    class Dispatcher(SagaDispatcher):
        async def dispatch(self, context: Any, saga_id: Any = None) -> Any:
            async with contextlib.aclosing(super().dispatch(context, saga_id)) as results:
                async for result in results:
                    yield result

    sagas = SagaMap()
    sagas.bind(lab.Order, saga)
    mediator = SagaMediator(sagas, lab.container, storage=lab.storage, dispatcher_type=Dispatcher)
    async with mediator:
        stream = mediator.stream(lab.context, lab.id)
        async with contextlib.aclosing(stream):
            async for _ in stream:
                break
        gc.collect()
        await lab.spin()
        await assert_left(lab, saga, ["A"])
