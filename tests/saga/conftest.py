"""What the tests of sagas share: a laboratory that makes steps and sagas, runs them, and writes down what happens."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.util
import math
import sys
import types
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs import DomainEvent, EventHandler, PlainContainer, Saga, SagaContext, SagaStepHandler, recover_saga
from cqrs.saga import bootstrap as saga_bootstrap
from cqrs.saga.storage import MemorySagaStorage

BOUND = 5.0
"""Seconds after which a test that hangs is given up."""

SPINS = 50
"""Turns of the event loop after which tasks that wait for nothing but each other have come to rest."""


@dataclasses.dataclass
class Order(SagaContext):
    marks: list[str] = dataclasses.field(default_factory=list)
    total: int = 0
    note: str | None = None


class Boom(Exception):
    """What steps raise."""


class Stepped(DomainEvent, frozen=True):
    """What steps record."""

    step: str


async def nothing(*_: Any) -> None:
    await checkpoint()


class Gate:
    """Something to wait at: who comes sets ``reached``, and goes on when it is opened."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()
        self.waiting = 0

    async def __call__(self, *_: Any) -> None:
        self.reached.set()
        self.waiting += 1
        try:
            await self.opened.wait()
        finally:
            self.waiting -= 1

    def open(self) -> None:
        self.opened.set()


class Raising:
    """Raises, the first ``times`` times that it is called."""

    def __init__(self, error: BaseException, times: float = math.inf) -> None:
        self.error = error
        self.calls = 0
        self._times = times

    async def __call__(self, *_: Any) -> None:
        self.calls += 1
        await checkpoint()
        if self.calls <= self._times:
            raise self.error


class SpyRun:
    """A unit of work that is known in words: ``saga``, ``context``, ``A started``, ``~A completed``, ``release`` ..."""

    def __init__(self, run: Any, storage: SpyStorage) -> None:
        self._run = run
        self._storage = storage
        self.writes: list[str] = []

    async def start_saga(self, *args: Any, **kwargs: Any) -> Any:
        self.writes.append("saga")
        return await self._run.start_saga(*args, **kwargs)

    async def update_context(self, *args: Any, **kwargs: Any) -> None:
        self.writes.append("context")
        await self._run.update_context(*args, **kwargs)

    async def update_status(self, saga_id: uuid.UUID, status: Any) -> None:
        self.writes.append(str(status))
        await self._run.update_status(saga_id, status)

    async def log_step(
        self, saga_id: uuid.UUID, name: str, action: str, status: Any, details: str | None = None
    ) -> None:
        self.writes.append(in_words(name, action, status))
        await self._run.log_step(saga_id, name, action, status, details)

    async def release_lease(self, retry_after: float | None = None) -> None:
        self.writes.append("release")
        await self._run.release_lease(retry_after)

    async def park_saga(self, reason: str) -> None:
        self.writes.append("park")
        await self._run.park_saga(reason)

    async def commit(self) -> None:
        await self._storage.before_commit(self.writes)
        await self._run.commit()
        self._storage.commits.append(self.writes)
        await self._storage.after_commit(self.writes)


class SpyStorage(MemorySagaStorage):
    """A storage in memory whose every method suspends, and that writes its commits down."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commits: list[list[str]] = []
        self.before_commit: Callable[[Sequence[str]], Awaitable[None]] = nothing
        self.after_commit: Callable[[Sequence[str]], Awaitable[None]] = nothing

    @contextlib.asynccontextmanager
    async def create_run(self, lease: Any = None) -> AsyncIterator[Any]:
        await checkpoint()
        async with super().create_run(lease) as run:
            yield SpyRun(run, self)

    async def acquire_lease(self, *args: Any, **kwargs: Any) -> Any:
        await checkpoint()
        return await super().acquire_lease(*args, **kwargs)

    async def load_saga(self, *args: Any, **kwargs: Any) -> Any:
        await checkpoint()
        return await super().load_saga(*args, **kwargs)


def in_words(name: str, action: str, status: Any) -> str:
    return f"{'~' if action == 'compensate' else ''}{name} {status}"


class Lab:
    """Makes what a test needs. ``log`` says ``A`` for a step that begins to act, ``~A`` for one that begins to undo."""

    Order, Boom, Stepped, Gate, Raising, Storage = Order, Boom, Stepped, Gate, Raising, SpyStorage

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.log: list[str] = []
        self.instances: list[Any] = []
        self.results: list[Any] = []
        self.on_result: Callable[[Any], Any] = self.results.append
        self.storage: Any = SpyStorage()
        self.container: Any = PlainContainer()
        self.context = Order()
        self.id = uuid.uuid4()

    def step(
        self,
        name: str,
        act: Callable[[Any], Awaitable[Any]] = nothing,
        undo: Callable[[Any], Awaitable[Any]] = nothing,
        *,
        base: Any = SagaStepHandler[Order, Any],
        **attributes: Any,
    ) -> type[SagaStepHandler[Any, Any]]:
        """A step of that name. ``act`` and ``undo`` are given the context; what ``act`` gives is the response.

        It records an event when it has acted.
        """
        lab = self

        def initialise(handler: Any) -> None:
            handler.recorded = []
            lab.instances.append(handler)

        async def act_(handler: Any, context: Any) -> Any:
            lab.log.append(name)
            response = await act(context)
            handler.recorded.append(Stepped(step=name))
            return handler._generate_step_result(name if response is None else response)

        async def compensate(handler: Any, context: Any) -> None:
            lab.log.append(f"~{name}")
            await undo(context)

        members = {
            "__init__": initialise,
            "act": act_,
            "compensate": compensate,
            "events": property(lambda handler: list(handler.recorded)),
            "clear_events": lambda handler: handler.recorded.clear(),
            **attributes,
        }
        return types.new_class(name, (base,), exec_body=lambda body: body.update(members))

    def saga(self, *steps: Any, name: str = "OrderSaga", base: Any = Saga[Order], **attributes: Any) -> type[Saga[Any]]:
        """A saga of ``steps``."""
        members = {"steps": list(steps), **attributes}
        return types.new_class(name, (base,), exec_body=lambda body: body.update(members))

    def transaction(self, saga: type[Saga[Any]], **options: Any) -> Any:
        """A run of ``saga``, whose compensations are retried without waiting."""
        if "options" not in options:
            options.setdefault("compensation_retry_delay", 0)
        return saga().transaction(self.context, self.container, self.storage, self.id, **options)

    def mediator(
        self,
        saga: type[Saga[Any]],
        *middlewares: Any,
        on_event: Callable[[Any], Awaitable[None]] | None = None,
        context_type: type[SagaContext] = Order,
        **options: Any,
    ) -> Any:
        """A mediator for ``saga``; the events of its steps go to ``on_event``."""

        class OnStepped(EventHandler[Stepped]):
            async def handle(self, event: Stepped) -> None:
                assert on_event is not None
                await on_event(event)

        def map_events(events: Any) -> None:
            if on_event is not None:
                events.bind(Stepped, OnStepped)

        return saga_bootstrap.bootstrap(
            self.container,
            middlewares=middlewares,
            sagas_mapper=lambda sagas: sagas.bind(context_type, saga),
            domain_events_mapper=map_events,
            saga_storage=self.storage,
            **{"compensation_retry_delay": 0, **options},
        )

    async def run(self, saga: type[Saga[Any]], how: str = "transaction", **options: Any) -> list[Any]:
        """Run ``saga`` to its end; the responses of its steps. They are in ``results`` as well, as they come."""
        consumed: Any
        with anyio.fail_after(BOUND):
            if how == "transaction":
                async with self.transaction(saga, **options) as consumed:
                    await self._consume(consumed)
            else:
                mediator = self.mediator(saga, **options)
                if how == "pull":
                    async with mediator:
                        await self._consume(mediator.stream(self.context, self.id))
                else:
                    async with mediator.stream(self.context, self.id) as consumed:
                        await self._consume(consumed)
        return [result.response for result in self.results]

    async def _consume(self, results: Any) -> None:
        async for result in results:
            self.on_result(result)

    async def recover(self, saga: type[Saga[Any]], build: Any = Order, **options: Any) -> None:
        """Recover the saga."""
        if "options" not in options:
            options.setdefault("compensation_retry_delay", 0)
        with anyio.fail_after(BOUND):
            await recover_saga(saga(), self.id, build, self.container, self.storage, **options)

    async def status(self) -> str:
        """The status that is stored."""
        status, _, _ = await self.storage.load_saga_state(self.id)
        return str(status)

    async def stored(self) -> dict[str, Any]:
        """The context that is stored."""
        _, context, _ = await self.storage.load_saga_state(self.id)
        return dict(context)

    async def history(self) -> list[str]:
        """The log that is stored, in words."""
        entries = await self.storage.get_step_history(self.id)
        return [in_words(entry.step_name, entry.action, entry.status) for entry in entries]

    async def is_held(self) -> bool:
        """Whether somebody has a lease on the saga."""
        return (await self.storage.load_saga(self.id)).locked_by is not None

    @contextlib.asynccontextmanager
    async def no_task_left(self) -> AsyncIterator[None]:
        """When the block is left, no task runs that did not run before."""
        before = {task.id for task in anyio.get_running_tasks()}
        with anyio.fail_after(BOUND):
            yield
        left: list[str] = []
        for _ in range(SPINS):  # the loop's own hooks for generators may be at work
            left = [task.name or "?" for task in anyio.get_running_tasks() if task.id not in before]
            if not left:
                break
            await checkpoint()
        assert left == []

    async def spin(self) -> None:
        """Let the other tasks run until they wait."""
        for _ in range(SPINS):
            await checkpoint()

    async def cancel(self, way: str, work: Callable[[], Awaitable[Any]], reached: anyio.Event, release: Any) -> None:
        """Run ``work``, cancel it once ``reached`` is set, call ``release`` then, and see that it ends by that."""
        with anyio.fail_after(BOUND):
            await _WAYS[self.backend, way](self, work, reached, release)


async def _by_scope(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await work()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await reached.wait()
        scope.cancel()
        await lab.spin()
        release()
    assert scope.cancelled_caught


async def _by_two_scopes(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    with anyio.CancelScope() as outer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await reached.wait()
            tasks.cancel_scope.cancel()
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await lab.spin()
            release()
            await checkpoint()
    assert outer.cancelled_caught


async def _by_task_cancel(lab: Lab, work: Any, reached: anyio.Event, release: Any, times: int = 1) -> None:
    import asyncio

    task = asyncio.ensure_future(work())
    await reached.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await lab.spin()
    release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def _by_ten_task_cancels(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    await _by_task_cancel(lab, work, reached, release, 10)


async def _by_cancels_until_it_ends(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    import asyncio

    task = asyncio.ensure_future(work())
    await reached.wait()
    task.cancel()
    await lab.spin()
    release()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def _by_asyncio_timeout(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    import asyncio

    async def expire(limit: Any) -> None:
        await reached.wait()
        limit.reschedule(asyncio.get_running_loop().time())
        await lab.spin()
        release()

    with pytest.raises(TimeoutError):  # noqa: PT012
        async with asyncio.timeout(None) as limit:
            expiring = asyncio.ensure_future(expire(limit))
            await work()
    await expiring
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def _by_failing_sibling(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    import asyncio

    async def fail() -> None:
        await reached.wait()
        asyncio.get_running_loop().call_later(0.01, release)
        raise Boom("the sibling")

    with pytest.raises(Exception, match="TaskGroup") as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work())
            tasks.create_task(fail())
    assert [type(error) for error in caught.value.exceptions]  # type: ignore[attr-defined] == [Boom]
    assert task.cancelled()


async def _by_nursery(lab: Lab, work: Any, reached: anyio.Event, release: Any) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await reached.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await lab.spin()
        release()


_SINCE_3_11 = ("asyncio.timeout", "failing sibling")
_WAYS: dict[tuple[str, str], Any] = {
    ("asyncio", "scope"): _by_scope,
    ("asyncio", "two scopes"): _by_two_scopes,
    ("asyncio", "task.cancel()"): _by_task_cancel,
    ("asyncio", "ten task.cancel()"): _by_ten_task_cancels,
    ("asyncio", "task.cancel() until it ends"): _by_cancels_until_it_ends,
    ("asyncio", "asyncio.timeout"): _by_asyncio_timeout,
    ("asyncio", "failing sibling"): _by_failing_sibling,
    ("trio", "scope"): _by_scope,
    ("trio", "two scopes"): _by_two_scopes,
    ("trio", "nursery"): _by_nursery,
}


def _cancellations() -> list[Any]:
    """Each backend with each way of cancelling that it has."""
    # Not in asyncio's debug mode, which takes half of the time.
    cases: list[Any] = []
    for id_, backend, options in (
        ("asyncio", "asyncio", {}),
        ("uvloop", "asyncio", {"use_uvloop": True}),
        ("trio", "trio", {"restrict_keyboard_interrupt_to_checkpoints": True}),
    ):
        is_missing = importlib.util.find_spec(id_) is None
        marks = [pytest.mark.skip(reason=f"{id_} is not installed")] if is_missing else []
        cases += [
            pytest.param((backend, options), way, id=f"{id_}-{way}", marks=marks)
            for kind, way in _WAYS
            if kind == backend and (sys.version_info >= (3, 11) or way not in _SINCE_3_11)
        ]
    return cases


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``cancelled_by`` runs once for each way of cancelling that its backend has."""
    if "cancelled_by" in metafunc.fixturenames:
        # As a mark, which takes the place of the backend's own parameters.
        mark = pytest.mark.parametrize(("anyio_backend", "cancelled_by"), _cancellations())
        metafunc.definition.add_marker(mark)


@pytest.fixture(params=["transaction", "pull", "push"])
def how(request: pytest.FixtureRequest) -> str:
    """How a run is consumed: a transaction of the saga's, ``async for`` over the stream of a mediator that was entered,
    or ``async with`` the stream of one that was not.
    """
    name: str = request.param
    return name


@pytest.fixture
def lab(backend_name: str) -> Lab:
    """Steps, sagas, a storage and a log."""
    return Lab(backend_name)


@pytest.fixture(scope="session")
def quick_collections() -> Iterator[None]:
    """What was imported before is left out of the many garbage collections of these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def nothing_unraisable(monkeypatch: pytest.MonkeyPatch, quick_collections: None) -> Iterator[list[Any]]:
    """Nothing is complained about by a destructor. A test that expects complaints empties the list."""
    complaints: list[Any] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: complaints.append((unraisable.exc_value, str(unraisable.object)))
    )
    yield complaints
    gc.collect()
    assert complaints == []
