"""A run of a saga, as its caller sees it: an async context manager, and an async iterator of step results."""

from __future__ import annotations

import functools
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol

from typing_extensions import Self

from cqrs.container.protocol import Resolver
from cqrs.middlewares.base import MiddlewareChain
from cqrs.retry import exponential
from cqrs.saga._forward import Deliver
from cqrs.saga._plan import Stage
from cqrs.saga._run import RecoveryTurn, SagaRun
from cqrs.saga._step_run import Acted, StepCaller
from cqrs.saga.journal import journal_for
from cqrs.saga.models import ContextBuilder, ContextT, load_context
from cqrs.saga.options import COMPENSATION_TIMEOUT, LEASE_DURATION, SagaOptions
from cqrs.saga.step import AnySagaStep, SagaStepResult
from cqrs.saga.storage.protocol import ISagaStorage
from cqrs.saga.validation import seconds_of


class RunsInStages(Protocol):
    """What a transaction asks of a saga."""

    deadline: ClassVar[Any]

    @classmethod
    def stages(cls) -> Sequence[Stage]:
        """Its steps, compiled."""
        ...


class SagaTransaction(AsyncIterator[SagaStepResult[ContextT, Any]], Generic[ContextT]):
    """One run of a saga::

        async with saga.transaction(context, container, storage) as transaction:
            async for result in transaction:
                ...

    Each iteration does one step, in the task that asks for it. A step that fails, an exception in the
    block and a cancellation roll the saga back: what may have acted is compensated in reverse, in a task
    of its own that no cancellation tears, and the error goes on to the caller with the compensation
    errors attached (:func:`~cqrs.saga.compensation.compensation_errors`). Leaving the block before the end
    without an exception, by ``break`` for example, neither completes nor compensates: the saga stays
    RUNNING, and recovery goes on with it.

    The results of a parallel group come when the whole group is done.

    :param saga: an instance of the saga's class, or the class.
    :param context: what the steps share. They write into it. None, for a recovery: it comes from the storage.
    :param container: where the steps come from.
    :param storage: where the saga is kept.
    :param saga_id: names the run. One that the storage has already is gone on with, and ``context`` gets what
        is stored. None: a new one.
    :param compensation_retry_count: how often a step's compensation is tried.
    :param compensation_retry_delay: seconds before the second attempt.
    :param compensation_retry_backoff: by how much each further wait is longer.
    :param middleware_chain: what runs around ``act`` of each step.
    :param compensation_timeout: seconds that rolling back may take.
    :param lease_duration: seconds after which others may take the saga over, should this runner die.
    :param deadline: seconds, or a timedelta, in which it must be done; None: what the saga says.
    :param options: in place of what precedes, from ``compensation_retry_count`` on, ``deadline`` aside.
    :param recovery: how a recovery that fails gives the saga back.

    Iterating raises, beside what steps raise: SagaLockedError where somebody else is running the saga,
    SagaRolledBackError, SagaParkedError and SagaDefinitionError where it cannot go on, SagaLeaseLostError where
    it has been taken over, SagaDeadlineExceededError.
    """

    def __init__(
        self,
        saga: RunsInStages | type[RunsInStages],
        context: ContextT | None,
        container: Resolver,
        storage: ISagaStorage,
        saga_id: uuid.UUID | None = None,
        compensation_retry_count: int = 3,
        compensation_retry_delay: float = 1.0,
        compensation_retry_backoff: float = 2.0,
        *,
        middleware_chain: MiddlewareChain | None = None,
        compensation_timeout: float = COMPENSATION_TIMEOUT,
        lease_duration: float = LEASE_DURATION,
        deadline: float | timedelta | None = None,
        options: SagaOptions | None = None,
        recovery: RecoveryTurn | None = None,
    ) -> None:
        if options is None:
            retry = exponential(compensation_retry_count, compensation_retry_delay, compensation_retry_backoff)
            options = SagaOptions(retry, compensation_timeout, lease_duration)
        self._saga_id = uuid.uuid4() if saga_id is None else saga_id
        self._ready: deque[Acted] = deque()
        self._is_started = False
        lease = None if recovery is None else recovery.lease
        self._run = SagaRun(
            saga.__name__ if isinstance(saga, type) else type(saga).__name__,
            saga.stages(),
            context,
            journal_for(storage, self._saga_id, options.lease_duration, lease),
            StepCaller(self._saga_id, container, middleware_chain),
            options,
            seconds_of(saga.deadline if deadline is None else deadline, "deadline"),
            recovery,
        )

    @property
    def saga_id(self) -> uuid.UUID:
        """The id of the run."""
        return self._saga_id

    @property
    def completed_steps(self) -> list[AnySagaStep]:
        """The instances of steps that acted in this run, in the order in which they were done."""
        return self._run.forward.handlers.copy()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None or isinstance(exc, GeneratorExit):
            await self._run.leave()
        else:
            await self._run.fail(exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SagaStepResult[ContextT, Any]:
        acted = await self.advance()
        if acted is None:
            raise StopAsyncIteration
        return acted.result

    async def aclose(self) -> None:
        """Leave the saga as it is, as leaving the block without an exception does."""
        await self._run.leave()

    async def advance(self, deliver: Deliver | None = None) -> Acted | None:
        """The next result with its events; None after the last one.

        :param deliver: is given the results of parallel steps instead, as they come.
        """
        try:
            return await self._advance(deliver)
        except BaseException as error:
            await self._run.fail(error)
            raise

    async def _advance(self, deliver: Deliver | None) -> Acted | None:
        if not self._is_started:
            self._is_started = True
            await self._run.begin()
        self._run.forward.deliver = deliver
        while not self._ready:
            acted = await self._run.next()
            if acted is None:
                return None
            self._ready.extend(acted)
        return self._ready.popleft()

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await ``work()`` between two steps; the lease is renewed meanwhile."""
        await self._run.hold(work)

    async def resume(self, build: ContextBuilder[ContextT]) -> None:
        """Take the saga over from storage, where iterating would begin it; then iterate.

        :param build: makes the context of what is stored; a transaction that has one gives it its values.
        :raises SagaNotFoundError: the storage does not have the saga.

        Raises, beside that, what iterating does where a saga cannot go on.
        """
        self._is_started = True
        try:
            await self._run.take_over(functools.partial(load_context, build))
        except BaseException as error:
            await self._run.fail(error)
            raise
