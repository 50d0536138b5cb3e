"""Events and all that follows from them, one after the other or concurrently."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence

import anyio
from anyio.lowlevel import RunVar, checkpoint_if_cancelled

from cqrs._options import at_least_one, enum_member
from cqrs.container.protocol import Resolver
from cqrs.events._fan_out import FanOut
from cqrs.events._unit_of_work import UnitOfWork
from cqrs.events.event import IEvent
from cqrs.events.event_emitter import EmitsEvents
from cqrs.events.failure_policy import EventErrorHook, EventFailurePolicy
from cqrs.events.map import EventMap
from cqrs.exceptions import InvalidOptionError

_logger = logging.getLogger("cqrs")

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
    :raises InvalidOptionError: the limit is not a whole number from one on, or another option cannot be what it is.
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
        self._event_map = event_map
        self._emitter = event_emitter
        self._limit = at_least_one("max_concurrent_event_handlers", max_concurrent_event_handlers)
        self._is_concurrent = concurrent_event_handle_enable
        self._failure_policy = enum_member("failure_policy", EventFailurePolicy, failure_policy)
        self._on_error = on_error
        if on_error is not None and not callable(on_error):
            raise InvalidOptionError("on_error", on_error, "a function that takes the event and the error")

    async def emit_events(self, events: Sequence[IEvent], resolver: Resolver | None = None) -> None:
        """Emit ``events`` and all that follows from them.

        :param resolver: where handlers come from instead of the emitter's container: a scope that they share.
        :raises Exception: a failure, as the failure policy says; several leave as an ``ExceptionGroup``.

        Cancelled, it cancels the handlers that run and waits for them; of the rest none gets past its first checkpoint.
        """
        if not events:
            return
        if self._emitter is None:
            _logger.warning("%d events were dropped: the mediator has no event emitter", len(events))
            return
        unit = UnitOfWork(self._emitter, events, resolver, self._failure_policy, self._on_error)
        try:
            if self._is_concurrent:
                await FanOut(unit, self._limiter(), self._limit).run()
            else:
                while unit.queue:
                    await unit.deliver(unit.queue.popleft())
                    if unit.queue:
                        await checkpoint_if_cancelled()
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
