"""The contract of a saga storage, as tests: what every one keeps to."""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs.exceptions import SagaConcurrencyError
from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.models import StepAction
from cqrs.saga.storage.protocol import ISagaStorage

BOUND = 60.0
"""Seconds after which a storage hangs."""

TICK = 0.02
"""Seconds that any clock can tell apart."""

CONTEXT: dict[str, Any] = {
    "order_id": "o-1",
    "total": 10.25,
    "paid": False,
    "payment_id": None,
    "items": [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 1}],
}
UNICODE = "Grüße, 訂單 🚚 \u200f'\"\\%s {} :name"


async def new_saga(
    storage: ISagaStorage, status: SagaStatus = SagaStatus.RUNNING, name: str = "OrderSaga"
) -> uuid.UUID:
    """A saga in ``status``, at version 1, with ``CONTEXT`` and an empty log."""
    saga_id = uuid.uuid4()
    await storage.create_saga(saga_id, name, CONTEXT)
    if status is not SagaStatus.PENDING:
        await storage.update_status(saga_id, status)
    return saga_id


async def logged_names(storage: ISagaStorage, saga_id: uuid.UUID) -> list[str]:
    """The steps named in a saga's log, in its order."""
    return [entry.step_name for entry in await storage.get_step_history(saga_id)]


class SagaStorageContract:
    """The contract of :class:`~cqrs.saga.storage.ISagaStorage`, runs aside: what any saga storage keeps to.

    Inherit from it in a test module, and provide the fixture ``storage``, which may be async::

        class TestMyStorage(SagaStorageContract):
            @pytest.fixture
            def storage(self) -> MyStorage:
                return MyStorage()

    Each test wants an empty storage of its own. The tests run on the backends that the fixture
    ``anyio_backend`` names, those of anyio's pytest plugin unless it is overridden.
    """

    pytestmark = pytest.mark.anyio

    async def let_time_pass(self, storage: ISagaStorage, seconds: float) -> None:
        """Wait until the storage's clock has moved on. Override it where that clock can be moved by hand."""
        await anyio.sleep(seconds)

    async def test_a_new_saga_is_pending_at_version_one(self, storage: ISagaStorage) -> None:
        """A saga is created with status PENDING, the given context and version 1."""
        saga_id = uuid.uuid4()
        await storage.create_saga(saga_id, "OrderSaga", CONTEXT)
        assert await storage.load_saga_state(saga_id) == (SagaStatus.PENDING, CONTEXT, 1)

    async def test_a_saga_can_be_loaded_for_update(self, storage: ISagaStorage) -> None:
        """Loading for update returns what loading returns, and locks nobody out afterwards."""
        saga_id = await new_saga(storage)
        assert await storage.load_saga_state(saga_id, read_for_update=True) == (SagaStatus.RUNNING, CONTEXT, 1)
        with anyio.fail_after(BOUND):
            await storage.update_status(saga_id, SagaStatus.COMPLETED)

    async def test_an_id_is_given_once(self, storage: ISagaStorage) -> None:
        """A second saga of one id raises ValueError, and leaves the first as it is."""
        saga_id = await new_saga(storage)
        with pytest.raises(ValueError, match=str(saga_id)):
            await storage.create_saga(saga_id, "OtherSaga", {"other": True})
        assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, CONTEXT, 1)

    async def test_a_missing_saga_cannot_be_loaded(self, storage: ISagaStorage) -> None:
        """Loading a saga that is not there raises ValueError."""
        saga_id = uuid.uuid4()
        with pytest.raises(ValueError, match=str(saga_id)):
            await storage.load_saga_state(saga_id)

    @pytest.mark.parametrize("status", list(SagaStatus))
    async def test_each_status_can_be_stored(self, storage: ISagaStorage, status: SagaStatus) -> None:
        """A status comes back as the one that was set; context and version stay."""
        saga_id = await new_saga(storage)
        await storage.update_status(saga_id, status)
        loaded, context, version = await storage.load_saga_state(saga_id)
        assert loaded is status
        assert (context, version) == (CONTEXT, 1)

    async def test_each_write_of_the_context_counts_the_version_up(self, storage: ISagaStorage) -> None:
        """A context replaces the one before it as a whole, and is one version later; the status stays."""
        saga_id = await new_saga(storage)
        await storage.update_context(saga_id, {"first": 1})
        assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, {"first": 1}, 2)
        await storage.update_context(saga_id, {}, current_version=2)
        assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, {}, 3)

    @pytest.mark.parametrize("version", [1, 3])
    async def test_a_write_to_another_version_is_refused(self, storage: ISagaStorage, version: int) -> None:
        """A context written for a version that the saga has not raises SagaConcurrencyError and changes nothing."""
        saga_id = await new_saga(storage)
        await storage.update_context(saga_id, {"mine": True}, current_version=1)
        with pytest.raises(SagaConcurrencyError):
            await storage.update_context(saga_id, {"theirs": True}, current_version=version)
        assert await storage.load_saga_state(saga_id) == (SagaStatus.RUNNING, {"mine": True}, 2)

    async def test_no_update_is_lost_where_writers_name_the_version(self, storage: ISagaStorage) -> None:
        """Of writers at once that read one version, one wins, and the others are told."""
        saga_id = uuid.uuid4()
        await storage.create_saga(saga_id, "OrderSaga", {"count": 0})

        async def count_up() -> None:
            while True:
                _, context, version = await storage.load_saga_state(saga_id)
                await checkpoint()
                try:
                    return await storage.update_context(saga_id, {"count": context["count"] + 1}, version)
                except SagaConcurrencyError:
                    continue

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as writers:
                for _ in range(8):
                    writers.start_soon(count_up)
        assert await storage.load_saga_state(saga_id) == (SagaStatus.PENDING, {"count": 8}, 9)

    async def test_what_is_handed_in_is_not_shared(self, storage: ISagaStorage) -> None:
        """Changing a context after it was handed in changes nothing that is stored, however deep."""
        saga_id = uuid.uuid4()
        context: dict[str, Any] = {"items": [{"sku": "a"}]}
        await storage.create_saga(saga_id, "OrderSaga", context)
        _spoil(context)
        assert (await storage.load_saga_state(saga_id))[1] == {"items": [{"sku": "a"}]}
        context = {"items": [{"sku": "b"}]}
        await storage.update_context(saga_id, context)
        _spoil(context)
        assert (await storage.load_saga_state(saga_id))[1] == {"items": [{"sku": "b"}]}

    async def test_what_is_handed_out_is_not_shared(self, storage: ISagaStorage) -> None:
        """Changing a context or a log that was handed out changes nothing that is stored, however deep."""
        saga_id = uuid.uuid4()
        await storage.create_saga(saga_id, "OrderSaga", {"items": [{"sku": "a"}]})
        await storage.log_step(saga_id, "Pay", "act", SagaStepStatus.STARTED)
        _spoil((await storage.load_saga_state(saga_id))[1])
        (await storage.get_step_history(saga_id)).clear()
        assert (await storage.load_saga_state(saga_id))[1] == {"items": [{"sku": "a"}]}
        assert await logged_names(storage, saga_id) == ["Pay"]

    @pytest.mark.parametrize(
        "context",
        [
            {},
            CONTEXT,
            {UNICODE: UNICODE},
            {"deep": [[[{"deeper": [None, True, -1, 1.5e300, 2**53, ""]}]]]},
            {"large": "x" * 300_000, "long": list(range(10_000))},
        ],
        ids=["empty", "ordinary", "unicode", "nested", "large"],
    )
    async def test_contexts_come_back_as_they_were(self, storage: ISagaStorage, context: dict[str, Any]) -> None:
        """A context of JSON's types comes back equal, whatever is in it."""
        saga_id = await new_saga(storage)
        await storage.update_context(saga_id, context)
        assert (await storage.load_saga_state(saga_id))[1] == context

    @pytest.mark.parametrize("action", ["act", "compensate"])
    async def test_log_entries_say_what_was_logged(self, storage: ISagaStorage, action: StepAction) -> None:
        """An entry comes back with its saga, step, action, status and details, and the time with its zone."""
        saga_id = await new_saga(storage)
        details = (None, "", UNICODE, "x" * 5_000)
        written = [(status, each) for status in SagaStepStatus for each in details]
        for status, each in written:
            await storage.log_step(saga_id, "Pay#2", action, status, each)
        log = await storage.get_step_history(saga_id)
        assert [(entry.status, entry.details) for entry in log] == written
        assert {(entry.saga_id, entry.step_name, entry.action) for entry in log} == {(saga_id, "Pay#2", action)}
        assert all(entry.timestamp.utcoffset() is not None for entry in log)

    async def test_a_log_keeps_the_order_of_its_writes(self, storage: ISagaStorage) -> None:
        """A thousand entries, faster than a clock may tell them apart, come back in the order of their writes."""
        saga_id = await new_saga(storage)
        names = [f"Step{number}" for number in range(1_000)]
        for name in names:
            await storage.log_step(saga_id, name, "act", SagaStepStatus.STARTED)
        assert await logged_names(storage, saga_id) == names

    async def test_each_saga_has_a_log_of_its_own(self, storage: ISagaStorage) -> None:
        """A log holds the entries of its saga, and is empty for a saga that has none."""
        first, second, silent = [await new_saga(storage) for _ in range(3)]
        await storage.log_step(first, "Pay", "act", SagaStepStatus.STARTED)
        await storage.log_step(second, "Ship", "act", SagaStepStatus.STARTED)
        assert [await logged_names(storage, each) for each in (first, second, silent)] == [["Pay"], ["Ship"], []]

    async def test_recovery_gets_what_was_begun_and_not_ended(self, storage: ISagaStorage) -> None:
        """Sagas going forward and sagas being rolled back are recovered; COMPLETED and FAILED ones are not."""
        unended = {await new_saga(storage, status) for status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING)}
        ended = {await new_saga(storage, status) for status in (SagaStatus.COMPLETED, SagaStatus.FAILED)}
        found = await storage.get_sagas_for_recovery(10)
        assert unended <= set(found)
        assert not ended & set(found)
        assert len(found) == len(set(found))

    async def test_recovery_gets_those_first_that_wait_longest(self, storage: ISagaStorage) -> None:
        """Recovery gets as many as it asks for, those first that were changed the longest time ago."""
        sagas = await self._new_sagas_one_after_another(storage, 4)
        await storage.update_status(sagas[0], SagaStatus.COMPENSATING)
        await self.let_time_pass(storage, TICK)
        await storage.update_context(sagas[1], {"changed": True})
        order = [sagas[2], sagas[3], sagas[0], sagas[1]]
        assert await storage.get_sagas_for_recovery(10) == order
        assert await storage.get_sagas_for_recovery(3) == order[:3]

    async def test_recovery_can_ask_for_one_name(self, storage: ISagaStorage) -> None:
        """With a name, recovery gets the sagas of this name alone, and as many as it asks for."""
        for _ in range(3):
            await new_saga(storage, name="OrderSaga")
        refund = await new_saga(storage, name="RefundSaga")
        assert await storage.get_sagas_for_recovery(1, saga_name="RefundSaga") == [refund]
        assert await storage.get_sagas_for_recovery(1, saga_name="Refund") == []

    async def test_recovery_can_leave_fresh_sagas_alone(self, storage: ISagaStorage) -> None:
        """With ``stale_after_seconds``, recovery gets only what nobody has changed for so long."""
        stale, changed = await new_saga(storage), await new_saga(storage)
        assert await storage.get_sagas_for_recovery(10, stale_after_seconds=1) == []
        await self.let_time_pass(storage, 1.1)
        await storage.update_context(changed, {"changed": True})
        assert await storage.get_sagas_for_recovery(10, stale_after_seconds=1) == [stale]
        assert set(await storage.get_sagas_for_recovery(10)) == {stale, changed}

    async def test_recovery_leaves_those_alone_that_failed_too_often(self, storage: ISagaStorage) -> None:
        """A saga whose recovery failed so many times is left alone, until its count is set back."""
        saga_id = await new_saga(storage)
        await storage.increment_recovery_attempts(saga_id)
        assert await storage.get_sagas_for_recovery(10, max_recovery_attempts=2) == [saga_id]
        await storage.increment_recovery_attempts(saga_id)
        assert await storage.get_sagas_for_recovery(10, max_recovery_attempts=2) == []
        assert await storage.get_sagas_for_recovery(10, max_recovery_attempts=3) == [saga_id]
        await storage.set_recovery_attempts(saga_id, 0)
        assert await storage.get_sagas_for_recovery(10, max_recovery_attempts=1) == [saga_id]

    async def test_five_failed_recoveries_are_enough_by_default(self, storage: ISagaStorage) -> None:
        """Unless told otherwise, recovery leaves a saga alone after the fifth failure."""
        saga_id = await new_saga(storage)
        await storage.set_recovery_attempts(saga_id, 4)
        assert await storage.get_sagas_for_recovery(10) == [saga_id]
        await storage.set_recovery_attempts(saga_id, 5)
        assert await storage.get_sagas_for_recovery(10) == []

    async def test_a_failed_recovery_can_set_the_status(self, storage: ISagaStorage) -> None:
        """Counting a failed recovery sets the status where one is given, and leaves it otherwise."""
        saga_id = await new_saga(storage)
        await storage.increment_recovery_attempts(saga_id)
        assert (await storage.load_saga_state(saga_id))[0] is SagaStatus.RUNNING
        await storage.increment_recovery_attempts(saga_id, SagaStatus.COMPENSATING)
        assert await storage.load_saga_state(saga_id) == (SagaStatus.COMPENSATING, CONTEXT, 1)

    async def _new_sagas_one_after_another(self, storage: ISagaStorage, number: int) -> Sequence[uuid.UUID]:
        sagas: list[uuid.UUID] = []
        for _ in range(number):
            sagas.append(await new_saga(storage))
            await self.let_time_pass(storage, TICK)
        return sagas


def _spoil(context: dict[str, Any]) -> None:
    context["items"][0]["sku"] = "spoilt"
    context["items"].append("spoilt")
    context["spoilt"] = True
