"""A saga on its way forward: its results, its context, its instances, its events, and what is durable when."""

from __future__ import annotations

import abc
import uuid
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cqrs import Lifetime, NotificationEvent, PlainContainer, SagaStepHandler
from cqrs.exceptions import SagaDoesNotExist, SagaLockedError, SagaRolledBackError
from cqrs.middlewares.logging import LoggingMiddleware
from cqrs.middlewares.retry import RetryMiddleware
from cqrs.middlewares.timeout import TimeoutMiddleware


async def test_results_come_in_order_with_the_sagas_id(lab: Any, how: str) -> None:
    """Each step gives one result, in order, that names its step and the saga; then the saga is COMPLETED."""
    steps = [lab.step(name) for name in "ABC"]
    assert await lab.run(lab.saga(*steps), how) == ["A", "B", "C"]
    assert [result.step_type for result in lab.results] == steps
    assert {result.saga_id for result in lab.results} == {lab.id}
    assert lab.log == ["A", "B", "C"]
    assert await lab.status() == "completed"
    assert not await lab.is_held()


async def test_a_run_without_an_id_gets_one(lab: Any) -> None:
    """Without a ``saga_id`` each run has an id of its own, which its results and the transaction tell."""
    saga = lab.saga(lab.step("A"))
    mediator = lab.mediator(saga)
    ids = {result.saga_id for _ in range(2) async for result in mediator.stream(lab.Order())}
    transaction = saga().transaction(lab.Order(), lab.container, lab.storage)
    async with transaction:
        ids |= {result.saga_id async for result in transaction}
    assert len(ids) == 3
    assert transaction.saga_id in ids
    assert all(isinstance(saga_id, uuid.UUID) for saga_id in ids)


async def test_execute_is_stream(lab: Any) -> None:
    """``execute`` is the other documented name of ``stream``."""
    mediator = lab.mediator(lab.saga(lab.step("A")))
    assert [result.response async for result in mediator.execute(lab.context, saga_id=lab.id)] == ["A"]


async def test_a_context_that_no_saga_is_bound_to(lab: Any) -> None:
    """Streaming raises SagaDoesNotExist at once, and says what to do."""

    class Other(lab.Order):
        pass

    with pytest.raises(SagaDoesNotExist, match=r"mapper\.bind\(Other, YourSaga\)"):
        lab.mediator(lab.saga(lab.step("A"))).stream(Other())


async def test_the_context_is_shared_and_stored(lab: Any, how: str) -> None:
    """Steps work on the caller's own context; each sees what those before it wrote, and so does the storage."""

    def adding(amount: int) -> Any:
        async def act(context: Any) -> None:
            assert context is lab.context
            context.marks.append(f"{context.total}")
            context.total += amount

        return act

    await lab.run(lab.saga(lab.step("A", adding(1)), lab.step("B", adding(2)), lab.step("C", adding(4))), how)
    assert lab.context.total == 7
    assert lab.context.marks == ["0", "1", "3"]
    assert await lab.stored() == {"marks": ["0", "1", "3"], "total": 7, "note": None}


async def test_a_step_that_is_listed_twice_acts_twice(lab: Any, how: str) -> None:
    """In [A, B, A] both A act, each an instance of its own, and the log tells them apart."""
    step = lab.step("A")
    assert await lab.run(lab.saga(step, lab.step("B"), step), how) == ["A", "B", "A"]
    assert len(lab.instances) == 3
    expected = [f"{name} {status}" for name in ("A", "B", "A#2") for status in ("started", "completed")]
    assert sorted(await lab.history()) == sorted(expected)


async def test_a_step_that_is_listed_twice_is_compensated_twice(lab: Any, how: str) -> None:
    """In [A, B, A, C] where C fails, what is undone is A, B and A, in reverse."""
    step = lab.step("A")
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(step, lab.step("B"), step, lab.step("C", lab.Raising(lab.Boom()))), how)
    assert lab.log == ["A", "B", "A", "C", "~A", "~B", "~A"]


async def test_a_step_may_return_nothing(lab: Any, how: str) -> None:
    """A step that returns None, or a bare value, has that as the response of its result."""

    class Silent(SagaStepHandler[lab.Order, None]):
        async def act(self, context: Any) -> Any:
            await checkpoint()

    class Bare(SagaStepHandler[lab.Order, int]):
        async def act(self, context: Any) -> Any:
            await checkpoint()
            return 7

    assert await lab.run(lab.saga(Silent, Bare), how) == [None, 7]
    assert [result.step_type for result in lab.results] == [Silent, Bare]
    assert lab.results[0].saga_id == lab.id
    assert await lab.status() == "completed"


async def test_a_result_may_tell_of_an_error(lab: Any, how: str) -> None:
    """What a step puts into its result is handed out as it is, and the saga goes on."""

    class Warned(lab.step("A")):  # type: ignore[misc]
        async def act(self, context: Any) -> Any:
            return self._generate_step_result("half", True, "not all of it", ["line"], ValueError)

    await lab.run(lab.saga(Warned, lab.step("B")), how)
    result = lab.results[0]
    assert (result.response, result.with_error, result.error_message) == ("half", True, "not all of it")
    assert (result.error_traceback, result.error_type, result.saga_id) == (["line"], ValueError, lab.id)
    assert await lab.status() == "completed"


async def test_an_empty_saga_completes(lab: Any, how: str) -> None:
    """A saga without steps gives nothing, and is COMPLETED."""
    assert await lab.run(lab.saga(), how) == []
    assert await lab.status() == "completed"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_one_commit_a_step_and_two_more(lab: Any, how: str, count: int) -> None:
    """A saga of three steps makes at most five commits, and each of the others two more than it has steps."""
    names = [f"Step{number}" for number in range(count)]
    await lab.run(lab.saga(*map(lab.step, names)), how)
    assert len(lab.storage.commits) == count + 2


async def test_the_journal_is_written_first(lab: Any, how: str) -> None:
    """STARTED is durable before a step acts; COMPLETED and the context together, before its result is there."""
    seen: list[Any] = []

    def watching(name: str) -> Any:
        async def act(context: Any) -> None:
            seen.append((await lab.history())[-1])
            context.marks.append(name)

        return act

    await lab.run(lab.saga(lab.step("A", watching("A")), lab.step("B", watching("B"))), how)
    assert seen == ["A started", "B started"]
    assert lab.storage.commits == [
        ["saga", "A started"],
        ["context", "A completed", "B started"],
        ["context", "B completed"],
        ["context", "completed", "release"],
    ]


async def test_a_result_is_durable_when_it_is_handed_out(lab: Any) -> None:
    """Whoever holds a result finds its step COMPLETED in the log, with the context that it left."""

    async def act(context: Any) -> None:
        context.total += 1

    async with lab.transaction(lab.saga(lab.step("A", act), lab.step("B", act))) as transaction:
        async for result in transaction:
            assert f"{result.response} completed" in await lab.history()
            assert (await lab.stored())["total"] == lab.context.total
    assert lab.context.total == 2


async def test_one_instance_acts_and_compensates(lab: Any, how: str) -> None:
    """The instance that acted is the one that is asked for its events and that compensates."""
    events: list[str] = []
    failing = lab.step("C", lab.Raising(lab.Boom()))

    class Remembering(lab.step("A")):  # type: ignore[misc]
        async def act(self, context: Any) -> Any:
            self.token = object()
            return await super().act(context)

        async def compensate(self, context: Any) -> None:
            assert self.token is not None
            await super().compensate(context)

    async def on_event(event: Any) -> None:
        events.append(event.step)

    options = {} if how == "transaction" else {"on_event": on_event}
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(Remembering, lab.step("B"), failing), how, **options)
    assert len(lab.instances) == 3
    assert lab.log == ["A", "B", "C", "~B", "~A"]
    assert events == ([] if how == "transaction" else ["A", "B"])


async def test_completed_steps_are_the_instances_that_acted(lab: Any) -> None:
    """A transaction tells the instances that acted, in order."""
    async with lab.transaction(lab.saga(lab.step("A"), lab.step("B"))) as transaction:
        await anext(transaction)
        assert transaction.completed_steps == lab.instances[:1]
        assert [result.response async for result in transaction] == ["B"]
        assert transaction.completed_steps == lab.instances


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_events_are_published_between_the_commit_and_the_result(lab: Any, how: str) -> None:
    """A step's events are handled once, when its COMPLETED is durable, and before its result is handed out."""
    happened: list[str] = []

    async def on_event(event: Any) -> None:
        assert f"{event.step} completed" in await lab.history()
        happened.append(f"event {event.step}")

    lab.on_result = lambda result: happened.append(f"result {result.response}")
    await lab.run(lab.saga(lab.step("A"), lab.step("B")), how, on_event=on_event)
    assert [thing for thing in happened if thing.endswith("A")] == ["event A", "result A"]
    assert [thing for thing in happened if thing.endswith("B")] == ["event B", "result B"]


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_a_failing_event_handler_rolls_the_saga_back(lab: Any, how: str) -> None:
    """What an event handler raises reaches the caller, and whatever acted is undone."""
    boom = lab.Boom("in a handler")

    async def on_event(event: Any) -> None:
        if event.step == "B":
            raise boom

    with pytest.raises(lab.Boom) as caught:
        await lab.run(lab.saga(*map(lab.step, "ABC")), how, on_event=on_event)
    assert caught.value is boom
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"
    assert not await lab.is_held()


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_a_failing_broker_rolls_the_saga_back(lab: Any, how: str) -> None:
    """What the message broker raises reaches the caller, and whatever acted is undone."""

    class Told(NotificationEvent, frozen=True):
        pass

    class Broker:
        async def send_message(self, message: Any) -> None:
            await checkpoint()
            raise lab.Boom("broker")

    class Telling(lab.step("B")):  # type: ignore[misc]
        @property
        def events(self) -> list[Any]:
            return [Told(topic="orders", event_name="told", payload=None)]

    with pytest.raises(lab.Boom, match="broker"):
        await lab.run(lab.saga(lab.step("A"), Telling), how, message_broker=Broker())
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_events_of_a_step_that_fails_are_not_published(lab: Any, how: str) -> None:
    """What a step recorded before it raised is never published, nor by the compensation of that instance."""
    published: list[str] = []

    class Failing(lab.step("B")):  # type: ignore[misc]
        async def act(self, context: Any) -> Any:
            await super().act(context)
            raise lab.Boom

    async def on_event(event: Any) -> None:
        published.append(event.step)

    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), Failing), how, on_event=on_event)
    assert published == ["A"]


class Missing(abc.ABC):
    """Something that no container has."""

    @abc.abstractmethod
    def use(self) -> None: ...


class Session:
    """Something that a scope opens and closes."""

    def __init__(self) -> None:
        self.is_open = True
        self.committed = False


def with_sessions(lab: Any) -> list[Session]:
    """Have the lab's container open a session in each scope, committed when it is left without an error."""
    sessions: list[Session] = []

    async def open_session() -> AsyncIterator[Session]:
        session = Session()
        sessions.append(session)
        try:
            yield session
            await checkpoint()
            session.committed = True
        finally:
            session.is_open = False

    lab.container = PlainContainer()
    lab.container.register(Session, open_session, lifetime=Lifetime.SCOPED)
    return sessions


def step_with_session(lab: Any, name: str, *, fails: bool = False) -> Any:
    base: Any = lab.step(name)

    async def act(self: Any, context: Any) -> Any:
        result = await base.act(self, context)
        await checkpoint()
        assert self.session.is_open
        if fails:
            raise lab.Boom
        return result

    async def compensate(self: Any, context: Any) -> None:
        await checkpoint()
        assert self.session.is_open
        await base.compensate(self, context)

    def initialise(self: Any, session: Session) -> None:
        base.__init__(self)
        self.session = session

    initialise.__annotations__ = {"session": Session}
    return type(name, (base,), {"__init__": initialise, "act": act, "compensate": compensate})


async def test_a_scoped_dependency_is_committed_before_completed_is_logged(lab: Any, how: str) -> None:
    """A session is open while a step acts, and committed and closed by the time that the log says COMPLETED."""
    sessions = with_sessions(lab)
    seen: list[tuple[bool, bool]] = []

    async def before_commit(writes: Any) -> None:
        if "A completed" in writes:
            seen.extend((session.is_open, session.committed) for session in sessions)

    lab.storage.before_commit = before_commit
    await lab.run(lab.saga(step_with_session(lab, "A"), step_with_session(lab, "B")), how)
    assert seen[:1] == [(False, True)]
    assert [session.committed for session in sessions] == [True, True]


async def test_a_scoped_dependency_is_open_again_in_compensate(lab: Any, how: str) -> None:
    """To compensate, a step gets an open session again, which is committed; that of a failed step is not."""
    sessions = with_sessions(lab)
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(step_with_session(lab, "A"), step_with_session(lab, "B", fails=True)), how)
    assert lab.log == ["A", "B", "~A"]
    assert [session.committed for session in sessions] == [True, False, True]
    assert not any(session.is_open for session in sessions)


async def test_a_commit_of_a_scope_that_fails_is_a_step_that_failed(lab: Any, how: str) -> None:
    """Where leaving the scope raises, the step is not done: those before it are compensated."""

    async def open_session() -> AsyncIterator[Session]:
        yield Session()
        await checkpoint()
        raise lab.Boom("commit")

    lab.container = PlainContainer()
    lab.container.register(Session, open_session, lifetime=Lifetime.SCOPED)
    with pytest.raises(lab.Boom, match="commit"):
        await lab.run(lab.saga(lab.step("A"), step_with_session(lab, "B")), how)
    assert "~A" in lab.log
    assert "B completed" not in await lab.history()


async def test_steps_from_a_di_container(lab: Any, how: str) -> None:
    """With the container of ``di``, one instance acts, is asked for its events and compensates."""
    di = pytest.importorskip("di")
    from cqrs.container.di import DIContainer

    lab.container = DIContainer(di.Container())
    with pytest.raises(lab.Boom):
        await lab.run(lab.saga(lab.step("A"), lab.step("B", lab.Raising(lab.Boom()))), how)
    assert lab.log == ["A", "B", "~A"]
    assert len(lab.instances) == 2
    assert await lab.status() == "failed"


async def test_a_middleware_runs_around_each_step(lab: Any, how: str) -> None:
    """A middleware is given the context and the rest; what it returns is the result."""

    async def middleware(request: Any, handle: Any) -> Any:
        assert request is lab.context
        lab.log.append("(")
        try:
            return await handle(request)
        finally:
            lab.log.append(")")

    await run_inside(lab, lab.saga(lab.step("A"), lab.step("B")), how, middleware)
    assert lab.log == ["(", "A", ")", "(", "B", ")"]
    assert [result.response for result in lab.results] == ["A", "B"]


async def test_a_middleware_does_not_run_around_compensations(lab: Any, how: str) -> None:
    """Middlewares run around ``act`` alone."""
    calls: list[Any] = []

    async def middleware(request: Any, handle: Any) -> Any:
        calls.append(request)
        return await handle(request)

    with pytest.raises(lab.Boom):
        await run_inside(lab, lab.saga(lab.step("A"), lab.step("B", lab.Raising(lab.Boom()))), how, middleware)
    assert lab.log == ["A", "B", "~A"]
    assert len(calls) == 2


async def run_inside(lab: Any, saga: Any, how: str, *middlewares: Any, **options: Any) -> None:
    """Run a saga with middlewares, in whatever way."""
    from cqrs.middlewares.base import MiddlewareChain

    if how == "transaction":
        chain = MiddlewareChain()
        chain.set(middlewares)
        await lab.run(saga, how, middleware_chain=chain, **options)
        return
    stream = lab.mediator(saga, *middlewares, **options).stream(lab.context, lab.id)
    if how == "push":
        async with stream:
            lab.results.extend([result async for result in stream])
    else:
        async for result in stream:
            lab.results.append(result)


async def test_the_retry_middleware_tries_a_step_again(lab: Any, how: str) -> None:
    """Under RetryMiddleware one instance acts until it succeeds, and its events are published once."""
    import tenacity

    step = lab.step("B", lab.Raising(lab.Boom(), times=2))
    await run_inside(lab, lab.saga(lab.step("A"), step), how, RetryMiddleware(attempts=3, wait=tenacity.wait_none()))
    assert lab.log == ["A", "B", "B", "B"]
    assert len(lab.instances) == 2
    assert await lab.status() == "completed"


async def test_a_timeout_by_a_middleware_leaves_the_outcome_unknown(lab: Any, how: str) -> None:
    """What TimeoutMiddleware cancels may have acted: it is INTERRUPTED in the log, and compensated."""
    from cqrs.exceptions import HandlerTimeoutError

    with pytest.raises(HandlerTimeoutError):
        await run_inside(lab, lab.saga(lab.step("A"), lab.step("B", lab.Gate())), how, TimeoutMiddleware(0.1))
    assert lab.log == ["A", "B", "~B", "~A"]
    assert "B interrupted" in await lab.history()
    assert await lab.status() == "failed"


async def test_the_logging_middleware_logs_steps(lab: Any, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """LoggingMiddleware takes contexts and step results."""
    caplog.set_level("DEBUG")
    await run_inside(lab, lab.saga(lab.step("A")), how, LoggingMiddleware())
    assert "Order" in caplog.text
    assert await lab.status() == "completed"


async def test_a_middleware_that_fails_after_the_step_has_acted(lab: Any, how: str) -> None:
    """A step that acted is undone even if it was a middleware that raised behind it."""

    async def middleware(request: Any, handle: Any) -> Any:
        result = await handle(request)
        if result.response == "B":
            raise lab.Boom("behind it")
        return result

    with pytest.raises(lab.Boom, match="behind it"):
        await run_inside(lab, lab.saga(lab.step("A"), lab.step("B")), how, middleware)
    assert lab.log == ["A", "B", "~B", "~A"]
    assert await lab.status() == "failed"


async def test_a_middleware_that_answers_in_place_of_a_step(lab: Any, how: str) -> None:
    """A middleware may not call the step: what it returns is the response, and nothing acts."""

    async def middleware(request: Any, handle: Any) -> Any:
        return "cached"

    await run_inside(lab, lab.saga(lab.step("A")), how, middleware)
    assert [result.response for result in lab.results] == ["cached"]
    assert lab.log == []
    assert await lab.status() == "completed"


async def test_a_saga_that_is_running_is_locked(lab: Any, how: str) -> None:
    """A second start under the id of a saga that runs raises SagaLockedError, and does nothing."""
    gate = lab.Gate()
    saga = lab.saga(lab.step("A", gate), lab.step("B"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lab.run, saga)
        await gate.reached.wait()
        other = type(lab)(lab.backend)
        other.id, other.storage = lab.id, lab.storage
        with pytest.raises(SagaLockedError) as caught:
            await other.run(other.saga(other.step("A"), other.step("B")), how)
        assert caught.value.saga_id == lab.id
        assert other.log == []
        gate.open()
    assert lab.log == ["A", "B"]
    assert await lab.status() == "completed"


async def test_a_saga_that_has_completed_gives_nothing_more(lab: Any, how: str) -> None:
    """A second start under the id of a saga that has COMPLETED acts on nothing, and loads its context."""

    async def act(context: Any) -> None:
        context.total = 5

    saga = lab.saga(lab.step("A", act))
    await lab.run(saga)
    lab.log.clear()
    lab.results.clear()
    lab.context = lab.Order()
    assert await lab.run(saga, how) == []
    assert lab.log == []
    assert lab.context.total == 5
    assert await lab.status() == "completed"
    assert not await lab.is_held()


async def test_a_saga_that_has_failed_does_not_start_again(lab: Any, how: str) -> None:
    """A second start under the id of a saga that was rolled back raises SagaRolledBackError."""
    saga = lab.saga(lab.step("A"), lab.step("B", lab.Raising(lab.Boom(), times=1)))
    with pytest.raises(lab.Boom):
        await lab.run(saga)
    lab.log.clear()
    with pytest.raises(SagaRolledBackError) as caught:
        await lab.run(saga, how)
    assert caught.value.status == "failed"
    assert lab.log == []
    assert await lab.status() == "failed"
    assert not await lab.is_held()


async def test_two_starts_at_once_run_once(lab: Any, how: str) -> None:
    """Of two starts under one id at the same time, one runs, and the other is told."""
    outcomes: list[Any] = []
    gate = lab.Gate()
    saga = lab.saga(lab.step("A", gate))

    async def start() -> None:
        try:
            await lab.run(saga, how)
        except SagaLockedError as error:
            outcomes.append(error)
            gate.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        tasks.start_soon(start)
    assert len(outcomes) == 1
    assert lab.log == ["A"]
    assert await lab.status() == "completed"


async def test_a_step_that_cannot_be_made_rolls_the_saga_back(lab: Any, how: str) -> None:
    """Where the container cannot make a step, the steps before it are compensated and its error reaches the caller."""
    from cqrs.exceptions import DependencyResolutionError

    step = lab.step("B")

    def initialise(self: Any, missing: Missing) -> None:
        raise AssertionError

    initialise.__annotations__ = {"missing": Missing}
    step.__init__ = initialise  # type: ignore[method-assign]
    with pytest.raises(DependencyResolutionError):
        await lab.run(lab.saga(lab.step("A"), step), how)
    assert lab.log == ["A", "~A"]
    assert await lab.status() == "failed"
