"""Where the results of a saga's run come from, their events handled before each is handed out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from anyio.abc import ObjectSendStream

from cqrs._stream_invocation import ClosedEarly
from cqrs.dispatcher.saga import SagaDispatcher
from cqrs.events.event import IEvent
from cqrs.saga._step_run import Acted
from cqrs.saga.models import SagaContext
from cqrs.saga.transaction import SagaTransaction

Publish: TypeAlias = Callable[[Sequence[IEvent]], Awaitable[None]]


class TransactionSource:
    """The results of one run."""

    is_push = False

    def __init__(self, transaction: SagaTransaction[Any], publish: Publish) -> None:
        self._transaction = transaction
        self._publish = publish

    async def pull(self) -> AsyncGenerator[Any, None]:
        """The results, made in the task that asks for them. Closed, it leaves the saga as it is."""
        async with self._transaction as transaction:
            while (acted := await transaction.advance()) is not None:
                await self._publish_events(acted)
                yield acted.result

    async def push(self, results: ObjectSendStream[Any]) -> None:
        """Send the results as they come. Cancelled, it rolls the saga back."""

        async def deliver(acted: Acted) -> None:
            await self._publish_events(acted)
            await results.send(acted.result)

        async with self._transaction as transaction:
            while (acted := await transaction.advance(deliver)) is not None:
                await deliver(acted)

    async def _publish_events(self, acted: Acted) -> None:
        if acted.events:
            await self._transaction.hold(lambda: self._publish(acted.events))


class DispatchedSagaSource:
    """The results of a dispatcher of the application's own."""

    is_push = False

    def __init__(
        self, dispatcher: SagaDispatcher, context: SagaContext, saga_id: uuid.UUID | None, publish: Publish
    ) -> None:
        self._dispatcher = dispatcher
        self._context = context
        self._saga_id = saga_id
        self._publish = publish

    async def pull(self) -> AsyncGenerator[Any, None]:
        """The results, made in the task that asks for them."""
        async with ClosedEarly(self._dispatcher.dispatch(self._context, saga_id=self._saga_id)) as results:
            async for result in results:
                await self._publish_or_tell(results, result.events)
                yield result.step_result

    async def push(self, results: ObjectSendStream[Any]) -> None:
        """Send the results as they come."""
        async with ClosedEarly(self._dispatcher.dispatch(self._context, saga_id=self._saga_id)) as items:
            async for item in items:
                await self._publish_or_tell(items, item.events)
                await self._tell(items, results.send(item.step_result))

    async def _publish_or_tell(self, results: Any, events: Sequence[IEvent]) -> None:
        if events:
            await self._tell(results, self._publish(events))

    async def _tell(self, results: Any, work: Awaitable[None]) -> None:
        try:
            await work
        except BaseException as error:
            if hasattr(results, "athrow"):
                await results.athrow(error)
            raise
