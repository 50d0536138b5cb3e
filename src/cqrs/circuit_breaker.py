"""What a fallback asks of a circuit breaker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class ICircuitBreaker(Protocol):
    """Stops calling what keeps failing. One breaker serves many callees, told apart by identifier."""

    async def call(self, identifier: type | str, func: Callable[..., Awaitable[_T]], *args: Any, **kwargs: Any) -> _T:
        """Call ``func`` and count how it ends, under the circuit of ``identifier``.

        :raises Exception: what ``func`` raised, or, while the circuit is open, an error of the
            breaker's own that :meth:`is_circuit_breaker_error` recognises.

        A cancelled call is neither a success nor a failure.
        """
        ...

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        """Whether ``exc`` says that the circuit is open and nothing was called."""
        ...


def should_use_fallback(
    primary_error: Exception,
    circuit_breaker: ICircuitBreaker | None,
    failure_exceptions: tuple[type[Exception], ...],
) -> bool:
    """Whether the fallback is to act after ``primary_error``.

    It acts when the circuit is open, when the error is one of ``failure_exceptions``, and, where
    that tuple is empty, after any error.
    """
    if circuit_breaker is not None and circuit_breaker.is_circuit_breaker_error(primary_error):
        return True
    return not failure_exceptions or isinstance(primary_error, failure_exceptions)
