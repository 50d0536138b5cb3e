"""The contract of a saga storage, as tests: units of work."""
# ruff: noqa: S101, PT012 - these are tests; a run may be refused by any of its writes, or by its commit

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs.exceptions import SagaConcurrencyError
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.protocol import ISagaStorage, SagaStorageRun
from cqrs.testing.saga_storage import BOUND, CONTEXT, SagaStorageContract, logged_names, new_saga

_Body: TypeAlias = Callable[[anyio.Event], Coroutine[Any, Any, None]]
"""Sets the event and waits to be cancelled."""

_UNTOUCHED = (SagaStatus.RUNNING, CONTEXT, 1)
_WRITTEN = (SagaStatus.COMPENSATING, {"paid": True}, 2)


class _DeliberateError(Exception):
    pass


async def write_everything(run: SagaStorageRun, saga_id: uuid.UUID) -> None:
    """Write of each kind, which :func:`assert_written` finds."""
    await run.log_step(saga_id, "Pay", "act", SagaStepStatus.COMPLETED)
    await run.log_step(saga_id, "Ship", "act", SagaStepStatus.FAILED, "no lorry")
    await run.update_context(saga_id, {"paid": True})
    await run.update_status(saga_id, SagaStatus.COMPENSATING)


async def assert_written(storage: ISagaStorage | SagaStorageRun, saga_id: uuid.UUID) -> None:
    """All of :func:`write_everything` is there."""
    assert await storage.load_saga_state(saga_id) == _WRITTEN
    assert [entry.step_name for entry in await storage.get_step_history(saga_id)] == ["Pay", "Ship"]


async def assert_untouched(storage: ISagaStorage | SagaStorageRun, saga_id: uuid.UUID) -> None:
    """A saga is as :func:`~cqrs.testing.saga_storage.new_saga` made it."""
    assert await storage.load_saga_state(saga_id) == _UNTOUCHED
    assert await storage.get_step_history(saga_id) == []


class SagaRunContract(SagaStorageContract):
    """The contract of a storage that supports ``create_run()``: that of any storage, and that of its runs."""

    async def test_a_commit_makes_all_of_a_run_durable(self, storage: ISagaStorage) -> None:
        """What was written in a run is there after its commit, in the run's own block already."""
        saga_id = await new_saga(storage)
        async with storage.create_run() as run:
            await write_everything(run, saga_id)
            await run.commit()
            await assert_written(storage, saga_id)
        await assert_written(storage, saga_id)

    async def test_a_saga_can_be_made_and_written_in_one_run(self, storage: ISagaStorage) -> None:
        """A run can write to the saga that it creates, and nobody else finds that before the commit."""
        saga_id = uuid.uuid4()
        async with storage.create_run() as run:
            await run.create_saga(saga_id, "OrderSaga", CONTEXT)
            await write_everything(run, saga_id)
            with anyio.fail_after(BOUND), pytest.raises(ValueError, match=str(saga_id)):
                await storage.load_saga_state(saga_id)
            await run.commit()
        await assert_written(storage, saga_id)

    async def test_nobody_else_sees_what_is_not_committed(self, storage: ISagaStorage) -> None:
        """Until the commit, everybody else reads what was committed before, without waiting for the run."""
        saga_id = await new_saga(storage)
        async with storage.create_run() as run:
            await write_everything(run, saga_id)
            with anyio.fail_after(BOUND):
                await assert_untouched(storage, saga_id)
            await run.commit()

    async def test_a_run_sees_what_it_has_written(self, storage: ISagaStorage) -> None:
        """Reading in a run returns the run's own writes, after what was committed before."""
        saga_id = await new_saga(storage)
        await storage.log_step(saga_id, "Reserve", "act", SagaStepStatus.COMPLETED)
        async with storage.create_run() as run:
            assert await run.load_saga_state(saga_id, read_for_update=True) == _UNTOUCHED
            await write_everything(run, saga_id)
            assert await run.load_saga_state(saga_id) == _WRITTEN
            log = await run.get_step_history(saga_id)
        assert [entry.step_name for entry in log] == ["Reserve", "Pay", "Ship"]

    async def test_leaving_without_a_commit_rolls_back(self, storage: ISagaStorage) -> None:
        """Nothing of a run is there that was left without a commit, not even the saga that it made."""
        saga_id, new_id = await new_saga(storage), uuid.uuid4()
        async with storage.create_run() as run:
            await write_everything(run, saga_id)
            await run.create_saga(new_id, "OrderSaga", {})
        await assert_untouched(storage, saga_id)
        with pytest.raises(ValueError, match=str(new_id)):
            await storage.load_saga_state(new_id)

    async def test_an_error_rolls_back(self, storage: ISagaStorage) -> None:
        """An error in its block rolls a run back, and goes on as it is."""
        saga_id = await new_saga(storage)
        with pytest.raises(_DeliberateError):
            async with storage.create_run() as run:
                await write_everything(run, saga_id)
                raise _DeliberateError
        await assert_untouched(storage, saga_id)

    async def test_a_cancellation_rolls_back(self, storage: ISagaStorage) -> None:
        """A run that is cancelled by a scope before its commit leaves nothing, and locks nobody out."""
        await self._check_that_cancelling_rolls_back(storage, _cancel_by_scope)

    async def test_a_native_cancellation_rolls_back(self, storage: ISagaStorage, anyio_backend_name: str) -> None:
        """A run that is cancelled by the event loop's own means before its commit leaves nothing."""
        cancel = _cancel_on_asyncio if anyio_backend_name == "asyncio" else _cancel_on_trio
        await self._check_that_cancelling_rolls_back(storage, cancel)

    async def _check_that_cancelling_rolls_back(
        self, storage: ISagaStorage, cancel: Callable[[_Body], Awaitable[None]]
    ) -> None:
        saga_id = await new_saga(storage)

        async def hang_in_a_run(reached: anyio.Event) -> None:
            async with storage.create_run() as run:
                await write_everything(run, saga_id)
                reached.set()
                await anyio.sleep_forever()

        with anyio.fail_after(BOUND):
            await cancel(hang_in_a_run)
            await assert_untouched(storage, saga_id)
            async with storage.create_run() as run:
                await write_everything(run, saga_id)
                await run.commit()
        await assert_written(storage, saga_id)

    async def test_a_cancelled_commit_writes_all_or_nothing(self, storage: ISagaStorage) -> None:
        """A commit under a cancellation may have happened, but never in part."""
        saga_id = await new_saga(storage)
        with anyio.CancelScope() as scope:
            async with storage.create_run() as run:
                await write_everything(run, saga_id)
                scope.cancel()
                await run.commit()
        written = (await storage.load_saga_state(saga_id))[0] is SagaStatus.COMPENSATING
        await (assert_written if written else assert_untouched)(storage, saga_id)

    async def test_a_rollback_forgets_and_the_run_goes_on(self, storage: ISagaStorage) -> None:
        """A rollback forgets what was written since the last commit; later writes can be committed."""
        saga_id = await new_saga(storage)
        async with storage.create_run() as run:
            await run.update_context(saga_id, {"forgotten": True})
            await run.log_step(saga_id, "Forgotten", "act", SagaStepStatus.STARTED)
            await run.rollback()
            await assert_untouched(run, saga_id)
            await write_everything(run, saga_id)
            await run.commit()
        await assert_written(storage, saga_id)

    async def test_a_run_can_commit_again(self, storage: ISagaStorage) -> None:
        """Each commit takes what was written since the one before; what comes after the last is forgotten."""
        saga_id = await new_saga(storage)
        async with storage.create_run() as run:
            await write_everything(run, saga_id)
            await run.commit()
            await run.log_step(saga_id, "Refund", "compensate", SagaStepStatus.COMPLETED)
            await run.commit()
            await run.update_status(saga_id, SagaStatus.FAILED)
        assert await storage.load_saga_state(saga_id) == _WRITTEN
        assert await logged_names(storage, saga_id) == ["Pay", "Ship", "Refund"]

    async def test_a_commit_of_nothing_changes_nothing(self, storage: ISagaStorage) -> None:
        """A commit with nothing to write succeeds."""
        saga_id = await new_saga(storage)
        async with storage.create_run() as run:
            await run.commit()
        await assert_untouched(storage, saga_id)

    async def test_an_id_is_given_once_in_runs_too(self, storage: ISagaStorage) -> None:
        """Making a second saga of one id in a run raises ValueError, and nothing of the run is there."""
        saga_id, taken = await new_saga(storage), await new_saga(storage)
        with pytest.raises(ValueError, match=str(taken)):
            async with storage.create_run() as run:
                await write_everything(run, saga_id)
                await run.create_saga(taken, "OtherSaga", {})
                await run.commit()
        await assert_untouched(storage, saga_id)
        await assert_untouched(storage, taken)

    async def test_a_missing_saga_cannot_be_loaded_in_a_run(self, storage: ISagaStorage) -> None:
        """Loading a saga that is not there in a run raises ValueError."""
        saga_id = uuid.uuid4()
        with pytest.raises(ValueError, match=str(saga_id)):
            async with storage.create_run() as run:
                await run.load_saga_state(saga_id)

    async def test_a_conflict_of_versions_writes_nothing(self, storage: ISagaStorage) -> None:
        """A context for a version that the saga has no longer fails with SagaConcurrencyError, and all of its run."""
        saga_id, other = await new_saga(storage), await new_saga(storage)
        await storage.update_context(saga_id, CONTEXT, current_version=1)
        with pytest.raises(SagaConcurrencyError):
            async with storage.create_run() as run:
                await write_everything(run, other)
                await run.log_step(saga_id, "Pay", "act", SagaStepStatus.COMPLETED)
                await run.update_context(saga_id, {"paid": True}, current_version=1)
                await run.commit()
        assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, CONTEXT, 2)
        assert await storage.get_step_history(saga_id) == []
        await assert_untouched(storage, other)

    async def test_the_version_counts_in_a_run(self, storage: ISagaStorage) -> None:
        """The second write of a context in a run names the version that the first one made."""
        saga_id = await new_saga(storage)
        async with storage.create_run() as run:
            await run.update_context(saga_id, {"write": 1}, current_version=1)
            await run.update_context(saga_id, {"write": 2}, current_version=2)
            await run.commit()
        assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, {"write": 2}, 3)

    async def test_nothing_is_shared_with_a_run(self, storage: ISagaStorage) -> None:
        """Changing what was handed to a run, or came from it, changes nothing that it commits."""
        saga_id = await new_saga(storage)
        context: dict[str, Any] = {"items": [{"sku": "a"}]}
        async with storage.create_run() as run:
            await run.update_context(saga_id, context)
            context["items"][0]["sku"] = "spoilt"
            (await run.load_saga_state(saga_id))[1]["items"].clear()
            (await run.get_step_history(saga_id)).clear()
            await run.commit()
        context["items"].clear()
        assert (await storage.load_saga_state(saga_id))[1] == {"items": [{"sku": "a"}]}

    async def test_runs_at_once_commit_each_for_itself(self, storage: ISagaStorage) -> None:
        """Runs on different sagas at once do not hinder one another, and every second one is rolled back."""
        sagas = [await new_saga(storage) for _ in range(10)]

        async def write(saga_id: uuid.UUID, *, and_commit: bool) -> None:
            async with storage.create_run() as run:
                await write_everything(run, saga_id)
                await checkpoint()
                if and_commit:
                    await run.commit()

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as writers:
                for number, saga_id in enumerate(sagas):
                    writers.start_soon(lambda s, n: write(s, and_commit=n % 2 == 0), saga_id, number)
        for number, saga_id in enumerate(sagas):
            await (assert_untouched if number % 2 else assert_written)(storage, saga_id)


async def _cancel_by_scope(body: _Body) -> None:
    reached = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body, reached)
        await reached.wait()
        tasks.cancel_scope.cancel()


async def _cancel_on_asyncio(body: _Body) -> None:
    reached = anyio.Event()
    task = asyncio.ensure_future(body(reached))
    await reached.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def _cancel_on_trio(body: _Body) -> None:
    import trio

    reached = anyio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(body, reached)
        await reached.wait()
        nursery.cancel_scope.cancel()
