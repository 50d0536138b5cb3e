"""What a cancelled send leaves behind: nothing that runs, nothing that is open, and permits for the next."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs import EventFailurePolicy, ScopeStrategy

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

Work = Callable[[], Awaitable[Any]]
Run = Callable[[Callable[[Any], Awaitable[None]]], None]


@dataclasses.dataclass
class Do(cqrs.DCRequest):
    work: Work


@dataclasses.dataclass(frozen=True)
class Job(cqrs.DCDomainEvent):
    work: Work


class Resource:
    """Something that a scope opens and closes; closing it awaits."""

    def __init__(self) -> None:
        self.is_open = True
        self.closed_with: BaseException | None = None


class Recording:
    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self._events: Sequence[cqrs.IEvent] = ()

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, message: Any) -> None:
        assert self.resource.is_open
        self._events = await message.work() or ()
        assert self.resource.is_open


class DoHandler(Recording, cqrs.RequestHandler[Do, None]):
    pass


class JobHandler(Recording, cqrs.EventHandler[Job]):
    pass


class Application:
    """A mediator over a container with a scoped resource."""

    def __init__(self, limit: int = 1, **options: Any) -> None:
        self.resources: list[Resource] = []
        self.running = 0
        self.container = cqrs.PlainContainer()
        self.container.register(Resource, self._open, lifetime=cqrs.Lifetime.SCOPED)
        requests, events = cqrs.RequestMap(), cqrs.EventMap()
        requests.bind(Do, DoHandler)
        events.bind(Job, JobHandler)
        self.mediator = cqrs.RequestMediator(
            requests, self.container, event_map=events, max_concurrent_event_handlers=limit, **options
        )

    async def _open(self) -> AsyncIterator[Resource]:
        resource = Resource()
        self.resources.append(resource)
        try:
            yield resource
        except BaseException as error:
            resource.closed_with = error
            raise
        finally:
            resource.is_open = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def forever(self) -> None:
        async with self.at_work():
            await anyio.sleep_forever()

    def assert_all_closed(self, opened: int) -> None:
        assert len(self.resources) == opened
        assert not any(resource.is_open for resource in self.resources)
        assert self.running == 0

    async def assert_permits_are_back(self, limit: int) -> None:
        """As many handlers as there are permits can run at once."""
        arrived, everybody = 0, anyio.Event()

        async def meet() -> None:
            nonlocal arrived
            arrived += 1
            if arrived == limit:
                everybody.set()
            await everybody.wait()

        async def jobs() -> list[Job]:
            return [Job(meet) for _ in range(limit)]

        with anyio.fail_after(5):
            await self.mediator.send(Do(jobs))


def test_a_request_handler_ends_and_its_scope_is_closed(run_cancelled: Run) -> None:
    """Cancelled in the request handler, send ends it and closes its scope, which is told of the cancellation."""

    async def test(cancel: Any) -> None:
        application, started = Application(), anyio.Event()

        async def work() -> None:
            started.set()
            await application.forever()

        await cancel(lambda: application.mediator.send(Do(work)), started)
        application.assert_all_closed(1)
        assert isinstance(application.resources[0].closed_with, anyio.get_cancelled_exc_class())

    run_cancelled(test)


@pytest.mark.parametrize("policy", list(EventFailurePolicy))
@pytest.mark.parametrize(("limit", "events"), [(1, 3), (3, 1), (3, 8)])
def test_event_handlers_end_and_their_scopes_are_closed(
    run_cancelled: Run, policy: EventFailurePolicy, limit: int, events: int
) -> None:
    """Cancelled while events are handled, send ends their handlers, starts no other and gives back all permits."""

    async def test(cancel: Any) -> None:
        application = Application(limit, event_failure_policy=policy)
        started, at_once = anyio.Event(), min(limit, events)

        async def work() -> None:
            if application.running == at_once - 1:
                started.set()
            await application.forever()

        async def jobs() -> list[Job]:
            return [Job(work) for _ in range(events)]

        await cancel(lambda: application.mediator.send(Do(jobs)), started)
        application.assert_all_closed(1 + at_once)
        await application.assert_permits_are_back(limit)

    run_cancelled(test)


def test_one_scope_for_all_is_closed_once(run_cancelled: Run) -> None:
    """With ScopeStrategy.SEND the one scope is open until the cancelled event handler has ended, and then closed."""

    async def test(cancel: Any) -> None:
        application = Application(concurrent_event_handle_enable=False, scope_strategy=ScopeStrategy.SEND)
        started = anyio.Event()

        async def work() -> None:
            try:
                started.set()
                await application.forever()
            finally:
                assert application.resources[0].is_open

        async def jobs() -> list[Job]:
            return [Job(work), Job(work)]

        await cancel(lambda: application.mediator.send(Do(jobs)), started)
        application.assert_all_closed(1)

    run_cancelled(test)


def test_nested_sends_end(run_cancelled: Run) -> None:
    """A cancellation reaches handlers three sends deep, and every scope on the way is closed."""

    async def test(cancel: Any) -> None:
        application, started = Application(2), anyio.Event()

        def level(left: int) -> Work:
            async def work() -> None:
                if not left:
                    started.set()
                    await application.forever()

                async def jobs() -> list[Job]:
                    return [Job(level(left - 1)), Job(level(left - 1))]

                async with application.at_work():
                    await application.mediator.send(Do(jobs))

            return work

        await cancel(lambda: application.mediator.send(Do(level(3))), started)
        assert not any(resource.is_open for resource in application.resources)
        assert application.running == 0
        await application.assert_permits_are_back(2)

    run_cancelled(test)


def test_a_call_that_waits_for_a_permit_holds_nothing(run_cancelled: Run) -> None:
    """Cancelled while it waits for a permit, a call leaves the queue, and no handler of it has started."""

    async def test(cancel: Any) -> None:
        application, started, let_go = Application(1), anyio.Event(), anyio.Event()
        handled: list[str] = []

        async def hold() -> list[Job]:
            return [Job(let_go.wait)]

        async def never() -> None:
            handled.append("never")

        async def jobs() -> list[Job]:
            return [Job(never), Job(never)]

        async def wait_for_a_permit() -> None:
            async with anyio.create_task_group() as tasks:

                async def tell() -> None:
                    await anyio.wait_all_tasks_blocked()
                    started.set()

                tasks.start_soon(tell)
                await application.mediator.send(Do(jobs))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(application.mediator.send, Do(hold))
            await anyio.wait_all_tasks_blocked()
            await cancel(wait_for_a_permit, started)
            let_go.set()
        assert handled == []
        await application.assert_permits_are_back(1)

    run_cancelled(test)


def test_handlers_finish_what_they_shield(run_cancelled: Run) -> None:
    """A handler that runs under a shield in a child task is waited for; what comes after it is not started."""

    async def test(cancel: Any) -> None:
        application, started, ended = Application(2), anyio.Event(), list[str]()

        async def shielded() -> None:
            async def child() -> None:
                with anyio.CancelScope(shield=True):
                    for _ in range(5):
                        await checkpoint()
                    ended.append("child")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                started.set()
                await anyio.sleep_forever()

        async def jobs() -> list[Job]:
            return [Job(shielded), Job(shielded), Job(shielded), Job(shielded)]

        await cancel(lambda: application.mediator.send(Do(jobs)), started)
        assert 1 <= len(ended) <= 2
        application.assert_all_closed(1 + len(ended))
        await application.assert_permits_are_back(2)

    run_cancelled(test)


class CleanupError(Exception):
    pass


async def cancelled_with_failing_cleanup(policy: EventFailurePolicy, limit: int) -> tuple[list[BaseException], int]:
    """Cancel by scope a send whose running event handlers fail while they clean up; what left, how many started."""
    application = Application(limit, concurrent_event_handle_enable=limit > 1, event_failure_policy=policy)
    left: list[BaseException] = []
    begun, is_started = 0, anyio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == limit:
            is_started.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise CleanupError

    async def jobs() -> list[Job]:
        return [Job(work) for _ in range(5)]

    async def send() -> None:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_later, scope)
            try:
                await application.mediator.send(Do(jobs))
            except BaseException as error:
                left.append(error)
                raise

    async def cancel_later(scope: anyio.CancelScope) -> None:
        await is_started.wait()
        scope.cancel()

    with anyio.fail_after(5):
        with contextlib.suppress(CleanupError, ExceptionGroup):
            async with anyio.create_task_group() as tasks:
                await send()
    assert all(_leaves(error) <= {CleanupError, anyio.get_cancelled_exc_class()} for error in left)
    application.assert_all_closed(1 + begun)
    return left, begun


def _leaves(error: BaseException) -> set[type]:
    inner = getattr(error, "exceptions", None)
    return {type(error)} if inner is None else {kind for each in inner for kind in _leaves(each)}


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("policy", list(EventFailurePolicy))
async def test_failing_cleanup_starts_nothing_further(policy: EventFailurePolicy, limit: int) -> None:
    """Handlers that fail while they are cancelled do not make send go on with the next events, whatever the policy."""
    left, begun = await cancelled_with_failing_cleanup(policy, limit)
    assert begun == limit
    assert len(left) == 1


async def test_one_failure_in_cleanup_leaves_as_itself() -> None:
    """One handler that fails while all are cancelled: its failure leaves send, not a group with cancellations in it."""
    application, is_started = Application(2), anyio.Event()
    failure, left, running = CleanupError(), list[BaseException](), 0

    def work(error: Exception | None) -> Work:
        async def run() -> None:
            nonlocal running
            running += 1
            if running == 2:
                is_started.set()
            try:
                await anyio.sleep_forever()
            finally:
                if error is not None:
                    raise error

        return run

    async def jobs() -> list[Job]:
        return [Job(work(None)), Job(work(failure))]

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:

                async def cancel_later() -> None:
                    await is_started.wait()
                    scope.cancel()

                tasks.start_soon(cancel_later)
                try:
                    await application.mediator.send(Do(jobs))
                except BaseException as error:
                    left.append(error)
    assert left == [failure]
    application.assert_all_closed(3)


async def test_failures_that_were_kept_are_logged_when_the_call_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Under WAIT a failure that the cancelled call cannot raise any more goes to the log."""
    application, failed = Application(event_failure_policy=EventFailurePolicy.WAIT), anyio.Event()

    async def fail() -> None:
        raise CleanupError("kept")

    async def hang() -> None:
        failed.set()
        await application.forever()

    async def jobs() -> list[Job]:
        return [Job(fail), Job(hang)]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(application.mediator.send, Do(jobs))
        await failed.wait()
        tasks.cancel_scope.cancel()
    logged = [record.exc_info[1] for record in caplog.records if record.name == "cqrs" and record.exc_info]
    assert [repr(error) for error in logged] == ["CleanupError('kept')"]


async def test_a_scope_is_closed_although_its_cleanup_awaits() -> None:
    """Closing a scope is shielded: clean-up that awaits is done to its end in a cancelled send."""
    started, closed = anyio.Event(), list[str]()

    async def opened() -> AsyncIterator[Resource]:
        try:
            yield Resource()
        finally:
            for _ in range(3):
                await checkpoint()
            closed.append("closed")

    application = Application()
    application.container.register(Resource, opened, lifetime=cqrs.Lifetime.SCOPED)

    async def work() -> None:
        started.set()
        await application.forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(application.mediator.send, Do(work))
        await started.wait()
        tasks.cancel_scope.cancel()
    assert closed == ["closed"]


async def test_cleanup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a scope is bounded: a resource that hangs while it closes does not hold a cancelled send for ever."""
    monkeypatch.setattr("cqrs.container.scope.CLEANUP_TIMEOUT", 0.02)
    started = anyio.Event()

    async def opened() -> AsyncIterator[Resource]:
        try:
            yield Resource()
        finally:
            await anyio.sleep_forever()

    application = Application()
    application.container.register(Resource, opened, lifetime=cqrs.Lifetime.SCOPED)

    async def work() -> None:
        started.set()
        await application.forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(application.mediator.send, Do(work))
            await started.wait()
            tasks.cancel_scope.cancel()
    assert application.running == 0
