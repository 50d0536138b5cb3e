"""Permits: how many event handlers run at once, however many calls they belong to.

A permit is a token of a capacity limiter. A handler that holds one may itself send a request whose
events need permits. Were all tokens held by such handlers, everybody would wait for everybody; so a
handler lends its permit to what it waits for, and that is always enough to go on.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable

import anyio
from anyio import CancelScope, CapacityLimiter, WouldBlock


class Loan:
    """The permit of a running handler, to be used by one nested handler at a time."""

    __slots__ = ("_lock", "is_over", "limiter", "outer")

    def __init__(self, limiter: CapacityLimiter, outer: Loan | None) -> None:
        self.limiter = limiter
        self.outer = outer
        self._lock: anyio.Lock | None = None
        self.is_over = False

    def find(self, limiter: CapacityLimiter) -> Loan | None:
        """This loan, or the nearest one around it, that is a token of ``limiter``."""
        loan: Loan | None = self
        while loan is not None and (loan.limiter is not limiter or loan.is_over):
            loan = loan.outer
        return loan

    async def acquire(self) -> None:
        """Wait until no other nested handler uses it. Cancelled, nothing is held."""
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        await self._lock.acquire()

    def release(self) -> None:
        """Let the next nested handler use it."""
        if self._lock is not None:
            self._lock.release()


_loan: contextvars.ContextVar[Loan | None] = contextvars.ContextVar("cqrs_loan", default=None)


def enclosing_loan() -> Loan | None:
    """The permit of the handler around this call, of whichever limiter."""
    return _loan.get()


class Permit:
    """One worker's right to run a handler, acquired and released for each event.

    :param loan: what to fall back on while the limiter has no token, instead of waiting for it.
    :param outer: the permit of the handler around the call that the worker belongs to.
    """

    __slots__ = ("_borrowed", "_limiter", "_loan", "_outer", "_own", "_token", "_wait")

    def __init__(self, limiter: CapacityLimiter, loan: Loan | None, outer: Loan | None) -> None:
        self._limiter = limiter
        self._loan = loan
        self._outer = outer
        self._borrowed = False
        self._wait: CancelScope | None = None
        self._own: Loan | None = None
        self._token: contextvars.Token[Loan | None] | None = None

    async def acquire(self, on_wait: Callable[[Permit], None]) -> bool:
        """Wait for the right to run. False where the waiting was called off.

        ``on_wait`` is told when there is a wait for the limiter; :meth:`stop_waiting` calls it off.
        Cancelled, nothing is held.
        """
        try:
            self._limiter.acquire_on_behalf_of_nowait(self)
        except WouldBlock:
            if not await self._acquire_later(on_wait):
                return False
        # Not the loan found in the context: a worker is started, with a copy of it, inside another handler.
        self._own = Loan(self._limiter, self._outer)
        self._token = _loan.set(self._own)
        return True

    async def _acquire_later(self, on_wait: Callable[[Permit], None]) -> bool:
        if self._loan is not None:
            await self._loan.acquire()
            self._borrowed = True
            return True
        with CancelScope() as self._wait:
            on_wait(self)
            await self._limiter.acquire_on_behalf_of(self)
            self._wait = None
            return True
        self._wait = None
        return False

    def stop_waiting(self) -> None:
        """Call off a wait for the limiter: there is nothing left to run."""
        if self._wait is not None:
            self._wait.cancel()

    def release(self) -> None:
        """Give the right back."""
        if self._own is not None and self._token is not None:
            self._own.is_over = True
            _loan.reset(self._token)
        if self._borrowed and self._loan is not None:
            self._borrowed = False
            self._loan.release()
        else:
            self._limiter.release_on_behalf_of(self)
