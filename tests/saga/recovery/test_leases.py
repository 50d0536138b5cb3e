"""Who runs a saga holds a lease on it: nobody else does meanwhile, and who lost it does nothing more."""

from __future__ import annotations

import contextlib
import time
import uuid
from datetime import timedelta
from typing import Any

import anyio
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
    mediator_of,
    saga_of,
    status_of,
    wait,
)

from cqrs import DomainEvent, EventHandler, EventMap, PlainContainer
from cqrs.exceptions import SagaLeaseLostError, SagaLockedError, SagaRolledBackError
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.recovery import recover_saga
from cqrs.saga.recovery_worker import SagaRecoveryWorker
from cqrs.saga.storage import MemorySagaStorage, SagaStatus

LEASE = 30.0
DONE = "act A started, act A completed, act B started, act B completed"


def transaction_of(saga: Any, storage: Any, saga_id: uuid.UUID, **options: Any) -> Any:
    return saga().transaction(
        OrderContext(str(saga_id)), PlainContainer(), storage, saga_id, 1, 0.0, lease_duration=LEASE, **options
    )


@pytest.mark.parametrize("number", [2, 10])
async def test_workers_share_a_storage(bench: Bench, storage: Any, number: int) -> None:
    """However many workers recover, no step is called twice at once, and each saga is brought to its end once."""
    a, b, c, d = bench.steps("ABCD")
    saga = saga_of(a, Parallel(b, c), d)
    logs = ["", "act A started", "act A started, act A completed", DONE]
    forward = {await left_by_a_crash(storage, log.split(", ") if log else ()) for log in logs * 5}
    backward = {await left_by_a_crash(storage, DONE, status=SagaStatus.COMPENSATING) for _ in range(10)}
    claimed: list[int] = []

    async def work() -> None:
        worker = SagaRecoveryWorker(mediator_of(saga, storage), max_concurrent_sagas=3)
        while found := await worker.recover_once():
            claimed.append(found)
            await checkpoint()

    with anyio.fail_after(6 * BOUND):
        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(work)
    assert sum(claimed) == len(forward) + len(backward)
    assert {await status_of(storage, saga_id) for saga_id in forward} == {SagaStatus.COMPLETED}
    assert {await status_of(storage, saga_id) for saga_id in backward} == {SagaStatus.FAILED}
    assert set(bench.ended.values()) == {1}
    assert sum(what == "act D" for _, what in bench.ended) == len(forward)


async def test_a_saga_is_begun_once(bench: Bench, storage: Any) -> None:
    """Of tasks that begin one saga at once, one runs it, and the others get SagaLockedError."""
    saga, saga_id, locked = saga_of(*bench.steps("AB")), uuid.uuid4(), list[SagaLockedError]()

    async def run() -> None:
        try:
            async with transaction_of(saga, storage, saga_id) as transaction:
                [result async for result in transaction]
        except SagaLockedError as error:
            locked.append(error)

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(run)
    assert bench.calls == ["act A", "act B"]
    assert len(locked) == 4


class Pause:
    """Holds the first of two workers up in a step, until its lease has ended and the other one is done."""

    def __init__(self, storage: Any, then_raises: bool = False) -> None:
        self.storage = storage
        self.then_raises = then_raises
        self.has_begun = anyio.Event()
        self.is_over = anyio.Event()

    async def __call__(self, context: Any) -> None:
        if self.has_begun.is_set():
            return
        self.has_begun.set()
        await self.is_over.wait()
        if self.then_raises:
            raise Boom

    async def while_held_up(self, other: SagaRecoveryWorker) -> int:
        await self.has_begun.wait()
        assert await other.recover_once() == 0
        wait(self.storage, LEASE + 1)
        recovered = await other.recover_once()
        self.is_over.set()
        return recovered


@pytest.mark.parametrize("raises", [False, True])
async def test_a_paused_worker_is_fenced(bench: Bench, storage: Any, raises: bool) -> None:
    """Its lease ended in a step, and another worker has finished the saga: it writes and compensates nothing."""
    saga = saga_of(*bench.steps("ABC"))
    saga_id = await left_by_a_crash(storage, "act A started, act A completed")
    first, second = (SagaRecoveryWorker(mediator_of(saga, storage)) for _ in range(2))
    bench.on["act B"] = pause = Pause(storage, raises)
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.recover_once)
            assert await pause.while_held_up(second) == 1
    assert bench.calls == ["act B", "act B", "act C"]
    bench.overlaps.clear()
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED
    assert (await log_of(storage, saga_id))[-1] == "act C completed"
    assert (await storage.load_saga(saga_id)).parked_reason is None


async def test_a_worker_that_was_paused_in_a_compensation_is_fenced(bench: Bench, storage: Any) -> None:
    """Another worker has rolled the saga back meanwhile: the first one does not go on compensating."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, DONE, status=SagaStatus.COMPENSATING)
    first, second = (SagaRecoveryWorker(mediator_of(saga, storage)) for _ in range(2))
    bench.on["compensate B"] = pause = Pause(storage)
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.recover_once)
            assert await pause.while_held_up(second) == 1
    assert bench.calls == ["compensate B", "compensate B", "compensate A"]
    bench.overlaps.clear()
    assert await status_of(storage, saga_id) is SagaStatus.FAILED
    assert (await log_of(storage, saga_id))[-1] == "compensate A completed"


@pytest.mark.parametrize("is_entered", [False, True])
@pytest.mark.parametrize("how", ["transaction", "pull", "push", "by hand"])
async def test_who_lost_a_saga_is_told(bench: Bench, storage: Any, how: str, is_entered: bool) -> None:
    """Whoever ran it gets SagaLeaseLostError from the step in which the lease was lost, and the saga is untouched."""
    saga, saga_id = saga_of(*bench.steps("ABC")), uuid.uuid4()
    mediator = mediator_of(saga, storage)
    bench.on["act B"] = pause = Pause(storage)

    async def run() -> None:
        if how == "transaction":
            async with transaction_of(saga, storage, saga_id) as transaction:
                [result async for result in transaction]
        elif how == "pull":
            async with contextlib.aclosing(mediator.stream(OrderContext(str(saga_id)), saga_id)) as results:
                [result async for result in results]
        elif how == "push":
            async with mediator.stream(OrderContext(str(saga_id)), saga_id) as results:
                [result async for result in results]
        else:
            written = {"key": str(saga_id), "done": []}
            await storage.create_saga(saga_id, "OrderSaga", written)
            await recover_saga(saga(), saga_id, OrderContext, PlainContainer(), storage)

    async def is_told() -> None:
        with pytest.raises(SagaLeaseLostError) as caught:
            await run()
        assert caught.value.saga_id == saga_id

    with anyio.fail_after(BOUND):
        async with mediator if is_entered else contextlib.nullcontext(), anyio.create_task_group() as tasks:
            tasks.start_soon(is_told)
            assert await pause.while_held_up(SagaRecoveryWorker(mediator_of(saga, storage))) == 1
    assert bench.calls == ["act A", "act B", "act B", "act C"]
    bench.overlaps.clear()
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_pause_does_not_matter_where_nobody_took_over(bench: Bench, storage: Any) -> None:
    """A lease that has ended is still good for who had it last."""
    saga, saga_id = saga_of(*bench.steps("AB")), uuid.uuid4()

    async def pause(context: Any) -> None:
        wait(storage, 10 * LEASE)

    bench.on = {"act A": pause, "act B": pause}
    async with transaction_of(saga, storage, saga_id) as transaction:
        [result async for result in transaction]
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_running_saga_is_not_claimed(bench: Bench, storage: Any) -> None:
    """A saga that a mediator runs is left alone by workers, in a step, between two, and in a compensation."""
    saga, saga_id = saga_of(*bench.steps("AB")), uuid.uuid4()
    worker = SagaRecoveryWorker(mediator_of(saga, storage))
    claimed: list[int] = []

    async def look(context: Any = None) -> None:
        claimed.append(await worker.recover_once())

    async def fail(context: Any) -> None:
        await look()
        raise Boom

    bench.on = {"act A": look, "act B": fail, "compensate A": look}
    with pytest.raises(Boom):  # noqa: PT012
        async for _ in mediator_of(saga, storage).stream(OrderContext(), saga_id):
            await look()
    assert claimed == [0, 0, 0, 0]
    assert await status_of(storage, saga_id) is SagaStatus.FAILED


@pytest.mark.parametrize("number", [1, 2])
async def test_a_saga_that_was_left_is_claimed_at_once(bench: Bench, storage: Any, number: int) -> None:
    """A stream that is left by ``break`` and closed gives the saga back: a worker has it without waiting."""
    saga, saga_id = saga_of(*bench.steps("ABC")), uuid.uuid4()
    async with contextlib.aclosing(mediator_of(saga, storage).stream(OrderContext(), saga_id)) as results:
        for _ in range(number):
            await results.__anext__()
    assert await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once() == 1
    assert bench.calls == ["act A", "act B", "act C"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts) == (SagaStatus.COMPLETED, 0)


async def test_a_machine_that_was_suspended_notices_before_acting(
    bench: Bench, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time has gone on, the event loop's clock has not, and a worker took over: the next step does not act."""
    saga, saga_id = saga_of(*bench.steps("AB")), uuid.uuid4()
    stream = mediator_of(saga, storage).stream(OrderContext(), saga_id)
    await stream.__anext__()
    wait(storage, LEASE + 1)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + LEASE + 1)
    assert await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once() == 1
    with pytest.raises(SagaLeaseLostError):
        await stream.__anext__()
    assert bench.calls == ["act A", "act B"]


class Tick(DomainEvent, frozen=True):
    pass


class FlakyRenewals(MemorySagaStorage):
    """Fails as often as it is told when leases are renewed."""

    renewals = 0
    fails = staticmethod(lambda nth: False)

    async def renew_lease(self, lease: Any) -> None:
        self.renewals += 1
        if self.fails(self.renewals):
            raise OSError("the network is down")
        await super().renew_lease(lease)


class TestOnMockClock:
    """Time passes when nothing else does, in the storage as well."""

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        testing = pytest.importorskip("trio.testing")
        return "trio", {"clock": testing.MockClock(autojump_threshold=0)}

    @pytest.fixture
    def storage(self) -> FlakyRenewals:
        return FlakyRenewals(clock=lambda: NOON + timedelta(seconds=anyio.current_time()))

    @contextlib.asynccontextmanager
    async def someone_looking(self, saga: Any, storage: Any, **options: Any) -> Any:
        """Another worker that looks for sagas each second; gives how many it found."""
        found: list[int] = []
        worker = SagaRecoveryWorker(mediator_of(saga, storage, options.pop("event_map", None)), **options)

        async def look() -> None:
            while True:
                await anyio.sleep(1)
                found.append(await worker.recover_once())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            yield found
            tasks.cancel_scope.cancel()

    @pytest.mark.parametrize("how", ["stream", "entered", "worker"])
    async def test_a_long_act_is_held(self, bench: Bench, storage: Any, how: str) -> None:
        """A step that takes ten times as long as the lease is done once, and nobody else gets the saga meanwhile."""
        saga = saga_of(*bench.steps("AB"))
        mediator = mediator_of(saga, storage)
        bench.on["act B"] = lambda _: anyio.sleep(10 * LEASE)
        async with self.someone_looking(saga, storage) as found:
            if how == "worker":
                await left_by_a_crash(storage, "act A started, act A completed")
                await SagaRecoveryWorker(mediator).recover_once()
            else:
                async with mediator if how == "entered" else contextlib.nullcontext():
                    [result async for result in mediator.stream(OrderContext())]
        assert bench.ended["o-1", "act B"] + sum(key != "o-1" for key, _ in bench.ended) == 1
        assert len(found) >= 299
        assert sum(found) == 0

    @pytest.mark.parametrize("how", ["stream", "entered", "worker"])
    async def test_a_long_compensation_is_held(self, bench: Bench, storage: Any, how: str) -> None:
        """So is a compensation."""
        saga = saga_of(*bench.steps("AB"))
        mediator = mediator_of(saga, storage, compensation_timeout=1000)

        async def fail(context: Any) -> None:
            raise Boom

        bench.on = {"compensate A": lambda _: anyio.sleep(10 * LEASE), "act B": fail}
        async with self.someone_looking(saga, storage) as found:
            if how == "worker":
                await left_by_a_crash(storage, "act A started, act A completed", status=SagaStatus.COMPENSATING)
                await SagaRecoveryWorker(mediator).recover_once()
            else:
                async with mediator if how == "entered" else contextlib.nullcontext():
                    with pytest.raises(Boom):
                        [result async for result in mediator.stream(OrderContext())]
        assert bench.calls.count("compensate A") == 1
        assert len(found) >= 299
        assert sum(found) == 0

    async def test_a_storage_that_fails_now_and_then_does_not_matter(self, bench: Bench, storage: Any) -> None:
        """A renewal that failed is made up for by the next one, before the lease has ended."""
        saga = saga_of(*bench.steps("AB"))
        storage.fails = lambda nth: nth % 2 == 0
        bench.on["act A"] = lambda _: anyio.sleep(10 * LEASE)
        async with self.someone_looking(saga, storage) as found:
            [result async for result in mediator_of(saga, storage).stream(OrderContext())]
        assert storage.renewals >= 20
        assert (bench.calls, sum(found)) == (["act A", "act B"], 0)

    async def test_a_heartbeat_that_finds_the_lease_lost_ends_the_act(self, bench: Bench, storage: Any) -> None:
        """The storage was not reachable for longer than a lease, and somebody else took over: the act is cancelled."""
        saga, saga_id = saga_of(*bench.steps("AB")), uuid.uuid4()
        storage.fails = lambda nth: nth < 4
        bench.on["act A"] = lambda _: anyio.sleep(2 * LEASE)
        async with self.someone_looking(saga, storage):
            with pytest.raises(SagaLeaseLostError):
                async with transaction_of(saga, storage, saga_id) as transaction:
                    await transaction.__anext__()
        assert anyio.current_time() < 2 * LEASE
        assert bench.ended[str(saga_id), "act A"] == 0
        bench.overlaps.clear()
        assert await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once() == 1
        assert await status_of(storage, saga_id) is SagaStatus.COMPLETED

    @pytest.mark.parametrize("how", ["transaction", "pull"])
    async def test_a_consumer_that_is_too_slow_notices_before_acting(
        self, bench: Bench, storage: Any, how: str
    ) -> None:
        """It held a result for longer than the lease, and a worker went on: its next step does not act."""
        saga, saga_id = saga_of(*bench.steps("ABC")), uuid.uuid4()
        mediator = mediator_of(saga, storage)

        async def consume(results: Any) -> None:
            await results.__anext__()
            await anyio.sleep(2 * LEASE)
            with pytest.raises(SagaLeaseLostError):
                await results.__anext__()

        async with self.someone_looking(saga, storage) as found:
            if how == "transaction":
                async with transaction_of(saga, storage, saga_id) as transaction:
                    await consume(transaction)
            else:
                async with contextlib.aclosing(mediator.stream(OrderContext(), saga_id)) as results:
                    await consume(results)
        assert sum(found) == 1
        assert bench.calls == ["act A", "act B", "act C"]

    async def test_a_slow_consumer_goes_on_where_nobody_took_over(self, bench: Bench, storage: Any) -> None:
        """It held a result for longer than the lease, and nobody was there: it goes on, under its lease again."""
        saga = saga_of(*bench.steps("AB"))
        bench.on["act B"] = lambda _: anyio.sleep(LEASE - 1)
        stream = mediator_of(saga, storage).stream(OrderContext())
        await stream.__anext__()
        await anyio.sleep(2 * LEASE)
        async with self.someone_looking(saga, storage) as found:
            await stream.__anext__()
        assert sum(found) == 0
        await stream.aclose()

    @pytest.mark.parametrize("how", ["stream", "entered", "worker"])
    async def test_slow_event_handlers_are_held(self, bench: Bench, storage: Any, how: str) -> None:
        """While the events of a step are handled, however long that takes, nobody else gets the saga."""

        class Handler(EventHandler[Tick]):
            async def handle(self, event: Tick) -> None:
                await anyio.sleep(10 * LEASE)

        events = EventMap()
        events.bind(Tick, Handler)
        bench.events["B"] = [Tick()]
        saga = saga_of(*bench.steps("ABC"))
        mediator = mediator_of(saga, storage, events)
        async with self.someone_looking(saga, storage) as found:
            if how == "worker":
                await left_by_a_crash(storage, "act A started, act A completed")
                await SagaRecoveryWorker(mediator).recover_once()
            else:
                async with mediator if how == "entered" else contextlib.nullcontext():
                    [result async for result in mediator.stream(OrderContext())]
        assert bench.calls[-2:] == ["act B", "act C"]
        assert len(found) >= 299
        assert sum(found) == 0

    async def test_a_worker_with_shorter_leases_than_its_mediator(self, bench: Bench, storage: Any) -> None:
        """A claimed lease is renewed as often as it takes: no other worker gets the saga while a step acts."""
        saga = saga_of(*bench.steps("AB"))
        bench.on["act B"] = lambda _: anyio.sleep(60)
        await left_by_a_crash(storage, "act A started, act A completed")
        try:
            async with self.someone_looking(saga, storage, lease_duration=5) as found:
                await SagaRecoveryWorker(mediator_of(saga, storage), lease_duration=5).recover_once()
        finally:
            overlaps, bench.overlaps = bench.overlaps, []
        assert overlaps == []
        assert sum(found) == 0

    async def test_a_saga_behind_its_pivot_is_held_between_attempts(self, bench: Bench, storage: Any) -> None:
        """While a step behind the pivot waits for its next attempt, the saga stays with its runner."""
        a, b = bench.steps("AB")
        saga, attempts = saga_of(Pivot(a), b), 0

        async def fail_at_first(context: Any) -> None:
            nonlocal attempts
            attempts += 1
            await anyio.sleep(LEASE)
            if attempts < 4:
                raise Boom

        bench.on["act B"] = fail_at_first
        async with self.someone_looking(saga, storage) as found:
            [result async for result in mediator_of(saga, storage).stream(OrderContext())]
        assert (attempts, sum(found)) == (4, 0)

    async def test_a_rolled_back_saga_waits_for_no_lease(self, bench: Bench, storage: Any) -> None:
        """When a rollback runs out of its budget, the lease is given back: a worker goes on with it at once."""
        saga, saga_id = saga_of(*bench.steps("AB")), uuid.uuid4()

        async def fail(context: Any) -> None:
            raise Boom

        bench.on = {"act B": fail, "compensate A": lambda _: anyio.sleep_forever()}
        with pytest.raises(Boom):
            [r async for r in mediator_of(saga, storage, compensation_timeout=7).stream(OrderContext(), saga_id)]
        assert anyio.current_time() == pytest.approx(7)
        assert await status_of(storage, saga_id) is SagaStatus.COMPENSATING
        del bench.on["compensate A"]
        with pytest.raises(SagaRolledBackError):
            await recover_saga(saga(), saga_id, OrderContext, PlainContainer(), storage)
        assert await status_of(storage, saga_id) is SagaStatus.FAILED
