"""The mediator that an application runs its sagas through."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

from typing_extensions import Self

from cqrs._mediation import event_processor_for, taken_by
from cqrs._overriding import is_overridden
from cqrs.container.protocol import Container
from cqrs.dispatcher._saga_source import DispatchedSagaSource, TransactionSource
from cqrs.dispatcher.result_stream import ResultSource, ResultStream, StreamHome
from cqrs.dispatcher.saga import SagaDispatcher
from cqrs.events.event_emitter import EmitsEvents
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.middlewares.base import MiddlewareChain
from cqrs.requests.map import SagaMap
from cqrs.saga._run import RecoveryTurn
from cqrs.saga.journal import stored_name
from cqrs.saga.models import ContextT, SagaContext
from cqrs.saga.options import COMPENSATION_TIMEOUT, LEASE_DURATION
from cqrs.saga.step import SagaStepResult
from cqrs.saga.storage.memory import MemorySagaStorage
from cqrs.saga.storage.protocol import ISagaStorage


class SagaMediator:
    """Runs sagas, and handles the events of each step before its result is handed out.

    ``async with mediator:`` around the application gives it a task group, in which streams end that were
    left and not closed.

    :param saga_map: which saga runs for which context.
    :param storage: where sagas are kept. None: in memory.
    :param compensation_retry_count: how often a step's compensation is tried.
    :param compensation_retry_delay: seconds before the second attempt.
    :param compensation_retry_backoff: by how much each further wait is longer.
    :param compensation_timeout: seconds that rolling back may take; then recovery goes on with it.
    :param lease_duration: seconds after which others may take a saga over from a runner that has died.

    The other parameters are those of :class:`~cqrs.mediator.RequestMediator`.
    """

    def __init__(
        self,
        saga_map: SagaMap,
        container: Container[Any],
        event_emitter: EmitsEvents | None = None,
        middleware_chain: MiddlewareChain | None = None,
        event_map: EventMap | None = None,
        max_concurrent_event_handlers: int = 1,
        concurrent_event_handle_enable: bool = True,
        storage: ISagaStorage | None = None,
        compensation_retry_count: int = 3,
        compensation_retry_delay: float = 1.0,
        compensation_retry_backoff: float = 2.0,
        *,
        dispatcher_type: type[SagaDispatcher] = SagaDispatcher,
        compensation_timeout: float = COMPENSATION_TIMEOUT,
        lease_duration: float = LEASE_DURATION,
        event_failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
        on_event_error: EventErrorHook | None = None,
    ) -> None:
        self._event_processor = event_processor_for(
            container,
            event_emitter,
            event_map,
            max_concurrent_event_handlers,
            concurrent_event_handle_enable,
            event_failure_policy,
            on_event_error,
        )
        options = {"compensation_timeout": compensation_timeout, "lease_duration": lease_duration}
        self._dispatcher = dispatcher_type(
            saga_map=saga_map,
            container=container,
            storage=MemorySagaStorage() if storage is None else storage,
            middleware_chain=middleware_chain,
            compensation_retry_count=compensation_retry_count,
            compensation_retry_delay=compensation_retry_delay,
            compensation_retry_backoff=compensation_retry_backoff,
            **taken_by(dispatcher_type, options),
        )
        self._home = StreamHome()

    async def __aenter__(self) -> Self:
        await self._home.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._home.__aexit__(exc_type, exc, traceback)

    @property
    def storage(self) -> ISagaStorage:
        """Where sagas are kept."""
        return self._dispatcher.storage

    @property
    def saga_names(self) -> Sequence[str]:
        """The names under which the storage keeps the sagas that are bound.

        :raises ConfigurationError: two of them have the same one.
        """
        return self._dispatcher.names()

    def stream(
        self,
        context: ContextT,
        saga_id: uuid.UUID | None = None,
        *,
        deadline: float | timedelta | None = None,
        max_buffer_size: float = 0,
    ) -> ResultStream[SagaStepResult[ContextT, Any]]:
        """Run the saga that is bound to ``context``, and stream the results of its steps.

        ``async for`` over it: a step at a time, in the consumer's task, and a step that fails or is cancelled rolls
        the saga back. Left early, by ``break`` or by an exception in the loop's body, the saga stays RUNNING and
        recovery goes on with it; close the stream, or enter the mediator, so that it can at once.

        ``async with`` it: the saga runs in a task, and the results of parallel steps come as they are there.
        Leaving the block early, in whatever way, cancels the saga: it is rolled back.

        :param saga_id: names the run. One that the storage has already is gone on with.
        :param deadline: seconds, or a timedelta, in which it must be done; None: what the saga says.
        :param max_buffer_size: how many results the saga may be ahead, in ``async with``.
        :raises SagaDoesNotExist: no saga is bound to the context.

        Consuming the results raises what :class:`~cqrs.saga.transaction.SagaTransaction` does, and what event
        handlers raise, which rolls the saga back too.
        """
        source = self._source(context, saga_id, deadline)
        return ResultStream(source, type(context), max_buffer_size, self._home)

    execute = stream

    def _source(
        self, context: SagaContext, saga_id: uuid.UUID | None, deadline: float | timedelta | None
    ) -> ResultSource:
        publish = self._event_processor.emit_events
        if is_overridden(self._dispatcher, SagaDispatcher, "dispatch"):
            return DispatchedSagaSource(self._dispatcher, context, saga_id, publish)
        return TransactionSource(self._dispatcher.transaction(context, saga_id, deadline=deadline), publish)

    async def recover(
        self, saga_id: uuid.UUID, *, saga_name: str | None = None, turn: RecoveryTurn | None = None
    ) -> None:
        """Go on with a saga that somebody else began, as :func:`~cqrs.saga.recovery.recover_saga` does.

        The events of its steps are handled as well.

        :param saga_name: its name, where the storage cannot tell (one without leases cannot).
        :param turn: the lease, and how a failed attempt gives the saga back.
        :raises SagaDoesNotExist: no saga of its name is bound.

        Raises, beside that, what ``recover_saga`` does.
        """
        name = saga_name or await stored_name(self.storage, saga_id)
        saga_type, build = self._dispatcher.named(name)
        async with self._dispatcher.recovery(saga_type, saga_id, turn or RecoveryTurn()) as transaction:
            await transaction.resume(build)
            while (acted := await transaction.advance()) is not None:
                await transaction.hold(functools.partial(self._event_processor.emit_events, acted.events))
