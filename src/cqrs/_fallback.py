"""What a fallback is: the one policy behind request, event, stream and saga step fallbacks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from cqrs.circuit_breaker import ICircuitBreaker, should_use_fallback
from cqrs.exceptions import ConfigurationError, DependencyResolutionError, name_of

_T = TypeVar("_T")
_logger = logging.getLogger("cqrs")

WIRING_ERRORS = (ConfigurationError, DependencyResolutionError)
# A fallback that stood in for a primary that cannot even be made would hide the mistake.


class FallbackPolicy(Protocol):
    """When to fall back."""

    @property
    def primary(self) -> type: ...
    @property
    def fallback(self) -> type: ...
    @property
    def failure_exceptions(self) -> tuple[type[Exception], ...]: ...
    @property
    def circuit_breaker(self) -> ICircuitBreaker | None: ...


async def run_with_fallback(
    policy: FallbackPolicy, primary: Callable[[], Awaitable[_T]], fallback: Callable[[], Awaitable[_T]]
) -> _T:
    """What ``primary`` returns, or what ``fallback`` returns where the policy says that it is to act.

    The error of a fallback that fails as well has the primary's error as its context. A cancellation is no failure.
    """
    try:
        return await guarded(policy, primary)
    except Exception as error:
        if not falls_back(policy, error):
            raise
        return await fallback()


async def guarded(policy: FallbackPolicy, primary: Callable[[], Awaitable[_T]]) -> _T:
    """Call ``primary``, under the policy's circuit breaker where it has one."""
    if policy.circuit_breaker is None:
        return await primary()
    return await policy.circuit_breaker.call(policy.primary, primary)


def falls_back(policy: FallbackPolicy, error: Exception) -> bool:
    """Whether the fallback is to act after ``error``; says so in the log where it is."""
    breaker = policy.circuit_breaker
    if isinstance(error, WIRING_ERRORS) and not policy.failure_exceptions:
        return False
    if not should_use_fallback(error, breaker, policy.failure_exceptions):
        return False
    if breaker is not None and breaker.is_circuit_breaker_error(error):
        _logger.warning("Circuit of %s is open, using %s", name_of(policy.primary), name_of(policy.fallback))
    else:
        _logger.warning("%s failed (%r), using %s", name_of(policy.primary), error, name_of(policy.fallback))
    return True
