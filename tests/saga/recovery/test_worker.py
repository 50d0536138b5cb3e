"""A worker looks for sagas that nobody runs any more, and brings them to their end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import types
import uuid
from collections.abc import AsyncIterator
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
    MemoryOnTestTime,
    OrderContext,
    Unleased,
    left_by_a_crash,
    log_of,
    mediator_of,
    saga_of,
    status_of,
    wait,
)

from cqrs import DomainEvent, EventHandler, EventMap, PlainContainer, SagaMap
from cqrs.exceptions import ConfigurationError, InvalidOptionError
from cqrs.retry import RetryPolicy
from cqrs.saga.fallback import Fallback
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.models import SagaContext
from cqrs.saga.pivot import Pivot
from cqrs.saga.recovery import recover_saga
from cqrs.saga.recovery_worker import SagaRecoveryWorker
from cqrs.saga.saga import Saga
from cqrs.saga.storage import MemorySagaStorage, SagaStatus

LEASE = 30.0
A_DONE = "act A started, act A completed"
ONCE = RetryPolicy(attempts=1)


async def fail(context: Any) -> None:
    raise Boom


def never_succeeding(bench: Bench) -> Any:
    """A saga whose recoveries fail: its last step is behind a pivot, and raises."""
    bench.on["act B"] = fail
    return saga_of(Pivot(bench.step("A")), bench.step("B", retry=ONCE))


class Tick(DomainEvent, frozen=True):
    what: str


async def test_it_recovers_what_is_due(bench: Bench, storage: Any) -> None:
    """One look claims what was left, forward, backward, pending and not fully undone, and ends each of them."""
    saga = saga_of(*bench.steps("AB"))
    forward = [await left_by_a_crash(storage, A_DONE), await left_by_a_crash(storage, status=SagaStatus.PENDING)]
    backward = [
        await left_by_a_crash(storage, A_DONE, status=status)
        for status in (SagaStatus.COMPENSATING, SagaStatus.COMPENSATION_FAILED)
    ]
    ended = [await left_by_a_crash(storage, status=status) for status in (SagaStatus.COMPLETED, SagaStatus.FAILED)]
    other = await left_by_a_crash(storage, name="RefundSaga")
    worker = SagaRecoveryWorker(mediator_of(saga, storage))
    assert await worker.recover_once() == 4
    assert await worker.recover_once() == 0
    assert [await status_of(storage, saga_id) for saga_id in forward] == [SagaStatus.COMPLETED] * 2
    assert [await status_of(storage, saga_id) for saga_id in backward] == [SagaStatus.FAILED] * 2
    assert sorted(bench.calls) == ["act A", "act B", "act B", "compensate A", "compensate A"]
    assert (await storage.load_saga(other)).lease_version == 0
    assert {(await storage.load_saga(saga_id)).lease_version for saga_id in ended} == {0}


async def test_it_takes_no_more_than_it_has_slots(bench: Bench, storage: Any) -> None:
    """It claims as many as it may recover at once, and leaves the others to other workers."""
    saga = saga_of(*bench.steps("A"))
    for _ in range(5):
        await left_by_a_crash(storage)
    at_once: list[int] = []

    async def count(context: Any) -> None:
        at_once.append(len(bench.at_work))
        await anyio.wait_all_tasks_blocked()

    bench.on["act A"] = count
    worker = SagaRecoveryWorker(mediator_of(saga, storage), max_concurrent_sagas=2)
    assert [await worker.recover_once() for _ in range(4)] == [2, 2, 1, 0]
    assert max(at_once) == 2


async def test_one_saga_that_fails_does_not_touch_the_others(bench: Bench, storage: Any) -> None:
    """What a saga raises goes to the log: those that are recovered beside it are."""
    saga = saga_of(*bench.steps("AB"))
    broken = await left_by_a_crash(storage, context={"done": "not a list"})
    renamed = await left_by_a_crash(storage, "act X started")
    good = [await left_by_a_crash(storage, A_DONE) for _ in range(3)]
    assert await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once() == 5
    assert {await status_of(storage, saga_id) for saga_id in good} == {SagaStatus.COMPLETED}
    for saga_id in (broken, renamed):
        record = await storage.load_saga(saga_id)
        assert (record.status, record.recovery_attempts, record.locked_by) == (SagaStatus.RUNNING, 1, None)
        assert record.available_at == NOON + timedelta(seconds=1)


async def test_events_of_recovered_steps_are_published(bench: Bench, storage: Any) -> None:
    """The events of the steps that it does are handled, each once, those of steps that were done before are not."""
    seen: list[str] = []

    class Handler(EventHandler[Tick]):
        async def handle(self, event: Tick) -> None:
            seen.append(event.what)

    events = EventMap()
    events.bind(Tick, Handler)
    bench.events = {name: [Tick(what=name)] for name in "ABC"}
    await left_by_a_crash(storage, A_DONE)
    await SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("ABC")), storage, events)).recover_once()
    assert seen == ["B", "C"]


async def test_an_event_handler_that_fails_rolls_back(bench: Bench, storage: Any) -> None:
    """As in a stream, a failing handler rolls the saga back, and the worker goes on."""

    class Handler(EventHandler[Tick]):
        async def handle(self, event: Tick) -> None:
            raise Boom

    events = EventMap()
    events.bind(Tick, Handler)
    bench.events["B"] = [Tick(what="B")]
    saga_id = await left_by_a_crash(storage, A_DONE)
    saga = saga_of(*bench.steps("ABC"))
    assert await SagaRecoveryWorker(mediator_of(saga, storage, events)).recover_once() == 1
    assert bench.calls == ["act B", "compensate B", "compensate A"]
    assert await status_of(storage, saga_id) is SagaStatus.FAILED


async def test_it_parks_what_keeps_failing(bench: Bench, storage: Any) -> None:
    """After so many failed recoveries a saga is parked and listed; unparked, when its trouble is over, it is ended."""
    saga = never_succeeding(bench)
    saga_id = await left_by_a_crash(storage, A_DONE)
    worker = SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=3, backoff=1)
    for _ in range(3):
        assert await worker.recover_once() == 1
        wait(storage, 60)
    assert await worker.recover_once() == 0
    [parked] = await storage.get_parked_sagas(saga_name="OrderSaga")
    assert (parked.saga_id, parked.status, parked.locked_by) == (saga_id, SagaStatus.RUNNING, None)
    assert parked.parked_reason == "recovery failed 3 times: Boom()"
    assert bench.calls == ["act B"] * 3
    del bench.on["act B"]
    await storage.unpark_saga(saga_id)
    assert await worker.recover_once() == 1
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED
    assert await storage.get_parked_sagas() == []


async def test_it_parks_what_cannot_be_compensated(bench: Bench, storage: Any) -> None:
    """So is a saga whose compensation goes on failing: it stays COMPENSATION_FAILED."""
    bench.on["compensate A"] = fail
    saga_id = await left_by_a_crash(storage, A_DONE, status=SagaStatus.COMPENSATING)
    mediator = mediator_of(saga_of(*bench.steps("A")), storage, compensation_retry_count=1)
    worker = SagaRecoveryWorker(mediator, max_recovery_attempts=2)
    assert await worker.recover_once() == 1
    wait(storage, 60)
    assert await worker.recover_once() == 1
    [parked] = await storage.get_parked_sagas()
    assert (parked.saga_id, parked.status) == (saga_id, SagaStatus.COMPENSATION_FAILED)


async def test_a_rollback_is_no_failed_recovery(bench: Bench, storage: Any) -> None:
    """With one attempt alone, a saga that is rolled back by a step's failure ends FAILED, not parked."""
    bench.on["act B"] = fail
    saga_id = await left_by_a_crash(storage, A_DONE)
    worker = SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("AB")), storage), max_recovery_attempts=1)
    assert await worker.recover_once() == 1
    assert await status_of(storage, saga_id) is SagaStatus.FAILED
    assert await storage.get_parked_sagas() == []


async def test_a_step_that_waits_for_somebody_is_parked_at_once(bench: Bench, storage: Any) -> None:
    """A saga with an unknown step that says ``"park"`` is parked by its first recovery."""
    saga = saga_of(bench.step("A", on_unknown="park"))
    await left_by_a_crash(storage, "act A started")
    worker = SagaRecoveryWorker(mediator_of(saga, storage))
    assert [await worker.recover_once() for _ in range(2)] == [1, 0]
    [parked] = await storage.get_parked_sagas()
    assert (parked.parked_reason, bench.calls) == ("nobody knows whether A has acted", [])


async def crash_in(worker_storage: Any, saga: Any, bench: Bench, times: int, attempts: int) -> None:
    """Workers that claim what is due and die of it, one after the other, each when the lease of the last has ended.

    The first one has the saga's first lease, and is not counted.
    """
    for _ in range(times):
        leases = await worker_storage.claim_sagas("dying", LEASE, 10, max_recovery_attempts=attempts)
        assert len(leases) == 1
        wait(worker_storage, LEASE + 1)


async def test_a_saga_that_kills_its_runners_is_parked(bench: Bench, storage: Any) -> None:
    """A saga whose runners die again and again, without a word, is parked by the next one, which does not touch it."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, A_DONE)
    await crash_in(storage, saga, bench, 4, attempts=3)
    worker = SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=3)
    assert await worker.recover_once() == 1
    [parked] = await storage.get_parked_sagas()
    assert parked.saga_id == saga_id
    assert "recovery failed 3 times, or ended without a word" in str(parked.parked_reason)
    assert bench.calls == []
    await storage.unpark_saga(saga_id)
    assert await worker.recover_once() == 1
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


async def test_a_runner_that_died_once_costs_one_attempt(bench: Bench, storage: Any) -> None:
    """A process that died once with a saga is counted, and the saga is recovered all the same."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, A_DONE)
    await crash_in(storage, saga, bench, 2, attempts=3)
    assert await SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=3).recover_once() == 1
    record = await storage.load_saga(saga_id)
    assert (record.status, record.recovery_attempts) == (SagaStatus.COMPLETED, 1)


async def test_who_dies_before_parking_does_not_hide_the_saga(bench: Bench, storage: Any) -> None:
    """The worker that was to park a saga died before it could: the saga is parked by the next one."""
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, A_DONE)
    await crash_in(storage, saga, bench, 4, attempts=3)
    await SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=3).recover_once()
    assert [record.saga_id for record in await storage.get_parked_sagas()] == [saga_id]


async def test_what_failed_by_hand_is_not_hidden(bench: Bench, storage: Any) -> None:
    """A saga that failed to be recovered by hand as often as a worker allows is recovered, or parked by it."""
    saga = never_succeeding(bench)
    saga_id = await left_by_a_crash(storage, A_DONE)
    for _ in range(3):
        with pytest.raises(Boom):
            await recover_saga(saga(), saga_id, OrderContext, PlainContainer(), storage)
    await SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=3).recover_once()
    assert [record.saga_id for record in await storage.get_parked_sagas()] == [saga_id]


async def test_there_may_be_very_many_attempts(bench: Bench, storage: Any) -> None:
    """A saga that is never to be given up backs off for at most ``max_backoff``, however often it has failed."""
    saga = never_succeeding(bench)
    saga_id = await left_by_a_crash(storage, A_DONE)
    await storage.set_recovery_attempts(saga_id, 2000)
    worker = SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=10**6, max_backoff=60)
    assert await worker.recover_once() == 1
    assert (await storage.load_saga(saga_id)).available_at == NOON + timedelta(seconds=60)


class Unreliable(MemoryOnTestTime):
    """Fails in the methods that ``fails`` names; suspends for ever in those that ``hangs`` names."""

    def __init__(self, *fails: str, hangs: str = "") -> None:
        super().__init__()
        self.fails = set(fails)
        self.hangs = hangs
        self.is_asked = anyio.Event()

    async def _may_fail(self, method: str) -> None:
        if method in self.fails:
            raise OSError(f"{method}: the network is down")
        if method == self.hangs:
            self.is_asked.set()
            await anyio.sleep_forever()

    async def claim_sagas(self, *args: Any, **kwargs: Any) -> Any:
        await self._may_fail("claim_sagas")
        leases = await super().claim_sagas(*args, **kwargs)
        await self._may_fail("claimed")
        return leases

    async def load_saga(self, saga_id: Any) -> Any:
        await self._may_fail("load_saga")
        return await super().load_saga(saga_id)

    async def get_step_history(self, saga_id: Any) -> Any:
        await self._may_fail("get_step_history")
        return await super().get_step_history(saga_id)


@pytest.mark.parametrize("method", ["claim_sagas", "load_saga", "get_step_history"])
async def test_a_storage_that_fails_does_not_end_it(bench: Bench, method: str) -> None:
    """The worker outlives errors of the storage, and recovers the saga when they and the lease have ended."""
    storage = Unreliable(method)
    saga_id = await left_by_a_crash(storage, A_DONE)
    worker = SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("AB")), storage), poll_interval=0.001)
    async with running(worker):
        for _ in range(20):
            await anyio.sleep(0.001)
        assert bench.calls == []
        storage.fails.clear()
        wait(storage, LEASE + 1)
        with anyio.fail_after(BOUND):
            while (await storage.load_saga_state(saga_id))[0] is not SagaStatus.COMPLETED:
                await anyio.sleep(0.001)
    assert bench.calls == ["act B"]


class FailsOnce(MemoryOnTestTime):
    """The first run in which a compensation is logged cannot be committed."""

    has_failed = False

    def create_run(self, lease: Any = None) -> Any:
        storage, run = self, super().create_run(lease)

        class Run:
            async def __aenter__(self) -> Any:
                return self

            async def __aexit__(self, *exc_info: object) -> None:
                await run.__aexit__(*exc_info)

            def __getattr__(self, name: str) -> Any:
                return getattr(run, name)

            async def log_step(self, saga_id: Any, name: str, action: Any, *rest: Any) -> None:
                if action == "compensate" and not storage.has_failed:
                    storage.has_failed = True
                    raise OSError("the network is down")
                await run.log_step(saga_id, name, action, *rest)

        return Run()


async def test_an_error_of_the_storage_that_is_over_does_not_excuse_a_step(bench: Bench) -> None:
    """A step that fails rolls the saga back, although a write had failed before, and succeeded when it was repeated."""
    storage, saga = FailsOnce(), saga_of(Fallback(step=bench.step("A", timeout=0.01), fallback=bench.step("F")))
    bench.on = {"act A": lambda _: anyio.sleep_forever(), "act F": fail}
    saga_id = await left_by_a_crash(storage)
    await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once()
    assert bench.calls == ["act A", "compensate A", "act F"]
    assert await status_of(storage, saga_id) is SagaStatus.FAILED


@contextlib.asynccontextmanager
async def running(worker: SagaRecoveryWorker) -> AsyncIterator[anyio.CancelScope]:
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(BOUND):
            assert await tasks.start(worker.run) is None
        yield tasks.cancel_scope
        tasks.cancel_scope.cancel()


async def stop_by_scope(worker: SagaRecoveryWorker, begun: anyio.Event) -> None:
    async with running(worker) as scope:
        await begun.wait()
        scope.cancel()


async def stop_natively(worker: SagaRecoveryWorker, begun: anyio.Event) -> None:
    task = asyncio.get_running_loop().create_task(worker.run())
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await checkpoint()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture(params=[stop_by_scope, stop_natively])
def stop(request: pytest.FixtureRequest, backend_name: str) -> Any:
    """Runs a worker, and cancels it when something has begun."""
    if request.param is stop_natively and backend_name == "trio":
        pytest.skip("of asyncio")
    return request.param


async def test_a_worker_that_is_stopped_leaves_its_sagas(bench: Bench, storage: Any, stop: Any) -> None:
    """Sagas that go forward stay RUNNING, released and not counted; another worker has them at once."""
    begun = anyio.Event()

    async def hang(context: Any) -> None:
        if len(bench.at_work) == 3:
            begun.set()
        await anyio.sleep_forever()

    bench.on["act B"] = hang
    saga = saga_of(*bench.steps("ABC"))
    sagas = [await left_by_a_crash(storage, A_DONE) for _ in range(3)]
    with anyio.fail_after(BOUND):
        await stop(SagaRecoveryWorker(mediator_of(saga, storage)), begun)
    for saga_id in sagas:
        record = await storage.load_saga(saga_id)
        assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.RUNNING, None, 0)
        assert record.available_at is None
        assert (await log_of(storage, saga_id))[-1] == "act B interrupted"
    del bench.on["act B"]
    assert await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once() == 3
    assert {await status_of(storage, saga_id) for saga_id in sagas} == {SagaStatus.COMPLETED}


async def test_a_worker_that_is_stopped_finishes_rollbacks(bench: Bench, storage: Any, stop: Any) -> None:
    """A rollback that has begun is finished before the worker ends."""
    begun = anyio.Event()

    async def take_time(context: Any) -> None:
        begun.set()
        for _ in range(20):
            await checkpoint()

    bench.on["compensate B"] = take_time
    saga = saga_of(*bench.steps("AB"))
    log = f"{A_DONE}, act B started, act B completed"
    saga_id = await left_by_a_crash(storage, log, status=SagaStatus.COMPENSATING)
    with anyio.fail_after(BOUND):
        await stop(SagaRecoveryWorker(mediator_of(saga, storage)), begun)
    assert bench.calls == ["compensate B", "compensate A"]
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by, record.recovery_attempts) == (SagaStatus.FAILED, None, 0)


async def test_a_worker_that_is_stopped_waits_for_rollbacks_no_longer_than_told(
    bench: Bench, storage: Any, stop: Any
) -> None:
    """When its budget is spent the saga stays COMPENSATING, released, to the next worker."""
    begun = anyio.Event()

    async def hang(context: Any) -> None:
        begun.set()
        await anyio.sleep_forever()

    bench.on["compensate A"] = hang
    saga = saga_of(*bench.steps("A"))
    saga_id = await left_by_a_crash(storage, A_DONE, status=SagaStatus.COMPENSATING)
    with anyio.fail_after(BOUND):
        await stop(SagaRecoveryWorker(mediator_of(saga, storage, compensation_timeout=0.1)), begun)
    record = await storage.load_saga(saga_id)
    assert (record.status, record.locked_by) == (SagaStatus.COMPENSATING, None)


@pytest.mark.parametrize(
    "hangs",
    [
        "get_step_history",
        "load_saga",
    ],
)
async def test_a_worker_that_is_stopped_while_it_reads_costs_nothing(bench: Bench, stop: Any, hangs: str) -> None:
    """Stopped between claiming a saga and recovering it, the worker gives it back, uncounted: nothing has failed."""
    storage = Unreliable(hangs=hangs)
    saga = saga_of(*bench.steps("AB"))
    saga_id = await left_by_a_crash(storage, A_DONE)
    with anyio.fail_after(BOUND):
        await stop(SagaRecoveryWorker(mediator_of(saga, storage)), storage.is_asked)
    storage.hangs = ""
    assert (await storage.load_saga(saga_id)).locked_by is None
    assert await SagaRecoveryWorker(mediator_of(saga, storage)).recover_once() == 1
    assert (await storage.load_saga(saga_id)).recovery_attempts == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("poll_interval", 0),
        ("poll_interval", -1),
        ("poll_interval", float("nan")),
        ("lease_duration", 0),
        ("max_concurrent_sagas", 0),
        ("max_concurrent_sagas", 1.5),
        ("max_recovery_attempts", 0),
        ("max_recovery_attempts", True),
        ("poll_interval", None),
        ("lease_duration", "30"),
        ("backoff", -1.0),
        ("max_backoff", float("nan")),
    ],
)
def test_bad_options_are_refused(bench: Bench, option: str, value: Any) -> None:
    """A number that is none, or too small, is refused when the worker is made, by its name."""
    mediator = mediator_of(saga_of(*bench.steps("A")), MemorySagaStorage())
    with pytest.raises(InvalidOptionError, match=option):
        SagaRecoveryWorker(mediator, **{option: value})


class OtherContext(SagaContext):
    pass


def test_two_sagas_of_one_name_are_refused(bench: Bench) -> None:
    """Where two sagas would be stored under one name, nobody could tell which one to recover."""
    sagas = SagaMap()
    sagas.bind(OrderContext, saga_of(*bench.steps("A")))
    sagas.bind(OtherContext, types.new_class("OrderSaga", (Saga[OtherContext],)))
    mediator = SagaMediator(sagas, PlainContainer())
    with pytest.raises(ConfigurationError, match="OrderSaga"):
        SagaRecoveryWorker(mediator)


@dataclasses.dataclass
class GiftContext(OrderContext):
    message: str = ""


async def test_a_saga_of_two_contexts_keeps_its_own(bench: Bench, storage: Any) -> None:
    """A saga that is bound to two contexts is recovered with the one it has, or not at all: no field of it is lost."""
    saga, saga_id, sagas = saga_of(*bench.steps("AB")), uuid.uuid4(), SagaMap()
    sagas.bind(OrderContext, saga)
    sagas.bind(GiftContext, saga)
    mediator = SagaMediator(sagas, PlainContainer(), storage=storage)
    async with contextlib.aclosing(mediator.stream(GiftContext(message="for you"), saga_id)) as results:
        await results.__anext__()
    with contextlib.suppress(ConfigurationError):
        await SagaRecoveryWorker(mediator).recover_once()
    assert (await storage.load_saga(saga_id)).context["message"] == "for you"


@pytest.mark.parametrize("has_runs", [False, True])
async def test_without_leases_it_recovers_what_is_stale(bench: Bench, has_runs: bool) -> None:
    """Of a storage without leases it takes what nobody has changed for as long as a lease lasts: others may run."""
    storage = Unleased(has_runs=has_runs)
    stale = await left_by_a_crash(storage, A_DONE)
    rolled_back = await left_by_a_crash(storage, A_DONE, status=SagaStatus.COMPENSATING)
    wait(storage.inner, LEASE + 2)
    fresh = await left_by_a_crash(storage, A_DONE)
    worker = SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("AB")), storage), lease_duration=LEASE)
    assert await worker.recover_once() == 2
    assert await worker.recover_once() == 0
    assert sorted(bench.calls) == ["act B", "compensate A"]
    assert [await status_of(storage, saga_id) for saga_id in (stale, rolled_back, fresh)] == [
        SagaStatus.COMPLETED,
        SagaStatus.FAILED,
        SagaStatus.RUNNING,
    ]


@pytest.mark.parametrize("has_runs", [False, True])
async def test_without_leases_failures_are_counted_too(bench: Bench, has_runs: bool) -> None:
    """After so many failed recoveries a saga is left alone; its count set back, it is recovered."""
    storage, saga = Unleased(has_runs=has_runs), never_succeeding(bench)
    saga_id = await left_by_a_crash(storage, A_DONE)
    worker = SagaRecoveryWorker(mediator_of(saga, storage), max_recovery_attempts=2)
    found: list[int] = []
    for _ in range(4):
        wait(storage.inner, LEASE + 2)
        found.append(await worker.recover_once())
    assert found == [1, 1, 0, 0]
    assert (await storage.inner.load_saga(saga_id)).recovery_attempts == 2
    del bench.on["act B"]
    await storage.set_recovery_attempts(saga_id, 0)
    wait(storage.inner, LEASE + 2)
    assert await worker.recover_once() == 1
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


@pytest.mark.parametrize("has_runs", [False, True])
async def test_without_leases_an_unknown_step_is_left_to_somebody(bench: Bench, has_runs: bool) -> None:
    """Such a storage cannot park: a saga that waits for somebody is not offered to recovery any more."""
    storage = Unleased(has_runs=has_runs)
    await left_by_a_crash(storage, "act A started")
    wait(storage.inner, LEASE + 2)
    worker = SagaRecoveryWorker(mediator_of(saga_of(bench.step("A", on_unknown="park")), storage))
    assert await worker.recover_once() == 1
    wait(storage.inner, LEASE + 2)
    assert await worker.recover_once() == 0
    assert bench.calls == []


@pytest.mark.parametrize("has_runs", [False, True])
async def test_without_leases_a_stopped_worker_leaves_its_saga(bench: Bench, has_runs: bool, stop: Any) -> None:
    """Cancelled in a step, the saga stays RUNNING and uncounted, and the log says that the step was interrupted."""
    storage, begun = Unleased(has_runs=has_runs), anyio.Event()

    async def hang(context: Any) -> None:
        begun.set()
        await anyio.sleep_forever()

    bench.on["act B"] = hang
    saga_id = await left_by_a_crash(storage, A_DONE)
    wait(storage.inner, LEASE + 2)
    with anyio.fail_after(BOUND):
        await stop(SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("AB")), storage)), begun)
    record = await storage.inner.load_saga(saga_id)
    assert (record.status, record.recovery_attempts) == (SagaStatus.RUNNING, 0)
    assert (await log_of(storage, saga_id))[-1] == "act B interrupted"


async def test_without_leases_a_saga_runs_and_recovers_by_hand(bench: Bench) -> None:
    """The documented storage alone is enough to run a saga, leave it, and recover it, without a warning."""
    storage, saga, saga_id = Unleased(has_runs=False), saga_of(*bench.steps("AB")), uuid.uuid4()
    async with contextlib.aclosing(mediator_of(saga, storage).stream(OrderContext(), saga_id)) as results:
        await results.__anext__()
    await recover_saga(saga(), saga_id, OrderContext, PlainContainer(), storage)
    assert bench.calls == ["act A", "act B"]
    assert await status_of(storage, saga_id) is SagaStatus.COMPLETED


class TestOnMockClock:
    """Time passes when nothing else does, in the storage as well."""

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        testing = pytest.importorskip("trio.testing")
        return "trio", {"clock": testing.MockClock(autojump_threshold=0)}

    @pytest.fixture
    def storage(self) -> MemorySagaStorage:
        return MemorySagaStorage(clock=lambda: NOON + timedelta(seconds=anyio.current_time()))

    async def test_it_polls(self, bench: Bench, storage: Any) -> None:
        """It looks when it starts and then at each interval, and at once again where there may be more."""
        looks: list[float] = []
        claim = storage.claim_sagas

        async def claim_sagas(*args: Any, **kwargs: Any) -> Any:
            looks.append(anyio.current_time())
            return await claim(*args, **kwargs)

        storage.claim_sagas = claim_sagas
        worker = SagaRecoveryWorker(
            mediator_of(saga_of(*bench.steps("A")), storage), poll_interval=7, max_concurrent_sagas=2
        )
        with anyio.fail_after(3600):
            async with running(worker):
                await anyio.sleep(10)
                for _ in range(5):
                    await left_by_a_crash(storage)
                await anyio.sleep(12)
        assert looks == [0, 7, 14, 14, 14, 21]
        assert bench.calls == ["act A"] * 5

    async def test_it_backs_off(self, bench: Bench, storage: Any) -> None:
        """Each attempt waits twice as long as the one before, at most ``max_backoff``; the last one parks."""
        attempts: list[float] = []

        async def fail(context: Any) -> None:
            attempts.append(anyio.current_time())
            raise Boom

        saga = never_succeeding(bench)
        bench.on["act B"] = fail
        saga_id = await left_by_a_crash(storage, A_DONE)
        worker = SagaRecoveryWorker(
            mediator_of(saga, storage), poll_interval=0.25, max_recovery_attempts=7, backoff=2, max_backoff=20
        )
        async with running(worker):
            await anyio.sleep(1000)
        waits = [later - sooner for sooner, later in itertools.pairwise(attempts)]
        assert waits == pytest.approx([2, 4, 8, 16, 20, 20], abs=0.3)
        [parked] = await storage.get_parked_sagas()
        assert parked.saga_id == saga_id

    async def test_it_recovers_a_saga_whose_runner_has_died(self, bench: Bench, storage: Any) -> None:
        """A runner that is gone holds its saga for as long as its lease lasts, and no longer than a poll more."""
        ended_at: list[float] = []

        async def note(context: Any) -> None:
            ended_at.append(anyio.current_time())

        bench.on["act B"] = note
        saga_id = await left_by_a_crash(storage, A_DONE)
        await storage.acquire_lease(saga_id, "the dead", LEASE)
        async with running(SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("AB")), storage), poll_interval=2)):
            await anyio.sleep(100)
        assert len(ended_at) == 1
        assert LEASE <= ended_at[0] <= LEASE + 2

    async def test_two_workers_take_turns(self, bench: Bench, storage: Any) -> None:
        """Workers that run beside each other recover each saga once."""
        saga = saga_of(*bench.steps("AB"))
        bench.on["act B"] = lambda _: anyio.sleep(100)
        sagas = [await left_by_a_crash(storage, A_DONE) for _ in range(12)]
        workers = [SagaRecoveryWorker(mediator_of(saga, storage), max_concurrent_sagas=4) for _ in range(2)]
        async with running(workers[0]), running(workers[1]):
            await anyio.sleep(1000)
        assert {await status_of(storage, saga_id) for saga_id in sagas} == {SagaStatus.COMPLETED}
        assert bench.calls == ["act B"] * 12

    async def test_a_long_step_does_not_keep_the_worker_from_others(self, bench: Bench, storage: Any) -> None:
        """While one of its slots is taken by a step that takes long, the others go on recovering."""
        recovered_at: list[float] = []

        async def act(context: Any) -> None:
            if len(bench.calls) == 1:
                await anyio.sleep(3600)
            recovered_at.append(anyio.current_time())

        bench.on["act A"] = act
        await left_by_a_crash(storage)
        async with running(SagaRecoveryWorker(mediator_of(saga_of(*bench.steps("A")), storage), poll_interval=5)):
            await anyio.sleep(10)
            await left_by_a_crash(storage)
            await anyio.sleep(4000)
        assert recovered_at[0] <= 20
