"""The events of one call, delivered one at a time by whoever takes the next."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from anyio.lowlevel import checkpoint_if_cancelled

from cqrs._concurrency import raise_failures
from cqrs._overriding import is_overridden
from cqrs.container.protocol import Resolver
from cqrs.events.event import IEvent
from cqrs.events.event_emitter import Delivery, EmitsEvents, EventEmitter
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy

_logger = logging.getLogger("cqrs")


class UnitOfWork:
    """The events that are still to be delivered, and the failures so far.

    ``queue`` holds the events in order; whoever takes one out calls :meth:`deliver` with it.

    :param resolver: where handlers come from instead of the emitter's container.
    """

    __slots__ = ("_deliveries_of", "_failures", "_is_over", "_on_error", "_policy", "_resolver", "queue")

    def __init__(
        self,
        emitter: EmitsEvents,
        events: Sequence[IEvent],
        resolver: Resolver | None,
        policy: EventFailurePolicy,
        on_error: EventErrorHook | None,
    ) -> None:
        self.queue = deque(events)
        self._deliveries_of = _deliveries(emitter)
        self._resolver = resolver
        self._policy = policy
        self._on_error = on_error
        self._failures: list[Exception] = []
        self._is_over = False

    async def deliver(self, event: IEvent) -> None:
        """Deliver ``event`` to all who are to know of it, one after the other; then queue the events that follow."""
        following: list[IEvent] = []
        try:
            for deliver in self._deliveries_of(type(event)):
                try:
                    following += await deliver(event, self._resolver) or ()
                except Exception as error:  # noqa: PERF203  # costs nothing until it is raised
                    if self._policy is EventFailurePolicy.CANCEL:
                        raise
                    await self._keep(event, error)
        except BaseException:
            self.stop()
            raise
        if following and not self._is_over:
            self.queue.extend(following)

    def raise_failures(self) -> None:
        """Raise what was kept under ``EventFailurePolicy.WAIT``."""
        raise_failures(self._failures, "several event handlers failed")

    def log_failures(self) -> None:
        """Tell the log what was kept under ``EventFailurePolicy.WAIT``: something else is raised."""
        for error in self._failures:
            _logger.error("An event handler failed before the call was ended", exc_info=error)

    def stop(self) -> None:
        """Start nothing more: workers that learn of it later, as those in a shield do, find nothing left."""
        self._is_over = True
        self.queue.clear()

    async def _keep(self, event: IEvent, error: Exception) -> None:
        if self._policy is EventFailurePolicy.WAIT:
            self._failures.append(error)
        else:
            await self._report(event, error)
        # A handler that fails while it is cancelled gives its failure in place of the cancellation.
        await checkpoint_if_cancelled()

    async def _report(self, event: IEvent, error: Exception) -> None:
        _logger.error("Handling %s failed", type(event).__qualname__, exc_info=error)
        if self._on_error is not None:
            reported = self._on_error(event, error)
            if inspect.isawaitable(reported):
                await reported


def _deliveries(emitter: EmitsEvents) -> Callable[[type], Sequence[Delivery]]:
    if isinstance(emitter, EventEmitter) and not is_overridden(emitter, EventEmitter, "emit"):
        return emitter.deliveries

    def emit(event: IEvent, _: Resolver | None) -> Awaitable[Sequence[IEvent]]:
        return emitter.emit(event)

    return lambda _: (emit,)
