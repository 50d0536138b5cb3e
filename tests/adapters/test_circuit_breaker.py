"""AioBreakerAdapter: when it opens, what it lets through, and what it does not count."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from cqrs.adapters.circuit_breaker import (
    AioBreakerAdapter,
    CriticalLogListener,
    default_memory_storage_factory,
)
from cqrs.circuit_breaker import should_use_fallback
from cqrs.exceptions import MissingDependencyError

aiobreaker = pytest.importorskip("aiobreaker")

CircuitMemoryStorage = aiobreaker.storage.memory.CircuitMemoryStorage
CLOSED, OPEN, HALF_OPEN = (
    aiobreaker.CircuitBreakerState.CLOSED,
    aiobreaker.CircuitBreakerState.OPEN,
    aiobreaker.CircuitBreakerState.HALF_OPEN,
)


class Step: ...


class OtherStep: ...


class Circuits:
    """An adapter, its storages by name, and a hand on its clock."""

    def __init__(self, **options: Any) -> None:
        self.storages: dict[str, Any] = {}
        self.adapter = AioBreakerAdapter(storage_factory=self._make, **{"fail_max": 2, **options})

    def _make(self, name: str) -> Any:
        self.storages[name] = default_memory_storage_factory(name)
        return self.storages[name]

    @property
    def storage(self) -> Any:
        (storage,) = self.storages.values()
        return storage

    def let_pass(self, seconds: float) -> None:
        self.storage.opened_at -= timedelta(seconds=seconds)

    async def succeed(self) -> str:
        return await self.adapter.call(Step, answer)

    async def fail(self, error: Exception | None = None) -> None:
        failure = error or ValueError("down")
        with pytest.raises(type(failure)) as caught:
            await self.adapter.call(Step, raising(failure))
        assert caught.value is failure

    async def refuse(self) -> Any:
        with pytest.raises(aiobreaker.CircuitBreakerError) as caught:
            await self.adapter.call(Step, must_not_be_called)
        assert self.adapter.is_circuit_breaker_error(caught.value)
        return caught.value

    async def open(self) -> None:
        await self.fail()
        await self.fail()
        assert self.storage.state is OPEN


async def answer(*args: Any, **kwargs: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return (args, kwargs) if args or kwargs else "answer"


async def must_not_be_called() -> None:
    raise AssertionError("called while the circuit is open")


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return fail


class Hanging:
    """A call that hangs until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started = anyio.Event()
        self.let_go = anyio.Event()
        self._error = error

    async def __call__(self) -> str:
        self.started.set()
        await self.let_go.wait()
        if self._error is not None:
            raise self._error
        return "late answer"


async def test_passes_arguments_and_result() -> None:
    """A closed circuit calls the function with its arguments and returns its result."""
    circuits = Circuits()
    assert await circuits.adapter.call(Step, answer, 1, what=2, exc=3) == ((1,), {"what": 2, "exc": 3})
    assert circuits.storage.state is CLOSED


async def test_opens_after_fail_max_failures_in_a_row() -> None:
    """Each failure leaves as itself, the one that opens the circuit too; then nothing is called."""
    circuits = Circuits(fail_max=3)
    await circuits.fail()
    await circuits.fail()
    assert circuits.storage.state is CLOSED
    await circuits.fail()
    assert circuits.storage.state is OPEN
    await circuits.refuse()


async def test_a_success_starts_the_count_anew() -> None:
    """Only failures in a row are counted."""
    circuits = Circuits()
    for _ in range(3):
        await circuits.fail()
        await circuits.succeed()
    assert circuits.storage.state is CLOSED


async def test_the_refusal_says_when_the_circuit_opens_again() -> None:
    """reopen_time is local time, so that the error's own time_remaining is right."""
    circuits = Circuits(timeout_duration=60)
    await circuits.open()
    circuits.let_pass(20)
    refusal = await circuits.refuse()
    assert timedelta(seconds=30) < refusal.time_remaining <= timedelta(seconds=40)
    assert refusal.reopen_time > datetime.now()


@pytest.mark.parametrize("duration", [60, 60.0, timedelta(minutes=1)])
async def test_a_successful_trial_closes(duration: Any) -> None:
    """After timeout_duration, and not before it, a call goes through, and its success closes the circuit."""
    circuits = Circuits(timeout_duration=duration)
    await circuits.open()
    circuits.let_pass(59)
    await circuits.refuse()
    circuits.let_pass(2)
    assert await circuits.succeed() == "answer"
    assert (circuits.storage.state, circuits.storage.counter) == (CLOSED, 0)
    await circuits.fail()
    assert circuits.storage.state is CLOSED


async def test_a_failed_trial_opens_for_as_long_again() -> None:
    """One failure is enough while half-open, and leaves as itself."""
    circuits = Circuits(timeout_duration=60)
    await circuits.open()
    circuits.let_pass(61)
    await circuits.fail()
    assert circuits.storage.state is OPEN
    circuits.let_pass(59)
    await circuits.refuse()
    circuits.let_pass(2)
    assert await circuits.succeed() == "answer"


async def test_one_trial_at_a_time() -> None:
    """While the trial runs other calls are refused; after its success they go through."""
    circuits = Circuits()
    await circuits.open()
    circuits.let_pass(61)
    trial = Hanging()
    async with anyio.create_task_group() as group:
        group.start_soon(circuits.adapter.call, Step, trial)
        await trial.started.wait()
        assert circuits.storage.state is HALF_OPEN
        await circuits.refuse()
        trial.let_go.set()
    assert await circuits.succeed() == "answer"


async def test_excluded_errors_are_answers() -> None:
    """Errors in exclude, classes or functions, are not counted and close a half-open circuit."""
    circuits = Circuits(exclude=[KeyError, lambda error: "fine" in str(error)])
    for _ in range(5):
        await circuits.fail(KeyError("unknown"))
        await circuits.fail(ValueError("fine"))
    assert (circuits.storage.state, circuits.storage.counter) == (CLOSED, 0)
    await circuits.open()
    circuits.let_pass(61)
    await circuits.fail(KeyError("unknown"))
    assert circuits.storage.state is CLOSED


async def test_identifiers_have_circuits_of_their_own() -> None:
    """A class goes by module and name, a string as it is; one open circuit leaves the others alone."""
    circuits = Circuits(fail_max=1)
    with pytest.raises(ValueError, match="down"):
        await circuits.adapter.call(Step, raising(ValueError("down")))
    assert await circuits.adapter.call(OtherStep, answer) == "answer"
    assert await circuits.adapter.call("by name", answer) == "answer"
    assert list(circuits.storages) == [f"{__name__}.Step", f"{__name__}.OtherStep", "by name"]
    with pytest.raises(aiobreaker.CircuitBreakerError):
        await circuits.adapter.call(Step, must_not_be_called)


async def test_storage_may_be_shared() -> None:
    """Two adapters on one storage see one circuit, as two processes on one Redis do."""
    storage = CircuitMemoryStorage(CLOSED)
    here, there = (AioBreakerAdapter(fail_max=1, storage_factory=lambda _: storage) for _ in range(2))
    assert await there.call(Step, answer) == "answer"
    with pytest.raises(ValueError, match="down"):
        await here.call(Step, raising(ValueError("down")))
    with pytest.raises(aiobreaker.CircuitBreakerError):
        await there.call(Step, must_not_be_called)
    storage.opened_at -= timedelta(seconds=61)
    assert await there.call(Step, answer) == "answer"
    assert await here.call(Step, answer) == "answer"


async def test_a_storage_that_lost_the_time_allows_a_trial() -> None:
    """An open circuit without opened_at does not stay open for ever."""
    circuits = Circuits()
    await circuits.open()
    circuits.storage.opened_at = None
    assert await circuits.succeed() == "answer"


@pytest.mark.parametrize("error", [None, ValueError("late")])
async def test_a_call_from_before_has_no_say_once_the_circuit_is_open(error: Exception | None) -> None:
    """Calls that began while it was closed neither prolong the open time nor close the circuit."""
    circuits = Circuits()
    late = Hanging(error)
    outcomes: list[Any] = []

    async def call() -> None:
        try:
            outcomes.append(await circuits.adapter.call(Step, late))
        except ValueError as failure:
            outcomes.append(failure)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await late.started.wait()
        await circuits.open()
        opened_at = circuits.storage.opened_at
        late.let_go.set()
    assert outcomes == [error or "late answer"]
    assert (circuits.storage.state, circuits.storage.opened_at) == (OPEN, opened_at)


class TestCancellation:
    """A cancelled call is neither a success nor a failure."""

    async def cancel_by_scope(self, circuits: Circuits) -> None:
        hanging = Hanging()
        async with anyio.create_task_group() as group:
            group.start_soon(circuits.adapter.call, Step, hanging)
            await hanging.started.wait()
            group.cancel_scope.cancel()

    async def cancel_natively(self, circuits: Circuits) -> None:
        hanging = Hanging()
        task = asyncio.ensure_future(circuits.adapter.call(Step, hanging))
        await hanging.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.fixture(params=["scope", "native"])
    def cancel(self, request: pytest.FixtureRequest, backend_name: str) -> Callable[[Circuits], Awaitable[None]]:
        if request.param == "scope":
            return self.cancel_by_scope
        if backend_name != "asyncio":
            pytest.skip("asyncio's own way to cancel")
        return self.cancel_natively

    async def test_of_a_closed_circuit(self, cancel: Callable[[Circuits], Awaitable[None]]) -> None:
        """It neither adds to the count of failures nor resets it."""
        circuits = Circuits()
        await circuits.fail()
        for _ in range(3):
            await cancel(circuits)
        assert (circuits.storage.state, circuits.storage.counter) == (CLOSED, 1)
        await circuits.fail()
        assert circuits.storage.state is OPEN

    @pytest.mark.parametrize("succeeds", [True, False])
    async def test_of_a_trial(self, cancel: Callable[[Circuits], Awaitable[None]], succeeds: bool) -> None:
        """The circuit stays half-open, is not stuck, and the next call is the trial."""
        circuits = Circuits()
        await circuits.open()
        circuits.let_pass(61)
        await cancel(circuits)
        await cancel(circuits)
        assert circuits.storage.state is HALF_OPEN
        if succeeds:
            assert await circuits.succeed() == "answer"
        else:
            await circuits.fail()
        assert circuits.storage.state is (CLOSED if succeeds else OPEN)


class Recorder(CriticalLogListener):
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.told: list[Any] = []

    def before_call(self, breaker: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.told.append(("call", breaker.name, args))

    def failure(self, breaker: Any, exception: Exception) -> None:
        self.told.append(("failure", str(exception)))

    def success(self, breaker: Any) -> None:
        self.told.append("success")

    def state_change(self, breaker: Any, old: Any, new: Any) -> None:
        assert breaker.current_state is new.state
        self.told.append((old.state, new.state))


async def test_tells_its_listeners() -> None:
    """aiobreaker listeners hear of calls, their ends and the changes of state, in order."""
    recorder = Recorder()
    circuits = Circuits(fail_max=1, listeners=[recorder])
    name = f"{__name__}.Step"
    await circuits.adapter.call(Step, answer, 1)
    await circuits.fail()
    circuits.let_pass(61)
    await circuits.succeed()
    assert recorder.told == [
        ("call", name, (1,)),
        "success",
        ("call", name, ()),
        ("failure", "down"),
        (CLOSED, OPEN),
        (OPEN, HALF_OPEN),
        ("call", name, ()),
        (HALF_OPEN, CLOSED),
        "success",
    ]


async def test_logs_changes_of_state(caplog: pytest.LogCaptureFixture) -> None:
    """Each change is logged at CRITICAL with the circuit's name, and nothing else is."""
    circuits = Circuits()
    await circuits.open()
    await circuits.refuse()
    (record,) = [record for record in caplog.records if record.name.startswith("cqrs")]
    assert record.levelno == logging.CRITICAL
    assert record.getMessage() == f"Circuit breaker {__name__}.Step: CLOSED -> OPEN"


async def test_calls_nothing_that_python_deprecates(monkeypatch: pytest.MonkeyPatch) -> None:
    """No state change goes through datetime.utcnow(), which warns from Python 3.12 on."""

    class Clock(datetime):
        @classmethod
        def utcnow(cls) -> Any:
            raise DeprecationWarning("utcnow")

    monkeypatch.setattr("aiobreaker.circuitbreaker.datetime", Clock)
    monkeypatch.setattr("aiobreaker.state.datetime", Clock)
    circuits = Circuits()
    await circuits.open()
    await circuits.refuse()
    circuits.let_pass(61)
    await circuits.fail()
    circuits.let_pass(61)
    assert await circuits.succeed() == "answer"


async def test_is_what_a_fallback_asks_for() -> None:
    """An open circuit makes the fallback act whatever errors it is for; a plain failure does not."""
    circuits = Circuits()
    await circuits.open()
    assert should_use_fallback(await circuits.refuse(), circuits.adapter, (KeyError,))
    assert not should_use_fallback(ValueError("down"), circuits.adapter, (KeyError,))


async def test_defaults_are_the_documented_ones() -> None:
    """Five failures open a circuit, in memory, for a minute."""
    adapter = AioBreakerAdapter()
    for _ in range(5):
        with pytest.raises(ValueError, match="down"):
            await adapter.call("x", raising(ValueError("down")))
    with pytest.raises(aiobreaker.CircuitBreakerError) as caught:
        await adapter.call("x", must_not_be_called)
    assert timedelta(seconds=50) < caught.value.time_remaining <= timedelta(seconds=60)


def test_the_default_storage_is_a_closed_one_in_memory() -> None:
    """Each name has a storage of its own."""
    one, two = default_memory_storage_factory("a"), default_memory_storage_factory("a")
    assert isinstance(one, CircuitMemoryStorage)
    assert one.state is CLOSED
    assert one is not two


def test_a_missing_library_is_missed_on_use(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without aiobreaker the module imports in silence, and the adapter says what to install."""
    monkeypatch.setitem(sys.modules, "aiobreaker", None)
    monkeypatch.delitem(sys.modules, "cqrs.adapters.circuit_breaker")
    module = importlib.import_module("cqrs.adapters.circuit_breaker")
    assert not caplog.records
    for use in (module.AioBreakerAdapter, lambda: module.default_memory_storage_factory("x")):
        with pytest.raises(MissingDependencyError) as caught:
            use()
        assert (caught.value.library, caught.value.extra) == ("aiobreaker", "aiobreaker")
