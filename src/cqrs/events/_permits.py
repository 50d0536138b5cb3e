"""Permits: how many event handlers run at once, however many calls they belong to.

A permit is a token of a capacity limiter. A handler that holds one may itself send a request whose
events need permits. Were all tokens held by such handlers, everybody would wait for everybody; so a
handler lends its permit to what it waits for, and that is always enough to go on.
"""

from __future__ import annotations

import contextvars

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
    """One worker's right to run handlers.

    ``is_entered`` says whether handlers may run, ``was_suspended`` whether the worker has been suspended since.

    :param loan: what to use while the limiter has no token, instead of waiting for one.
    :param outer: the permit of the handler around the call that the worker belongs to.
    """

    __slots__ = (
        "_has_loan",
        "_has_token",
        "_limiter",
        "_loan",
        "_outer",
        "_own",
        "_reset",
        "_wait",
        "is_entered",
        "was_suspended",
    )

    def __init__(self, limiter: CapacityLimiter, loan: Loan | None, outer: Loan | None) -> None:
        self._limiter = limiter
        self._loan = loan
        self._outer = outer
        self._has_token = self._has_loan = False
        self.is_entered = self.was_suspended = False
        self._wait: CancelScope | None = None
        self._own: Loan | None = None
        self._reset: contextvars.Token[Loan | None] | None = None

    def acquire_nowait(self) -> bool:
        """Take a token of the limiter, where there is one. It is entered later, in the worker's task."""
        try:
            self._limiter.acquire_on_behalf_of_nowait(self)
        except WouldBlock:
            return False
        self._has_token = True
        return True

    def enter(self) -> bool:
        """Begin to run handlers in the current task. False where that takes a wait."""
        if not (self._has_token or self._has_loan or self.acquire_nowait()):
            return False
        # Not the loan found in the context: a worker is started, with a copy of it, inside another handler.
        self._own = Loan(self._limiter, self._outer)
        self._reset = _loan.set(self._own)
        self.is_entered, self.was_suspended = True, False
        return True

    async def wait(self) -> bool:
        """Wait for the right to run handlers, and enter. False where the waiting was called off.

        Cancelled, nothing is held.
        """
        if self._loan is not None:
            await self._loan.acquire()
            self._has_loan = True
            return self.enter()
        with CancelScope() as self._wait:
            await self._limiter.acquire_on_behalf_of(self)
            self._has_token = True
        self._wait = None
        return self._has_token and self.enter()

    def stop_waiting(self) -> None:
        """Call off a wait for the limiter: there is nothing left to run."""
        if self._wait is not None:
            self._wait.cancel()

    def release(self) -> None:
        """Give back what is held."""
        if self._own is not None and self._reset is not None:
            self._own.is_over = True
            _loan.reset(self._reset)
            self._own = self._reset = None
        if self._has_loan and self._loan is not None:
            self._loan.release()
        if self._has_token:
            self._limiter.release_on_behalf_of(self)
        self._has_token = self._has_loan = self.is_entered = False
