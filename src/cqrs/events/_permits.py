"""Permits: how many event handlers run at once, however many calls they belong to.

A permit is a token of a capacity limiter. A handler that holds one may itself send a request whose
events need permits. Were all tokens held by such handlers, everybody would wait for everybody; so a
handler lends its permit to what it waits for, and that is always enough to go on.
"""

from __future__ import annotations

import contextvars

from anyio import CancelScope, CapacityLimiter, WouldBlock


class Loan:
    """The permit of a running handler, to be used by one nested handler at a time."""

    __slots__ = ("_is_taken", "_waiting", "is_over", "limiter", "outer")

    def __init__(self, limiter: CapacityLimiter, outer: Loan | None) -> None:
        self.limiter = limiter
        self.outer = outer
        self.is_over = False
        self._is_taken = False
        self._waiting: dict[Permit, None] = {}

    def find(self, limiter: CapacityLimiter) -> Loan | None:
        """This loan, or the nearest one around it, that is a token of ``limiter``."""
        loan: Loan | None = self
        while loan is not None and (loan.limiter is not limiter or loan.is_over):
            loan = loan.outer
        return loan

    def take(self) -> bool:
        """Take it, where no other nested handler has it."""
        if self._is_taken:
            return False
        self._is_taken = True
        return True

    def give_back(self) -> None:
        """Let the next nested handler take it."""
        self._is_taken = False
        self._tell_next()

    def expect(self, permit: Permit) -> None:
        """Tell ``permit`` when it may be taken."""
        self._waiting[permit] = None

    def expect_no_longer(self, permit: Permit) -> None:
        """Do not tell ``permit``, but the next one: it may have got a token instead, or have been cancelled."""
        del self._waiting[permit]
        self._tell_next()

    def _tell_next(self) -> None:
        if self._waiting and not self._is_taken:
            next(iter(self._waiting)).try_again()


_loan: contextvars.ContextVar[Loan | None] = contextvars.ContextVar("cqrs_loan", default=None)


def enclosing_loan() -> Loan | None:
    """The permit of the handler around this call, of whichever limiter."""
    return _loan.get()


class Permit:
    """One worker's right to run handlers.

    ``is_entered`` says whether handlers may run, ``was_suspended`` whether the worker has been suspended since.

    :param loan: what can be used instead of a token of the limiter.
    :param outer: the permit of the handler around the call that the worker belongs to.
    """

    __slots__ = (
        "_has_loan",
        "_has_token",
        "_is_called_off",
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
        self._has_token = self._has_loan = self._is_called_off = False
        self.is_entered = self.was_suspended = False
        self._wait: CancelScope | None = None
        self._own: Loan | None = None
        self._reset: contextvars.Token[Loan | None] | None = None

    def acquire_nowait(self) -> bool:
        """Take the loan or a token, where there is one. It is entered later, in the worker's task."""
        if self._loan is not None and self._loan.take():
            self._has_loan = True
            return True
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
        """Wait for the loan or a token, whichever comes first, and enter. False where the waiting was called off.

        Cancelled, nothing is held.
        """
        self._is_called_off = False
        while not self._is_called_off:
            if self.enter():
                return True
            await self._wait_for_either()
        return False

    async def _wait_for_either(self) -> None:
        if self._loan is not None:
            self._loan.expect(self)
        try:
            with CancelScope() as self._wait:
                await self._limiter.acquire_on_behalf_of(self)
                self._has_token = True
        finally:
            self._wait = None
            if self._loan is not None:
                self._loan.expect_no_longer(self)

    def try_again(self) -> None:
        """Stop waiting for a token and see whether the loan can be taken."""
        if self._wait is not None:
            self._wait.cancel()

    def stop_waiting(self) -> None:
        """Call off a wait: there is nothing left to run."""
        if self._wait is not None:
            self._is_called_off = True
            self._wait.cancel()

    def release(self) -> None:
        """Give back what is held."""
        if self._own is not None and self._reset is not None:
            self._own.is_over = True
            _loan.reset(self._reset)
            self._own = self._reset = None
        if self._has_loan and self._loan is not None:
            self._loan.give_back()
        if self._has_token:
            self._limiter.release_on_behalf_of(self)
        self._has_token = self._has_loan = self.is_entered = False
