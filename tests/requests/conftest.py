"""The ways in which a call can be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

Work = Callable[[], Awaitable[Any]]
Cancel = Callable[[Work, anyio.Event], Awaitable[None]]
"""Runs the work, cancels it when the event is set, and comes back when it has ended."""


class Escaped(Exception):
    """The cancelled work went on."""


async def by_scope(work: Work, started: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await work()
                raise Escaped

        tasks.start_soon(run)
        await started.wait()
        scope.cancel()


async def by_task_group(work: Work, started: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await started.wait()
        tasks.cancel_scope.cancel()


async def by_deadline(work: Work, started: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await work()
                raise Escaped

        tasks.start_soon(run)
        await started.wait()
        scope.deadline = anyio.current_time()


async def by_scope_again_and_again(work: Work, started: anyio.Event) -> None:
    with anyio.CancelScope() as outer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await started.wait()
            tasks.cancel_scope.cancel()
            outer.cancel()


async def by_task_cancel(work: Work, started: anyio.Event) -> None:
    task = asyncio.ensure_future(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def by_task_cancel_again_and_again(work: Work, started: anyio.Event) -> None:
    task = asyncio.ensure_future(work())
    await started.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def by_wait_for(work: Work, started: anyio.Event) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(work(), 0.02)
    assert started.is_set()


async def by_asyncio_timeout(work: Work, started: anyio.Event) -> None:
    async def expire(limit: Any) -> None:
        await started.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):  # noqa: PT012
        async with asyncio.timeout(None) as limit:
            expiring = asyncio.ensure_future(expire(limit))
            await work()
    await expiring
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def by_asyncio_task_group(work: Work, started: anyio.Event) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work())  # type: ignore[arg-type]
            await started.wait()
            raise Escaped
    assert task.cancelled()


async def by_trio_nursery(work: Work, started: anyio.Event) -> None:
    async with sys.modules["trio"].open_nursery() as nursery:
        nursery.start_soon(work)
        await started.wait()
        nursery.cancel_scope.cancel()


ANYIO = (by_scope, by_task_group, by_deadline, by_scope_again_and_again)
TRIO = (*ANYIO, by_trio_nursery)
ASYNCIO = (
    *ANYIO,
    by_task_cancel,
    by_task_cancel_again_and_again,
    by_wait_for,
    *((by_asyncio_timeout, by_asyncio_task_group) if sys.version_info >= (3, 11) else ()),
)


def _cases() -> list[Any]:
    cases: list[Any] = []
    for name, backend, options, kinds in (
        ("asyncio", "asyncio", {"debug": True}, ASYNCIO),
        ("uvloop", "asyncio", {"use_uvloop": True, "debug": True}, ASYNCIO),
        ("trio", "trio", {"restrict_keyboard_interrupt_to_checkpoints": True}, TRIO),
    ):
        is_missing = importlib.util.find_spec(name) is None
        marks = [pytest.mark.skip(reason=f"{name} is not installed")] if is_missing else []
        cases += [pytest.param(((backend, options), kind), id=f"{name}-{kind.__name__}", marks=marks) for kind in kinds]
    return cases


@pytest.fixture(params=_cases())
def cancellation(request: pytest.FixtureRequest) -> tuple[tuple[str, dict[str, Any]], Cancel]:
    """One backend, and one way of cancelling that it has."""
    case: tuple[tuple[str, dict[str, Any]], Cancel] = request.param
    return case


@pytest.fixture
def run_cancelled(
    cancellation: tuple[tuple[str, dict[str, Any]], Cancel],
) -> Callable[[Callable[[Cancel], Awaitable[None]]], None]:
    """Runs a test function in an event loop of its own, with the way of cancelling as its argument."""
    (backend, options), cancel = cancellation

    def run(test: Callable[[Cancel], Awaitable[None]]) -> None:
        async def main() -> None:
            with anyio.fail_after(10):
                before = _tasks_alive(backend)
                await test(cancel)
                assert _tasks_alive(backend) == before, "a task was left behind"

        anyio.run(main, backend=backend, backend_options=options)

    return run


def _tasks_alive(backend: str) -> int:
    if backend == "trio":
        living: int = sys.modules["trio"].lowlevel.current_statistics().tasks_living
        return living
    return len(asyncio.all_tasks())
