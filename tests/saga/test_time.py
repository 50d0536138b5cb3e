"""What takes time: backing off, budgets, timeouts, deadlines and leases, on a clock that does not wait."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest
import tenacity

from cqrs import Fallback, Parallel, RetryPolicy, compensation_errors
from cqrs.exceptions import SagaDeadlineExceededError, SagaLockedError, SagaRolledBackError, SagaStepTimeoutError
from cqrs.retry import exponential
from cqrs.saga.options import SagaOptions

trio = pytest.importorskip("trio")
from trio.testing import MockClock  # noqa: E402

EPOCH = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Trio, on a clock that jumps to the next deadline as soon as all tasks wait."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def clock() -> datetime:
    return EPOCH + timedelta(seconds=anyio.current_time())


def options(**given: Any) -> SagaOptions:
    return SagaOptions(exponential(3, 1.0, 2.0), clock=clock, **given)


@pytest.fixture
def timed(lab: Any) -> Any:
    """The lab, with a storage on the mocked clock."""
    lab.storage = lab.Storage(clock=clock)
    return lab


class Times:
    """When it was called, from the first time on."""

    def __init__(self, error: Exception | None = None) -> None:
        self._times: list[float] = []
        self._error = error

    async def __call__(self, context: Any) -> None:
        self._times.append(anyio.current_time())
        if self._error is not None:
            raise self._error

    @property
    def waits(self) -> list[float]:
        return [round(later - earlier, 6) for earlier, later in zip(self._times, self._times[1:], strict=False)]


async def run(lab: Any, saga: Any, **given: Any) -> None:
    async with lab.transaction(saga, **given) as transaction:
        async for result in transaction:
            lab.results.append(result)


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        ({}, [1, 2]),
        (
            {"compensation_retry_count": 5, "compensation_retry_delay": 0.5, "compensation_retry_backoff": 3.0},
            [0.5, 1.5, 4.5, 13.5],
        ),
        ({"compensation_retry_count": 1}, []),
        (
            {"compensation_retry_count": 4, "compensation_retry_delay": 2.0, "compensation_retry_backoff": 1.0},
            [2, 2, 2],
        ),
    ],
)
async def test_compensations_back_off_exponentially(timed: Any, given: dict[str, Any], waits: list[float]) -> None:
    """A compensation waits ``delay`` seconds, then ``backoff`` times as long each time."""
    undo = Times(KeyError())
    saga = timed.saga(timed.step("A", undo=undo), timed.step("B", timed.Raising(timed.Boom())))
    with pytest.raises(timed.Boom):
        await run(timed, saga, **{"compensation_retry_delay": 1.0, **given})
    assert undo.waits == waits
    assert await timed.status() == "compensation_failed"


async def test_the_budget_is_of_the_whole_rollback(timed: Any) -> None:
    """After ``compensation_timeout`` seconds in all, the rollback is left, wherever it was."""

    async def slow(context: Any) -> None:
        await anyio.sleep(40)

    steps = [timed.step(name, undo=slow) for name in "ABC"]
    began = anyio.current_time()
    with pytest.raises(timed.Boom) as caught:
        await run(timed, timed.saga(*steps, timed.step("D", timed.Raising(timed.Boom()))), compensation_timeout=100)
    assert anyio.current_time() - began == pytest.approx(100)
    assert [type(error) for error in compensation_errors(caught.value)] == [TimeoutError]
    assert timed.log == ["A", "B", "C", "D", "~C", "~B", "~A"]
    assert await timed.status() == "compensating"
    assert not await timed.is_held()
    with pytest.raises(SagaRolledBackError):
        await timed_recovery(timed, timed.saga(*steps, timed.step("D")), compensation_timeout=100)
    assert timed.log[-1:] == ["~A"]
    assert timed.log.count("~B") == 1
    assert await timed.status() == "failed"


async def timed_recovery(lab: Any, saga: Any, **given: Any) -> None:
    from cqrs import recover_saga

    await recover_saga(saga(), lab.id, lab.Order, lab.container, lab.storage, options=options(**given))


async def test_a_cancelled_rollback_takes_no_longer_than_its_budget(timed: Any) -> None:
    """A caller that cancels waits for a compensation that hangs, for ``compensation_timeout`` seconds."""
    saga = timed.saga(timed.step("A", undo=timed.Gate()), timed.step("B", timed.Gate()))
    with anyio.move_on_after(10):
        await run(timed, saga, compensation_timeout=20)
    assert anyio.current_time() == pytest.approx(30)
    assert await timed.status() == "compensating"


async def test_each_attempt_has_the_timeout(timed: Any) -> None:
    """A step with ``timeout`` and ``retry`` has its seconds each time, and waits as its policy says in between."""
    act = Times()

    async def hang(context: Any) -> None:
        await act(context)
        await anyio.sleep_forever()

    policy = RetryPolicy(3, wait=tenacity.wait_fixed(5))
    step = timed.step("A", hang, timeout=10, retry=policy, on_unknown="retry")
    with pytest.raises(SagaStepTimeoutError):
        await run(timed, timed.saga(step))
    assert act.waits == [15, 15]
    assert anyio.current_time() == pytest.approx(40)
    assert await timed.status() == "running"


async def test_a_deadline_ends_a_wait_between_two_attempts(timed: Any) -> None:
    """The deadline counts while a step waits to be tried again; a step that raised is not compensated for it."""
    policy = RetryPolicy(10, wait=tenacity.wait_fixed(50))
    saga = timed.saga(timed.step("A"), timed.step("B", timed.Raising(timed.Boom()), retry=policy), deadline=120)
    with pytest.raises(SagaDeadlineExceededError) as caught:
        await run(timed, saga, options=options())
    assert anyio.current_time() == pytest.approx(120)
    assert caught.value.deadline == EPOCH + timedelta(seconds=120)
    assert timed.log == ["A", "B", "B", "B", "~A"]
    assert await timed.status() == "failed"


async def test_a_deadline_does_not_cut_the_rollback_short(timed: Any) -> None:
    """The rollback has its own budget, whatever the deadline was."""

    async def slow(context: Any) -> None:
        await anyio.sleep(15)

    saga = timed.saga(timed.step("A", undo=slow), timed.step("B", timed.Gate(), slow), deadline=60)
    with pytest.raises(SagaDeadlineExceededError):
        await run(timed, saga, options=options(compensation_timeout=31))
    assert anyio.current_time() == pytest.approx(90)
    assert await timed.status() == "failed"


async def test_a_deadline_goes_on_after_recovery(timed: Any) -> None:
    """What is left of the time is what a recovery has."""
    saga = timed.saga(timed.step("A"), timed.step("B", timed.Gate()), deadline=timedelta(minutes=10))
    async with timed.transaction(saga, options=options()) as transaction:
        await anext(transaction)
    await anyio.sleep(400)
    with pytest.raises(SagaDeadlineExceededError):
        await timed_recovery(timed, saga)
    assert anyio.current_time() == pytest.approx(600)
    assert timed.log == ["A", "B", "~B", "~A"]
    assert await timed.status() == "failed"


async def test_a_lease_is_held_however_long_a_step_takes(timed: Any) -> None:
    """While a step acts for an hour nobody can take the saga over, thirty seconds' lease or not."""
    refused = 0

    async def act(context: Any) -> None:
        nonlocal refused
        for _ in range(60):
            await anyio.sleep(60)
            with pytest.raises(SagaLockedError):
                await timed.storage.acquire_lease(timed.id, "somebody else", 30)
            refused += 1

    await run(timed, timed.saga(timed.step("A", act), timed.step("B")), lease_duration=30)
    assert refused == 60
    assert await timed.status() == "completed"


async def test_a_lease_is_held_however_long_a_compensation_takes(timed: Any) -> None:
    """The same while the saga is undone."""

    async def undo(context: Any) -> None:
        await anyio.sleep(300)
        with pytest.raises(SagaLockedError):
            await timed.storage.acquire_lease(timed.id, "somebody else", 30)

    saga = timed.saga(timed.step("A", undo=undo), timed.step("B", timed.Raising(timed.Boom())))
    with pytest.raises(timed.Boom) as caught:
        await run(timed, saga, lease_duration=30, compensation_timeout=1000)
    assert compensation_errors(caught.value) == ()
    assert await timed.status() == "failed"


async def test_a_lease_that_ended_between_two_steps_is_still_the_runners(timed: Any) -> None:
    """A consumer that holds a result for long may go on, if nobody has taken the saga over meanwhile."""
    async with timed.transaction(timed.saga(timed.step("A"), timed.step("B")), lease_duration=30) as transaction:
        async for _ in transaction:
            await anyio.sleep(1000)
    assert timed.log == ["A", "B"]
    assert await timed.status() == "completed"


async def test_a_group_is_as_slow_as_its_slowest_step(timed: Any) -> None:
    """Parallel steps take their time at the same time; under a limit, in turns."""

    async def act(context: Any) -> None:
        await anyio.sleep(10)

    steps = [timed.step(name, act) for name in "ABCD"]
    await run(timed, timed.saga(Parallel(*steps), Parallel(*steps, limit=2)))
    assert anyio.current_time() == pytest.approx(30)


async def test_a_fallback_after_a_timeout_has_a_time_of_its_own(timed: Any) -> None:
    """A step and its fallback have each their own ``timeout``."""

    async def act(context: Any) -> None:
        await anyio.sleep(15)

    saga = timed.saga(Fallback(timed.step("P", act, timeout=10), timed.step("Q", act, timeout=20)))
    await run(timed, saga)
    assert anyio.current_time() == pytest.approx(25)
    assert timed.log == ["P", "~P", "Q"]
