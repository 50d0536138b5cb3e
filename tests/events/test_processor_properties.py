"""Random trees of events: whatever they do, the promises of the processor hold."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs import EventFailurePolicy
from cqrs.events.event_processor import EventProcessor

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

BACKENDS = [
    pytest.param(
        backend,
        marks=[] if importlib.util.find_spec(backend) else [pytest.mark.skip(reason=f"{backend} is not installed")],
    )
    for backend in ("asyncio", "trio")
]
relaxed = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


class Boom(Exception):
    """What a node fails with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """What handling one event does, in this order."""

    suspends: int
    nested: tuple[Node, ...]
    suspends_again: int
    fails: bool
    follows: tuple[Node, ...]
    """The events that it records, if it does not fail."""

    def __repr__(self) -> str:
        return f"Node({self.suspends}, {self.nested}, {self.suspends_again}, {self.fails}, {self.follows})"


def trees(*, can_fail: bool) -> st.SearchStrategy[list[Node]]:
    suspends = st.integers(0, 3)
    fails = st.integers(0, 5).map(lambda die: can_fail and die == 0)
    nothing = st.just(())

    def node(nested: Any, follows: Any) -> st.SearchStrategy[Node]:
        return st.builds(Node, suspends, nested, suspends, fails, follows)

    leaf = node(nothing, nothing)
    inner = st.recursive(
        leaf,
        lambda below: node(st.lists(below, max_size=3).map(tuple) | nothing, st.lists(below, max_size=3).map(tuple)),
        max_leaves=12,
    )
    return st.lists(inner, min_size=1, max_size=6)


@dataclasses.dataclass(frozen=True)
class Step(cqrs.DCDomainEvent):
    node: Any
    world: Any


class StepHandler(cqrs.EventHandler[Step]):
    def __init__(self) -> None:
        self._events: Sequence[cqrs.IEvent] = ()

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, event: Step) -> None:
        self._events = await event.world.handle(event.node)


class World:
    """Handles nodes, and watches how."""

    def __init__(self, limit: int, *, is_concurrent: bool = True, policy: EventFailurePolicy) -> None:
        self.limit = limit if is_concurrent else 1
        self.running = self.begun = self.ended = 0
        self.order: list[Node] = []
        self.booms: dict[Node, Boom] = {}
        self.reported: list[Exception] = []
        event_map = cqrs.EventMap()
        event_map.bind(Step, StepHandler)
        self.processor = EventProcessor(
            event_map,
            cqrs.EventEmitter(event_map, cqrs.PlainContainer()),
            limit,
            is_concurrent,
            failure_policy=policy,
            on_error=lambda _, error: self.reported.append(error),
        )

    async def emit(self, nodes: Sequence[Node]) -> None:
        await self.processor.emit_events([Step(node, self) for node in nodes])

    async def handle(self, node: Node) -> list[Step]:
        self.begun += 1
        self._enter()
        self.order.append(node)
        try:
            await self._suspend(node.suspends)
            if node.nested:
                await self._wait_for(node.nested)
            await self._suspend(node.suspends_again)
            if node.fails:
                raise self.booms.setdefault(node, Boom())
        finally:
            self.running -= 1
            self.ended += 1
        return [Step(below, self) for below in node.follows]

    async def _wait_for(self, nodes: Sequence[Node]) -> None:
        self.running -= 1  # lends its permit
        try:
            await self.emit(nodes)
        finally:
            self._enter()

    def _enter(self) -> None:
        self.running += 1
        assert self.running <= self.limit, "more handlers run than the limit allows"

    async def _suspend(self, times: int) -> None:
        for _ in range(times):
            await checkpoint()


def leaves(error: BaseException | None) -> list[BaseException]:
    if error is None:
        return []
    inner = getattr(error, "exceptions", None)
    return [error] if inner is None else [leaf for each in inner for leaf in leaves(each)]


def breadth_first(nodes: Sequence[Node]) -> Iterator[Node]:
    queue = list(nodes)
    while queue:
        node = queue.pop(0)
        yield node
        yield from breadth_first(node.nested)
        queue.extend(node.follows)


def expected(nodes: Sequence[Node], *, isolate: bool) -> tuple[list[Node], set[Node]]:
    """Who is handled, and who fails, when nothing is cancelled."""
    handled, failed, queue = list[Node](), set[Node](), list(nodes)
    while queue:
        node = queue.pop(0)
        below_handled, below_failed = expected(node.nested, isolate=isolate)
        handled += [node, *below_handled]
        failed |= below_failed
        if below_failed and not isolate:
            continue
        if node.fails:
            failed.add(node)
        else:
            queue.extend(node.follows)
    return handled, failed


def run(backend: str, world: World, nodes: Sequence[Node], *, cancel_after: int | None = None) -> BaseException | None:
    """Emit the nodes in an event loop of its own; what it raised."""
    raised: list[BaseException] = []

    async def main() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    if cancel_after is not None:

                        async def cancel() -> None:
                            for _ in range(cancel_after):
                                await checkpoint()
                            scope.cancel()

                        tasks.start_soon(cancel)
                    try:
                        await world.emit(nodes)
                    except BaseException as error:
                        raised.append(error)
                        if not isinstance(error, Exception):
                            raise
                assert world.running == 0
                assert world.begun == world.ended, "a handler was left running"
        await permits_are_back(world)

    anyio.run(main, backend=backend)
    return raised[0] if raised else None


async def permits_are_back(world: World) -> None:
    still = World.__new__(World)
    still.__dict__.update(world.__dict__, running=0, begun=0, ended=0, order=[], booms={}, reported=[])
    await still.emit([Node(2, (), 0, False, ())] * still.limit)
    assert still.ended == still.limit


@pytest.mark.parametrize("backend", BACKENDS)
@given(nodes=trees(can_fail=False), limit=st.integers(1, 5), policy=st.sampled_from(EventFailurePolicy))
@relaxed
def test_every_event_is_handled_once(backend: str, nodes: list[Node], limit: int, policy: EventFailurePolicy) -> None:
    """Without failures every event is handled exactly once, within the limit, however calls are nested."""
    world = World(limit, policy=policy)
    assert run(backend, world, nodes) is None
    assert Counter(map(id, world.order)) == Counter(map(id, breadth_first(nodes)))


@pytest.mark.parametrize("backend", BACKENDS)
@given(nodes=trees(can_fail=False), limit=st.integers(1, 5), is_concurrent=st.booleans())
@relaxed
def test_order_is_kept(backend: str, nodes: list[Node], limit: int, is_concurrent: bool) -> None:
    """One after the other, or with a limit of one, events are handled breadth first."""
    world = World(1 if is_concurrent else limit, is_concurrent=is_concurrent, policy=EventFailurePolicy.CANCEL)
    assert run(backend, world, nodes) is None
    assert world.order == list(breadth_first(nodes))


@pytest.mark.parametrize("backend", BACKENDS)
@given(nodes=trees(can_fail=True), limit=st.integers(1, 5), is_concurrent=st.booleans())
@relaxed
def test_cancel_raises_what_failed(backend: str, nodes: list[Node], limit: int, is_concurrent: bool) -> None:
    """Under CANCEL a call fails exactly if a handler did, with the very errors, one of them as itself."""
    world = World(limit, is_concurrent=is_concurrent, policy=EventFailurePolicy.CANCEL)
    error = run(backend, world, nodes)
    _, failed = expected(nodes, isolate=False)
    assert (error is not None) == bool(failed)
    assert set(leaves(error)) == set(world.booms.values())
    assert isinstance(error, Boom) or len(leaves(error)) != 1
    assert len(leaves(error)) <= limit
    assert not any(count > 1 for count in Counter(map(id, world.order)).values())
    if not is_concurrent:
        assert world.order == list(breadth_first(nodes))[: len(world.order)]
        assert len(world.booms) <= 1


@pytest.mark.parametrize("backend", BACKENDS)
@given(nodes=trees(can_fail=True), limit=st.integers(1, 5), is_concurrent=st.booleans())
@relaxed
def test_wait_raises_every_failure(backend: str, nodes: list[Node], limit: int, is_concurrent: bool) -> None:
    """Under WAIT everything that does not follow from a failure is handled, and every failure leaves."""
    world = World(limit, is_concurrent=is_concurrent, policy=EventFailurePolicy.WAIT)
    error = run(backend, world, nodes)
    handled, failed = expected(nodes, isolate=False)
    assert Counter(map(id, world.order)) == Counter(map(id, handled))
    assert Counter(leaves(error)) == Counter(world.booms[node] for node in failed)
    assert isinstance(error, Boom) or len(leaves(error)) != 1


@pytest.mark.parametrize("backend", BACKENDS)
@given(nodes=trees(can_fail=True), limit=st.integers(1, 5), is_concurrent=st.booleans())
@relaxed
def test_isolate_reports_every_failure(backend: str, nodes: list[Node], limit: int, is_concurrent: bool) -> None:
    """Under ISOLATE the call succeeds, and each failure is reported once."""
    world = World(limit, is_concurrent=is_concurrent, policy=EventFailurePolicy.ISOLATE)
    assert run(backend, world, nodes) is None
    handled, failed = expected(nodes, isolate=True)
    assert Counter(map(id, world.order)) == Counter(map(id, handled))
    assert Counter(world.reported) == Counter(world.booms[node] for node in failed)


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    nodes=trees(can_fail=True),
    limit=st.integers(1, 5),
    policy=st.sampled_from(EventFailurePolicy),
    is_concurrent=st.booleans(),
    cancel_after=st.integers(0, 12),
)
@relaxed
def test_cancelled_anywhere_nothing_is_left(
    backend: str,
    nodes: list[Node],
    limit: int,
    policy: EventFailurePolicy,
    is_concurrent: bool,
    cancel_after: int,
) -> None:
    """Cancelled at any point, a call has ended all that it began, within the limit, and its permits are back."""
    world = World(limit, is_concurrent=is_concurrent, policy=policy)
    error = run(backend, world, nodes, cancel_after=cancel_after)
    assert not any(count > 1 for count in Counter(map(id, world.order)).values())
    if isinstance(error, Exception):
        assert set(leaves(error)) <= set(world.booms.values())


@given(
    nodes=trees(can_fail=False),
    limit=st.integers(1, 5),
    policy=st.sampled_from(EventFailurePolicy),
    cancel_after=st.integers(0, 12),
    again=st.booleans(),
)
@relaxed
def test_a_native_cancellation_is_never_swallowed(
    nodes: list[Node], limit: int, policy: EventFailurePolicy, cancel_after: int, again: bool
) -> None:
    """A task that is cancelled natively in a call, once or again and again, ends as cancelled, with nothing left."""
    world = World(limit, policy=policy)

    async def main() -> None:
        with anyio.fail_after(20):
            task = asyncio.ensure_future(world.emit(nodes))
            for _ in range(cancel_after):
                await checkpoint()
            was_cancelled = task.cancel()
            while again and not task.done():
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert task.cancelled() == was_cancelled
            assert world.running == 0
            assert world.begun == world.ended
            assert asyncio.all_tasks() == {asyncio.current_task()}
            await permits_are_back(world)

    anyio.run(main, backend="asyncio")
