"""Handle a message again when its handler failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cqrs.exceptions import (
    ConfigurationError,
    DependencyResolutionError,
    RequestHandlerDoesNotExist,
    SagaDoesNotExist,
    StreamAlreadyStartedError,
    StreamUsageError,
)
from cqrs.middlewares.base import HandleType
from cqrs.retry import RetryPolicy, call_again

if TYPE_CHECKING:
    from tenacity.wait import wait_base

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
    :param wait: how long to wait between two attempts, a wait strategy of tenacity. None: as :class:`RetryPolicy` does.
    :raises InvalidOptionError: ``attempts`` is less than 1.
    """

    def __init__(
        self,
        *,
        attempts: int = 3,
        retry_on: tuple[type[Exception], ...] = (Exception,),
        only: tuple[type, ...] | None = None,
        wait: wait_base | None = None,
    ) -> None:
        self._policy = RetryPolicy(attempts, retry_on, wait)
        self._only = only

    async def __call__(self, request: Any, handle: HandleType) -> Any:
        """Handle ``request``, several times if need be.

        :raises Exception: what the handler raised at the last attempt.
        """
        # A retrying object costs more than most handlers, and most handlers succeed.
        try:
            return await handle(request)
        except self._policy.retry_on as error:
            if self._policy.attempts == 1 or not self._covers(request) or not self._is_worth_it(error):
                raise
            failure = error
        return await self._handle_again(request, handle, failure)

    def _covers(self, request: Any) -> bool:
        return self._only is None or isinstance(request, self._only)

    # Asked about cancellations as well, which are no Exception.
    def _is_worth_it(self, error: BaseException) -> bool:
        return self._policy.covers(error) and not isinstance(error, _NEVER_RETRIED)

    async def _handle_again(self, request: Any, handle: HandleType, failure: Exception) -> Any:
        what = f"Handling {type(request).__name__}"
        try:
            return await call_again(lambda: handle(request), failure, self._policy, what, self._is_worth_it)
        except StreamAlreadyStartedError as refusal:
            reason = refusal.__cause__ or refusal
        raise reason
