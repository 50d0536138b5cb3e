"""Where the results of one streaming request come from, their events handled before each is handed out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from anyio.abc import ObjectSendStream

from cqrs._stream_invocation import ClosedEarly, ResultSink, StreamPlan, take_stream_events
from cqrs.container.protocol import Resolver
from cqrs.container.scope import DispatchScope
from cqrs.dispatcher.streaming import StreamingRequestDispatcher
from cqrs.events.event import IEvent
from cqrs.events.event_processor import EventProcessor
from cqrs.events.event_source import discard_events
from cqrs.requests.request import IRequest


class PlannedSource:
    """The results of what is bound to a request.

    :param shares_scope: whether the handler and its event handlers share one scope of the container.
    """

    def __init__(
        self,
        plan: StreamPlan,
        request: IRequest[Any],
        container: Resolver,
        processor: EventProcessor,
        shares_scope: bool,
    ) -> None:
        self._plan = plan
        self._request = request
        self._container = container
        self._processor = processor
        self._shares_scope = shares_scope

    @property
    def is_push(self) -> bool:
        """Whether a handler sends its results."""
        return self._plan.is_push

    async def pull(self) -> AsyncGenerator[Any, None]:
        """The results, made in the task that asks for them."""
        emit = self._processor.emit_events
        async with DispatchScope(self._container, opens=self._shares_scope) as resolver:
            shared = resolver if self._shares_scope else None
            run = await self._plan.acquire(resolver)
            try:
                async with ClosedEarly(run.handle(self._request)) as items:
                    async for item in items:
                        if events := take_stream_events(run):
                            await emit(events, shared)
                        yield item
                    await emit(take_stream_events(run), shared)
            except BaseException:
                discard_events(run)
                raise

    async def push(self, results: ObjectSendStream[Any]) -> None:
        """Send all results into ``results``."""
        if not self._plan.is_push:
            await _forward(self.pull(), results)
            return
        async with DispatchScope(self._container, opens=self._shares_scope) as resolver:

            async def publish(events: Sequence[IEvent]) -> None:
                await self._processor.emit_events(events, resolver if self._shares_scope else None)

            await self._plan.push(resolver, self._request, ResultSink(results, publish))


class DispatchedSource:
    """The results of a dispatcher of the application's own."""

    is_push = False

    def __init__(
        self, dispatcher: StreamingRequestDispatcher, request: IRequest[Any], processor: EventProcessor
    ) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._processor = processor

    async def pull(self) -> AsyncGenerator[Any, None]:
        """The results, made in the task that asks for them."""
        async with ClosedEarly(self._dispatcher.dispatch(self._request)) as results:
            async for result in results:
                await self._processor.emit_events(result.events)
                yield result.response

    async def push(self, results: ObjectSendStream[Any]) -> None:
        """Send all results into ``results``."""
        await _forward(self.pull(), results)


async def _forward(items: AsyncGenerator[Any, None], results: ObjectSendStream[Any]) -> None:
    async with ClosedEarly(items) as opened:
        async for item in opened:
            await results.send(item)
