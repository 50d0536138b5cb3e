"""Events and all that follows from them, one after the other or concurrently."""

from __future__ import annotations

import inspect
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Sequence

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import RunVar, checkpoint_if_cancelled

from cqrs._concurrency import SingleErrorTaskGroup, Watched, raise_failures
from cqrs.container.protocol import Resolver
from cqrs.events._permits import Loan, Permit, enclosing_loan
from cqrs.events.event import IEvent
from cqrs.events.event_emitter import EmitsEvents, EventEmitter
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.exceptions import ConfigurationError

_logger = logging.getLogger("cqrs")
_FAILED = "several event handlers failed"

# One limiter an event loop: a mediator made at import may serve several loops, one after the other.
# Weak, so that mediators made for each request do not pile up in the loop.
_limiters: RunVar[weakref.WeakKeyDictionary[EventProcessor, anyio.CapacityLimiter]] = RunVar("cqrs_event_limiters")


class EventProcessor:
    """Emits events, and the events that follow from them, as one unit of work.

    When ``emit_events`` has returned or raised, nothing that it started is running.

    :param event_map: which handlers are told of which event; kept for the documented signature.
    :param event_emitter: tells of each event; without one, events are dropped.
    :param max_concurrent_event_handlers: how many events are handled at once by this processor,
        over all calls in one event loop.
    :param concurrent_event_handle_enable: False handles the events of a call one after the other, breadth first.
    :param failure_policy: what a failure means for the other events.
    :param on_error: told of each failure under ``EventFailurePolicy.ISOLATE``; what it raises, the call raises.
    :raises ConfigurationError: the limit is less than one.
    """

    def __init__(
        self,
        event_map: EventMap,
        event_emitter: EmitsEvents | None = None,
        max_concurrent_event_handlers: int = 1,
        concurrent_event_handle_enable: bool = True,
        *,
        failure_policy: EventFailurePolicy = EventFailurePolicy.CANCEL,
        on_error: EventErrorHook | None = None,
    ) -> None:
        if max_concurrent_event_handlers < 1:
            raise ConfigurationError(
                f"max_concurrent_event_handlers is {max_concurrent_event_handlers}: it must be at least 1."
            )
        self._event_map = event_map
        self._emitter = event_emitter
        self._limit = max_concurrent_event_handlers
        self._is_concurrent = concurrent_event_handle_enable
        self._failure_policy = failure_policy
        self._on_error = on_error

    async def emit_events(self, events: Sequence[IEvent], resolver: Resolver | None = None) -> None:
        """Emit ``events`` and all that follows from them.

        :param resolver: where handlers come from instead of the emitter's container: a scope that they share.
        :raises Exception: a failure, as the failure policy says; several leave as an ``ExceptionGroup``.

        Cancelled, it cancels the handlers that run and waits for them; the rest is not started.
        """
        if not events:
            return
        if self._emitter is None:
            _logger.warning("%d events were dropped: the mediator has no event emitter", len(events))
            return
        unit = _UnitOfWork(self._emitter, events, resolver, self._failure_policy, self._on_error)
        try:
            if self._is_concurrent:
                await _FanOut(unit, self._limiter(), self._limit).run()
            else:
                while unit.queue:
                    await unit.deliver_next()
        except BaseException:
            unit.log_failures()
            raise
        unit.raise_failures()

    def _limiter(self) -> anyio.CapacityLimiter:
        try:
            return _limiters.get()[self]
        except LookupError:
            limiter = anyio.CapacityLimiter(self._limit)
            limiters = _limiters.get(None)
            if limiters is None:
                limiters = weakref.WeakKeyDictionary[EventProcessor, anyio.CapacityLimiter]()
                _limiters.set(limiters)
            limiters[self] = limiter
            return limiter


class _UnitOfWork:
    """The events of one call that are still to be delivered, and the failures so far."""

    __slots__ = ("_emitter", "_failures", "_is_over", "_on_error", "_policy", "_resolver", "queue")

    def __init__(
        self,
        emitter: EmitsEvents,
        events: Sequence[IEvent],
        resolver: Resolver | None,
        policy: EventFailurePolicy,
        on_error: EventErrorHook | None,
    ) -> None:
        self.queue = deque(events)
        self._emitter = emitter
        self._resolver = resolver
        self._policy = policy
        self._on_error = on_error
        self._failures: list[Exception] = []
        self._is_over = False

    async def deliver_next(self) -> None:
        """Deliver the first event to all who are to know of it; then queue the events that follow."""
        event = self.queue.popleft()
        try:
            following = await self._deliver(event)
        except BaseException:
            # Workers that learn of it later, as those in a shield do, find nothing left to start.
            self._is_over = True
            self.queue.clear()
            raise
        if not self._is_over:
            self.queue.extend(following)

    async def _deliver(self, event: IEvent) -> Sequence[IEvent]:
        emitter = self._emitter
        if not isinstance(emitter, EventEmitter) or type(emitter).emit is not EventEmitter.emit:
            return await self._attempt(event, emitter.emit(event))
        following: list[IEvent] = []
        resolver = emitter.container if self._resolver is None else self._resolver
        for deliver in emitter.deliveries(type(event)):
            following += await self._attempt(event, deliver(event, resolver))
        return following

    async def _attempt(self, event: IEvent, delivery: Awaitable[Sequence[IEvent] | None]) -> Sequence[IEvent]:
        try:
            return await delivery or ()
        except Exception as error:  # noqa: BLE001  # raised again, kept, or reported, as the policy says
            await self._fail(event, error)
            return ()

    async def _fail(self, event: IEvent, error: Exception) -> None:
        if self._policy is EventFailurePolicy.CANCEL:
            raise error
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

    def log_failures(self) -> None:
        """Tell the log what was kept under ``EventFailurePolicy.WAIT``: something else is raised."""
        for error in self._failures:
            _logger.error("An event handler failed before the call was ended", exc_info=error)

    def raise_failures(self) -> None:
        """Raise what was kept under ``EventFailurePolicy.WAIT``."""
        raise_failures(self._failures, _FAILED)


class _FanOut:
    """Workers that deliver the events of one call concurrently.

    The calling task is the first worker. Another one is started when there is work left and all that
    are there are suspended: while handlers do not suspend, one task does everything.
    """

    __slots__ = ("_limit", "_limiter", "_outer", "_tasks", "_unit", "_waiting", "_workers")

    def __init__(self, unit: _UnitOfWork, limiter: anyio.CapacityLimiter, limit: int) -> None:
        self._unit = unit
        self._limiter = limiter
        self._limit = limit
        self._outer: Loan | None = enclosing_loan()
        self._workers = 1
        self._waiting: set[Permit] = set()
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Deliver everything."""
        loan = None if self._outer is None else self._outer.find(self._limiter)
        permit = Permit(self._limiter, loan, self._outer)
        queue = self._unit.queue
        while queue and (self._limit == 1 or len(queue) == 1):
            await self._deliver_one(permit)
        if queue:
            async with SingleErrorTaskGroup(_FAILED) as self._tasks:
                await self._work(permit)

    async def _work(self, permit: Permit) -> None:
        try:
            while self._unit.queue:
                await self._deliver_one(permit)
        finally:
            self._workers -= 1
        for waiting in self._waiting:
            waiting.stop_waiting()

    async def _deliver_one(self, permit: Permit) -> None:
        try:
            has_permit = await permit.acquire(self._waiting.add)
        finally:
            self._waiting.discard(permit)
        if not has_permit:
            return
        try:
            if self._unit.queue:
                await self._deliver_watched()
        finally:
            permit.release()

    async def _deliver_watched(self) -> None:
        delivery = self._unit.deliver_next()
        if self._may_grow():
            await Watched(delivery, self._start_worker)
        else:
            await delivery

    def _may_grow(self) -> bool:
        return bool(self._unit.queue) and self._tasks is not None and self._workers < self._limit and not self._waiting

    def _start_worker(self) -> None:
        if self._tasks is not None and self._may_grow():
            self._workers += 1
            self._tasks.start_soon(self._work, Permit(self._limiter, None, self._outer))
