"""How something is tried again when it failed: the one policy behind middlewares, steps and compensations."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from cqrs._options import at_least_one

if TYPE_CHECKING:
    import tenacity
    from tenacity.wait import wait_base

_T = TypeVar("_T")
_logger = logging.getLogger("cqrs")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often something is tried, and how long to wait in between.

    :param attempts: how often it is called at most, the first time included.
    :param retry_on: the errors worth another attempt. Cancellations never are.
    :param wait: how long to wait between two attempts, a wait strategy of tenacity. None: about 0.1, 0.2, 0.4 ...
        seconds, at most 5, with up to 0.1 seconds of jitter.
    :raises InvalidOptionError: ``attempts`` is no whole number from one on.
    """

    attempts: int = 3
    retry_on: tuple[type[Exception], ...] = (Exception,)
    wait: wait_base | None = None

    def __post_init__(self) -> None:
        at_least_one("attempts", self.attempts)

    def covers(self, error: BaseException) -> bool:
        """Whether ``error`` is worth another attempt. A cancellation never is."""
        return isinstance(error, Exception) and isinstance(error, self.retry_on)


def exponential(attempts: int, delay: float, backoff: float) -> RetryPolicy:
    """A policy that waits ``delay`` seconds, then ``backoff`` times as long each time, without jitter."""
    import tenacity

    return RetryPolicy(attempts, wait=tenacity.wait_exponential(multiplier=delay, exp_base=backoff))


async def call_again(
    work: Callable[[], Awaitable[_T]],
    failure: Exception,
    policy: RetryPolicy,
    what: str,
    is_worth_it: Callable[[BaseException], bool],
) -> _T:
    """Call ``work`` until it succeeds, after it has failed once with ``failure``, as ``policy`` says.

    A retrying object costs more than most handlers, and most handlers succeed: call it plainly first.

    :param what: what is called, for the log.
    :param is_worth_it: whether an error is worth another attempt. Asked about cancellations as well.
    :raises Exception: what ``work`` raised at the last attempt.

    A cancellation ends the wait between two attempts at once.
    """
    failures = [failure]

    # The first attempt is over: it is told to tenacity, so that attempts and waits are counted from it.
    async def attempt() -> _T:
        if failures:
            raise failures.pop()
        return await work()

    # Loaded when something has failed: most of what runs does not.
    import tenacity

    default = tenacity.wait_exponential(multiplier=0.1, max=5) + tenacity.wait_random(0, 0.1)
    retrying = tenacity.AsyncRetrying(
        sleep=anyio.sleep,
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=default if policy.wait is None else policy.wait,
        retry=tenacity.retry_if_exception(is_worth_it),
        before_sleep=_log(what),
        reraise=True,
    )
    return await retrying(attempt)


def _log(what: str) -> Callable[[tenacity.RetryCallState], None]:
    def log(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        _logger.warning(
            "%s failed at attempt %d with %r, next attempt in %.3g s",
            what,
            state.attempt_number,
            error,
            state.upcoming_sleep,
        )

    return log
