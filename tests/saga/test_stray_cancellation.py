"""On asyncio, a step that awaits what somebody else has cancelled raises CancelledError: nobody cancelled the saga."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from cqrs import Parallel, compensation_errors
from cqrs.exceptions import SagaCompensationError, StrayCancellationError


async def await_something_cancelled(_: Any = None) -> None:
    import asyncio

    future: Any = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.fixture(autouse=True)
def on_asyncio(lab: Any) -> None:
    if lab.backend != "asyncio":
        pytest.skip("trio has no such cancellation")


async def test_a_parallel_step(lab: Any, how: str) -> None:
    """The saga does not pass for completed: it is rolled back, and the caller told."""
    saga = lab.saga(lab.step("A"), Parallel(lab.step("P", await_something_cancelled), lab.step("Q")), lab.step("Z"))
    with pytest.raises(StrayCancellationError):
        await lab.run(saga, how)
    assert "Z" not in lab.log
    assert lab.log[-1] == "~A"
    assert "~P" in lab.log
    assert await lab.status() == "failed"


async def test_a_step_of_a_pipelined_saga(lab: Any) -> None:
    """The consumer's loop does not end as if all were well."""
    saga = lab.saga(lab.step("A"), lab.step("P", await_something_cancelled))
    with anyio.fail_after(5), pytest.raises(StrayCancellationError):
        await lab.run(saga, "push")
    assert await lab.status() == "failed"


@pytest.mark.parametrize("is_parallel", [False, True], ids=["one", "parallel"])
async def test_a_compensation(lab: Any, is_parallel: bool) -> None:
    """It has failed, as any other that raises: nothing passes for undone, and the steps before it are."""
    steps = [lab.step("P", undo=await_something_cancelled), lab.step("Q", undo=await_something_cancelled)]
    group = [Parallel(*steps)] if is_parallel else steps[:1]
    saga = lab.saga(lab.step("A"), *group, lab.step("Z", lab.Raising(lab.Boom())))
    with pytest.raises(lab.Boom) as caught:
        await lab.run(saga, compensation_retry_delay=0.0)
    failures = compensation_errors(caught.value)
    assert len(failures) == (2 if is_parallel else 1)
    assert all(isinstance(failure, SagaCompensationError) for failure in failures)
    assert lab.log[-1] == "~A"
    assert await lab.status() == "compensation_failed"
    assert not await lab.is_held()
