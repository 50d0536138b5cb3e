"""Handle a message again when its handler failed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import tenacity
from tenacity.wait import wait_base

from cqrs.exceptions import (
    ConfigurationError,
    DependencyResolutionError,
    InvalidOptionError,
    RequestHandlerDoesNotExist,
    SagaDoesNotExist,
    StreamAlreadyStartedError,
    StreamUsageError,
)
from cqrs.middlewares.base import HandleType

_logger = logging.getLogger("cqrs")

DEFAULT_WAIT: wait_base = tenacity.wait_exponential(multiplier=0.1, max=5) + tenacity.wait_random(0, 0.1)
"""Waits about 0.1, 0.2, 0.4 ... seconds, at most 5, with up to 0.1 seconds of jitter."""

_NEVER_RETRIED = (
    ConfigurationError,
    DependencyResolutionError,
    RequestHandlerDoesNotExist,
    SagaDoesNotExist,
    StreamAlreadyStartedError,
    StreamUsageError,
)


class RetryMiddleware:
    """Calls the handler again when it failed with one of certain errors.

    Every attempt has a handler of its own, in a scope of its own: what a failed one did in a transaction of its
    scope is rolled back, and a failure to commit is retried as well. (Under ``ScopeStrategy.SEND`` all
    attempts share the one scope.) What the middlewares inside this one do, they do on every attempt.

    Errors of wiring, such as a message without a handler, are never retried, nor are cancellations. A
    cancellation ends the wait between two attempts at once.

    A stream is retried only until its first result was handed out.

    :param attempts: how often the handler is called at most, the first time included.
    :param retry_on: the errors worth another attempt.
    :param only: the classes of messages that are retried, with their subclasses. None: all.
    :param wait: how long to wait between two attempts, a wait strategy of tenacity.
    :raises InvalidOptionError: ``attempts`` is less than 1.
    """

    def __init__(
        self,
        *,
        attempts: int = 3,
        retry_on: tuple[type[Exception], ...] = (Exception,),
        only: tuple[type, ...] | None = None,
        wait: wait_base = DEFAULT_WAIT,
    ) -> None:
        if attempts < 1:
            raise InvalidOptionError("attempts", attempts, "a whole number, at least 1")
        self._attempts = attempts
        self._retry_on = retry_on
        self._only = only
        self._wait = wait

    async def __call__(self, request: Any, handle: HandleType) -> Any:
        """Handle ``request``, several times if need be.

        :raises Exception: what the handler raised at the last attempt.
        """
        # A retrying object costs more than most handlers, and most handlers succeed.
        try:
            return await handle(request)
        except self._retry_on as error:
            if self._attempts == 1 or not self._covers(request) or not self._is_worth_it(error):
                raise
            failure = error
        return await self._handle_again(request, handle, failure)

    def _covers(self, request: Any) -> bool:
        return self._only is None or isinstance(request, self._only)

    # Asked about cancellations as well, which are no Exception.
    def _is_worth_it(self, error: BaseException) -> bool:
        return (
            isinstance(error, Exception) and isinstance(error, self._retry_on) and not isinstance(error, _NEVER_RETRIED)
        )

    async def _handle_again(self, request: Any, handle: HandleType, failure: Exception) -> Any:
        retrying = tenacity.AsyncRetrying(
            sleep=anyio.sleep,
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._is_worth_it),
            before_sleep=_log(request),
            reraise=True,
        )
        try:
            return await retrying(_failing_first(failure, request, handle))
        except StreamAlreadyStartedError as refusal:
            reason = refusal.__cause__ or refusal
        raise reason


def _failing_first(failure: Exception, request: Any, handle: HandleType) -> Callable[[], Awaitable[Any]]:
    # The first attempt is over: it is told to tenacity, so that attempts and waits are counted from it.
    failures = [failure]

    async def attempt() -> Any:
        if failures:
            raise failures.pop()
        return await handle(request)

    return attempt


def _log(request: Any) -> Callable[[tenacity.RetryCallState], None]:
    def log(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        _logger.warning(
            "Handling %s failed at attempt %d with %r, next attempt in %.3g s",
            type(request).__name__,
            state.attempt_number,
            error,
            state.upcoming_sleep,
        )

    return log
